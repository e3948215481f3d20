//! A transient scope of systemd's for a pod (systemd.scope(5), "Control Group APIs and Delegation").
//!
//! Where systemd is PID 1 the tree of control groups is its: a directory that it does not know loses
//! controllers when the last unit that wanted them stops. A scope with `Delegate=yes` is the one way
//! to have a part of the tree that neither a logout, nor a restart of whoever asked for it, nor
//! systemd's own clean-up touches.
//!
//! Its methods are called on its private socket, as D-Bus messages (D-Bus Specification,
//! "Message Protocol"): no bus and no library is needed for it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::keeper::Keeper;

/// Where systemd listens for root.
const SOCKET: &str = "/run/systemd/private";
/// Present where systemd is PID 1: `sd_booted(3)`.
const BOOTED: &str = "/run/systemd/system";
/// The slice of all pods.
pub const SLICE: &str = "podshim-pods.slice";
/// That and what it is in.
const PARENTS: [&str; 2] = ["podshim.slice", SLICE];
/// Where that slice is in the tree.
pub(super) const SLICE_PATH: &str = "podshim.slice/podshim-pods.slice";
/// The cgroup of the shim in its pod's scope: nobody may be in one whose children have controllers.
const LEAF: &str = "shim";

/// An answer takes milliseconds; a systemd that is busy may take longer.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_micros(500);
/// The largest message that is read, in bytes.
const MESSAGE_MAX: usize = 64 << 10;

/// Why there is no scope.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// systemd cannot be spoken to.
    #[error("cannot speak to systemd through {SOCKET}")]
    Talk(#[source] io::Error),
    /// systemd refused.
    #[error("systemd refuses: {0}")]
    Refused(String),
    /// It said yes, and this process or its keeper is somewhere else all the same.
    #[error("systemd made a scope and did not move us from {0:?} into it")]
    Elsewhere(String),
    /// What systemd has forgotten cannot be removed.
    #[error(transparent)]
    Left(Box<super::CgroupError>),
    /// The leaf cannot be made or entered.
    #[error("cannot enter {}", path.display())]
    Enter {
        /// The leaf.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Whether systemd is PID 1.
#[must_use]
pub fn is_systemd() -> bool {
    Path::new(BOOTED).is_dir()
}

/// The scope of a pod.
#[must_use]
pub fn name(uid: &str) -> String {
    format!("podshim-{uid}.scope")
}

/// Has systemd make the pod's scope around this process and its keeper, and moves them into a leaf there;
/// into the one of a pod that is taken over. Answers with the scope's cgroup, relative to the root of the
/// tree.
///
/// # Errors
/// [`ScopeError`].
pub fn enter(
    unified: &Path,
    uid: &str,
    description: &str,
    mut keeper: Option<&mut Keeper>,
) -> Result<String, ScopeError> {
    let scope = name(uid);
    let own = cgroup_of("self")?;
    if let Some(cgroup) = own.strip_suffix(&format!("/{LEAF}"))
        && cgroup.ends_with(&scope)
    {
        return Ok(cgroup.to_owned());
    }
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let keeper_pid = keeper.as_ref().and_then(|_| u32::try_from(parent).ok());
    let pids: Vec<u32> = keeper_pid.into_iter().chain([std::process::id()]).collect();
    let there = format!("{SLICE_PATH}/{scope}");
    let mut attempt = || {
        let cgroup = if is_populated(unified, &scope) == Some(true) {
            there.clone()
        } else {
            remove_empty(unified, &scope)?;
            start(unified, &scope, description, &pids)?
        };
        enter_leaf(unified, &cgroup, keeper.as_deref_mut())?;
        Ok(cgroup)
    };
    match attempt() {
        // The last of those that a dead shim has left may have gone in that moment, and the scope with it.
        Err(ScopeError::Enter { .. } | ScopeError::Refused(_)) => attempt(),
        done => done,
    }
}

/// Whether there are processes in a scope; `None` if it is not there.
fn is_populated(unified: &Path, scope: &str) -> Option<bool> {
    let events = unified.join(SLICE_PATH).join(scope).join("cgroup.events");
    let text = fs::read_to_string(events).ok()?;
    Some(text.contains("populated 1"))
}

/// Removes a scope without processes, with all that is below it. Mostly systemd is about to do that. It does
/// not if those that were to be in it were dying when it moved them: the kernel does not move such a one and
/// does not say so (cgroup v2, `cgroup.procs`), so the scope has never been other than empty, and nothing
/// tells systemd of its end. `true` if it was there.
pub(super) fn remove_empty(unified: &Path, scope: &str) -> Result<bool, ScopeError> {
    if is_populated(unified, scope) != Some(false) {
        return Ok(false);
    }
    // systemd makes a scope and moves processes there before it answers anybody else: it is not at that.
    ask_about(GET_UNIT, &[scope])?.ok();
    if is_populated(unified, scope) != Some(false) {
        return Ok(false);
    }
    stop(scope, "replace", &unified.join(SLICE_PATH).join(scope))?;
    Ok(true)
}

/// Removes the scopes in which nobody has ever been, and so nothing is: whosever they were, they are of no use to
/// them. Gives the uids of their pods.
pub(super) fn remove_all_empty(unified: &Path) -> Result<Vec<String>, ScopeError> {
    let slice = unified.join(SLICE_PATH);
    let entries = fs::read_dir(&slice).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let uid_of =
        |scope: &str| Some(scope.strip_prefix("podshim-")?.strip_suffix(".scope")?.to_owned());
    let mut removed = Vec::new();
    for uid in names.filter_map(|scope| uid_of(&scope)) {
        let scope = name(&uid);
        // One that has groups in it is a dead pod's, and its root's to remove.
        let is_bare = super::files::children(&slice.join(&scope)).is_ok_and(|all| all.is_empty());
        if is_bare && remove_empty(unified, &scope)? {
            removed.push(uid);
        }
    }
    Ok(removed)
}

/// Has systemd make the scope around these processes, and waits until they are there.
fn start(
    unified: &Path,
    scope: &str,
    description: &str,
    pids: &[u32],
) -> Result<String, ScopeError> {
    let start = |with_slices| {
        let message = start_transient_unit(scope, description, pids, with_slices);
        ask(&message).map_err(ScopeError::Talk)
    };
    // Units that are there cannot be described anew: somebody else may have been faster.
    let first = !unified.join(SLICE_PATH).exists();
    let answer = match start(first)? {
        Err(_) if first => start(false)?,
        answer => answer,
    };
    answer.map_err(ScopeError::Refused)?;
    let deadline = Instant::now() + PATIENCE;
    // Each of them: systemd moves them one after the other, in no order, and who enters the leaf before it
    // was moved is moved out of it again.
    let mut cgroup = String::new();
    for pid in pids {
        loop {
            cgroup = cgroup_of(&pid.to_string())?;
            if cgroup.ends_with(scope) {
                break;
            }
            if Instant::now() > deadline {
                return Err(ScopeError::Elsewhere(cgroup));
            }
            sleep(PAUSE);
        }
    }
    Ok(cgroup)
}

fn cgroup_of(process: &str) -> Result<String, ScopeError> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).map_err(ScopeError::Talk)?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(own.unwrap_or_default().to_owned())
}

/// Nobody may be in a cgroup that hands controllers on.
fn enter_leaf(unified: &Path, cgroup: &str, keeper: Option<&mut Keeper>) -> Result<(), ScopeError> {
    let leaf = unified.join(cgroup).join(LEAF);
    let failed = |source| ScopeError::Enter { path: leaf.clone(), source };
    fs::create_dir_all(&leaf).map_err(failed)?;
    let procs = leaf.join("cgroup.procs");
    fs::write(&procs, "0").map_err(failed)?;
    if let Some(keeper) = keeper {
        keeper.move_to(&procs.to_string_lossy()).map_err(failed)?;
    }
    Ok(())
}

/// Says what it has to say and waits for the answer: `Err` inside is what systemd said.
fn ask(message: &[u8]) -> io::Result<Result<(), String>> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A NUL byte, then "I am who the kernel says": user 0 in hexadecimal digits. The end of this talk
    // comes with it, as sd-bus does it: a message that systemd reads together with that end, because it
    // is short, would lie there until more comes.
    stream.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n")?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n") && answer.len() < 256 {
        stream.read_exact(&mut byte)?;
        answer.extend_from_slice(&byte);
    }
    if !answer.starts_with(b"OK ") {
        let text = String::from_utf8_lossy(&answer).trim().to_owned();
        return Err(io::Error::other(format!("systemd does not trust us: {text}")));
    }
    stream.write_all(message)?;
    loop {
        let (kind, signature_is_string, body) = receive(&mut stream)?;
        match kind {
            METHOD_RETURN => return Ok(Ok(())),
            ERROR => {
                let text = if signature_is_string { first_string(&body) } else { String::new() };
                return Ok(Err(text));
            }
            // Signals, which everybody who listens here is sent.
            _ => {}
        }
    }
}

/// "Returns the unit object path for a unit name" (org.freedesktop.systemd1(5)), or refuses.
const GET_UNIT: &str = "GetUnit";

/// The unit of the daemon (`scripts/package.d`).
const DAEMON: &str = "podshim.service";

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// One message: its type, whether its body begins with a string, its body.
fn receive(stream: &mut impl Read) -> io::Result<(u8, bool, Vec<u8>)> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    if head[0] != b'l' {
        return Err(io::Error::other("systemd speaks another byte order"));
    }
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (body, fields) = (number(4) as usize, (number(12) as usize).next_multiple_of(8));
    if body > MESSAGE_MAX || fields > MESSAGE_MAX {
        return Err(io::Error::other("systemd's message is too long"));
    }
    let mut rest = vec![0; fields + body];
    stream.read_exact(&mut rest)?;
    let body = rest.split_off(fields);
    // The field SIGNATURE (8) is a variant of type g: its text begins with "s" for a string.
    let signature = [8, 1, b'g', 0];
    let at = rest.windows(4).position(|window| window == signature);
    let is_string = at.is_some_and(|at| rest.get(at + 5) == Some(&b's'));
    Ok((head[1], is_string, body))
}

fn first_string(body: &[u8]) -> String {
    let Some(length) = body.first_chunk::<4>() else { return String::new() };
    let length = u32::from_le_bytes(*length) as usize;
    let text = body.get(4..4 + length).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Bytes of a message in the making: little-endian, each value aligned to its size from the begin.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// An array: its length in bytes, the padding before the first item not counted.
    fn array(&mut self, align: usize, items: impl FnOnce(&mut Wire)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(align);
        let begin = self.0.len();
        items(self);
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// A property: `(sv)`.
    fn property(&mut self, name: &str, signature: &str, value: impl FnOnce(&mut Wire)) {
        self.align(8);
        self.string(name);
        self.signature(signature);
        value(self);
    }
}

/// The method call (org.freedesktop.systemd1(5), "StartTransientUnit").
///
/// With `with_slices` the slices come with it, and go when the last pod has gone. (As dependencies
/// alone they would stay for ever.)
fn start_transient_unit(
    scope: &str,
    description: &str,
    pids: &[u32],
    with_slices: bool,
) -> Vec<u8> {
    let mut body = Wire::default();
    body.string(scope);
    // In place of a job that is about to stop the slices; the scope's own name is new.
    body.string("replace");
    body.array(8, |list| {
        list.property("Description", "s", |w| w.string(description));
        list.property("Slice", "s", |w| w.string(SLICE));
        list.property("PIDs", "au", |w| {
            w.array(4, |list| pids.iter().for_each(|pid| list.u32(*pid)))
        });
        // At the host's shutdown the daemon comes first, and ends its pods in order.
        list.property("Before", "as", |w| w.array(4, |list| list.string(DAEMON)));
        list.property("Delegate", "b", |w| w.u32(1));
        list.property("TasksMax", "t", |w| {
            w.align(8);
            w.0.extend_from_slice(&u64::MAX.to_le_bytes());
        });
        // It is gone when its last process is, however that ended.
        list.property("CollectMode", "s", |w| w.string("inactive-or-failed"));
    });
    // Auxiliary units: a(sa(sv)).
    body.array(8, |units| {
        for slice in PARENTS.iter().filter(|_| with_slices) {
            units.align(8);
            units.string(slice);
            units.array(8, |list| list.property("StopWhenUnneeded", "b", |w| w.u32(1)));
        }
    });

    call("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)
}

/// Stops the slices if no pod is in them. Mostly they have gone by themselves; not if a pod came while
/// they were about to. A pod that is being started at this moment makes systemd refuse.
///
/// # Errors
/// [`ScopeError`].
pub fn leave(unified: &Path) -> Result<(), ScopeError> {
    let slice = unified.join(SLICE_PATH);
    let has_pods = fs::read_dir(&slice)
        .is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| e.path().is_dir())));
    if has_pods || !unified.join(PARENTS[0]).is_dir() {
        return Ok(());
    }
    stop(PARENTS[0], "fail", &unified.join(PARENTS[0]))
}

/// Has systemd stop a unit, with which its directory goes. If systemd has forgotten the unit and could not remove
/// the directory then, because something was in it, the directory is nobody's, and is removed here. Only what is
/// empty can be removed.
fn stop(unit: &str, mode: &str, directory: &Path) -> Result<(), ScopeError> {
    const MOMENT: Duration = Duration::from_millis(200);
    match ask_about("StopUnit", &[unit, mode])? {
        Err(refusal) if !refusal.contains("not loaded") => {
            return Err(ScopeError::Refused(refusal));
        }
        _ => {}
    }
    let asked = Instant::now();
    while directory.exists() && asked.elapsed() < MOMENT {
        sleep(PAUSE);
    }
    super::files::remove_tree(directory).map_err(|e| ScopeError::Left(Box::new(e)))
}

/// Asks systemd something of which all that it is to know are strings.
fn ask_about(method: &str, words: &[&str]) -> Result<Result<(), String>, ScopeError> {
    let mut body = Wire::default();
    words.iter().for_each(|word| body.string(word));
    ask(&call(method, &"s".repeat(words.len()), &body)).map_err(ScopeError::Talk)
}

/// A call of systemd's manager.
fn call(method: &str, signature: &str, body: &Wire) -> Vec<u8> {
    let mut message = Wire(vec![b'l', METHOD_CALL, 0, 1]);
    message.u32(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    message.u32(1);
    message.array(8, |fields| {
        let mut field = |code: u8, signature: &str, text: &str| {
            fields.align(8);
            fields.0.push(code);
            fields.signature(signature);
            if signature == "g" { fields.signature(text) } else { fields.string(text) }
        };
        field(1, "o", "/org/freedesktop/systemd1");
        field(2, "s", "org.freedesktop.systemd1.Manager");
        field(3, "s", method);
        field(6, "s", "org.freedesktop.systemd1");
        field(8, "g", signature);
    });
    message.align(8);
    message.0.extend_from_slice(&body.0);
    message.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_laid_out_as_the_specification_says() {
        let mut wire = Wire::default();
        wire.0.push(7);
        wire.array(8, |list| list.property("ab", "u", |w| w.u32(9)));
        let expected: &[u8] = &[
            7, 0, 0, 0, // padding
            20, 0, 0, 0, // the array's bytes
            2, 0, 0, 0, b'a', b'b', 0, // a string
            1, b'u', 0, // the signature
            0, 0, // padding
            9, 0, 0, 0,
        ];
        let mut expected = expected.to_vec();
        // "ab\0" ends at 15, the signature at 18, the number begins at 20.
        expected[4] = u8::try_from(expected.len() - 8).expect("short");
        assert_eq!(wire.0, expected);
        let message = start_transient_unit("podshim-1.scope", "a pod", &[42], true);
        assert_eq!(&message[..4], [b'l', 1, 0, 1]);
        let fields = u32::from_le_bytes(message[12..16].try_into().expect("four")) as usize;
        let body = u32::from_le_bytes(message[4..8].try_into().expect("four")) as usize;
        assert_eq!(16 + fields.next_multiple_of(8) + body, message.len());
        let begin = 16 + fields.next_multiple_of(8);
        assert_eq!(first_string(&message[begin..]), "podshim-1.scope");
    }

    #[test]
    fn an_error_is_read_with_its_text() {
        let mut body = Wire::default();
        body.string("no such thing");
        let mut message = Wire(vec![b'l', ERROR, 1, 1]);
        message.u32(u32::try_from(body.0.len()).expect("short"));
        message.u32(5);
        message.array(8, |fields| {
            fields.0.push(8);
            fields.signature("g");
            fields.signature("s");
        });
        message.align(8);
        message.0.extend_from_slice(&body.0);
        let (kind, is_string, body) = receive(&mut message.0.as_slice()).expect("a message");
        assert_eq!((kind, is_string), (ERROR, true));
        assert_eq!(first_string(&body), "no such thing");
    }
}
