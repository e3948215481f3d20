//! Who a container's process is: user, groups, home directory.
//!
//! Merges the security contexts of pod and container with the image's `USER` and the image's own
//! `/etc/passwd` and `/etc/group`, whose contents the caller has read (regular files, size capped).
//! The image is untrusted: a number that is out of range is refused and never looked up as a name,
//! a numeric name is never a name, and groups are always set explicitly. Nothing of the host's user
//! database or NSS is consulted.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext};

/// The largest user or group id: the kernel has more, Kubernetes does not
/// (`IsValidUserID`).
const MAX_ID: u32 = i32::MAX as u32;

/// The largest `/etc/passwd` or `/etc/group` that is read, in bytes: that of containerd.
pub const MAX_FILE_BYTES: usize = 10 * 1024 * 1024;

/// The kernel's `NGROUPS_MAX` (setgroups(2)).
const MAX_GROUPS: usize = 65_536;

/// Why nobody knows who the process is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A number out of range.
    #[error("{what} {text} is not between 0 and {MAX_ID}")]
    Number {
        /// Which number: `user id`, `runAsGroup`, ….
        what: &'static str,
        /// As it was written.
        text: String,
    },
    /// An image `USER` that is not `user`, `user:group` of names or numbers.
    #[error("the image's user {text:?} is not of the form user or user:group")]
    Image {
        /// As the image has it.
        text: String,
    },
    /// A name without an entry.
    #[error(
        "no {kind} {name:?} in the image's {file}: set {field} to a number in the container's \
         securityContext"
    )]
    Lookup {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
        /// What says it instead.
        field: &'static str,
    },
    /// An entry whose numbers are none.
    #[error("the entry of {name:?} in the image's {file} has no valid id")]
    Entry {
        /// Name or number of the user or group.
        name: String,
        /// Which file.
        file: &'static str,
    },
    /// A file that no honest image has.
    #[error("the image's {file} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// Which file.
        file: &'static str,
    },
    /// More groups than a process can have.
    #[error("the user is in more than {MAX_GROUPS} groups")]
    TooManyGroups,
    /// `runAsUser: 0` with `runAsNonRoot: true`; the text is the kubelet's.
    #[error(
        "container's runAsUser breaks non-root policy (pod: {:?}, container: {})",
        .place.pod, .place.container
    )]
    RootAsked {
        /// Which container.
        place: Place,
    },
    /// The image's user is root; the text is the kubelet's.
    #[error(
        "container has runAsNonRoot and image will run as root (pod: {:?}, container: {})",
        .place.pod, .place.container
    )]
    RootImage {
        /// Which container.
        place: Place,
    },
    /// The image's user is a name, which an image can give to anyone; the text is the kubelet's.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user \
         is non-root (pod: {:?}, container: {})",
        .place.pod, .place.container
    )]
    NonNumeric {
        /// The name.
        user: String,
        /// Which container.
        place: Place,
    },
}

/// A container as the kubelet's messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `name_namespace(uid)`.
    pub pod: String,
    /// The container's name.
    pub container: String,
}

/// Contents of the image's files; `None` if there are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// `/etc/passwd`.
    pub passwd: Option<&'a str>,
    /// `/etc/group`.
    pub group: Option<&'a str>,
}

/// Who the process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All supplementary groups, the primary one first, so that the list is never empty and is
    /// always set (with an empty one the process would keep its creator's groups).
    pub additional_gids: Vec<u32>,
    /// The home directory, if the user has an entry with one.
    pub home: Option<String>,
}

/// A name or a number, as the image has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ref<'a> {
    Id(u32),
    Name(&'a str),
}

/// The identity of `container` in `pod`; `image_user` is the image's `USER`.
///
/// # Errors
/// If the parts contradict each other, ask for somebody who is not there, or break `runAsNonRoot`.
pub fn resolve(
    pod: &Pod,
    container: &Container,
    image_user: &str,
    files: Files<'_>,
) -> Result<Identity, UserError> {
    let empty = PodSecurityContext::default();
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).unwrap_or(&empty);
    let own = container.security_context.as_ref();
    let asked_user = own.and_then(|c| c.run_as_user).or(of_pod.run_as_user);
    let asked_group = own.and_then(|c| c.run_as_group).or(of_pod.run_as_group);
    let non_root = own.and_then(|c| c.run_as_non_root).or(of_pod.run_as_non_root);

    let (user, image_group) = match asked_user {
        Some(uid) => (Ref::Id(spec_id("runAsUser", uid)?), None),
        None => parse_image_user(image_user)?,
    };
    if non_root == Some(true) {
        check_non_root(user, asked_user.is_some(), || place(pod, container))?;
    }
    let group = match asked_group {
        Some(gid) => Some(Ref::Id(spec_id("runAsGroup", gid)?)),
        None => image_group,
    };
    let entry = find_user(user, files.passwd)?;
    let gid = match group {
        Some(group) => find_group(group, files.group)?,
        None => entry.gid,
    };
    let mut gids = vec![gid];
    for &asked in of_pod.supplemental_groups.iter().flatten() {
        gids.push(spec_id("supplementalGroups", asked)?);
    }
    if let Some(asked) = of_pod.fs_group {
        gids.push(spec_id("fsGroup", asked)?);
    }
    // KEP-3619: under the policy Strict the image's /etc/group gives nobody anything.
    if of_pod.supplemental_groups_policy.as_deref() != Some("Strict") {
        gids.extend(groups_of(entry.name, files.group)?);
    }
    let additional_gids = without_repeats(gids)?;
    Ok(Identity { uid: entry.uid, gid, additional_gids, home: entry.home.map(Into::into) })
}

fn check_non_root(user: Ref<'_>, asked: bool, place: impl Fn() -> Place) -> Result<(), UserError> {
    match user {
        Ref::Id(0) if asked => Err(UserError::RootAsked { place: place() }),
        Ref::Id(0) => Err(UserError::RootImage { place: place() }),
        Ref::Id(_) => Ok(()),
        Ref::Name(name) => Err(UserError::NonNumeric { user: name.into(), place: place() }),
    }
}

fn place(pod: &Pod, container: &Container) -> Place {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let metadata = &pod.metadata;
    let (name, namespace) = (text(&metadata.name), text(&metadata.namespace));
    let pod = format!("{name}_{namespace}({})", text(&metadata.uid));
    Place { pod, container: container.name.clone() }
}

fn spec_id(what: &'static str, value: i64) -> Result<u32, UserError> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id <= MAX_ID)
        .ok_or_else(|| UserError::Number { what, text: value.to_string() })
}

fn parse_image_user(text: &str) -> Result<(Ref<'_>, Option<Ref<'_>>), UserError> {
    if text.is_empty() {
        return Ok((Ref::Id(0), None));
    }
    let refused = || UserError::Image { text: text.into() };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = parse_ref("user id", user)?.ok_or_else(refused)?;
    let group = match group {
        Some(group) => Some(parse_ref("group id", group)?.ok_or_else(refused)?),
        None => None,
    };
    Ok((user, group))
}

/// `None` if it is neither a number nor a possible name. What looks like a number is one, with a
/// sign too: `-1` and `4294967296` must not become names that an image's passwd can define.
fn parse_ref<'a>(what: &'static str, text: &'a str) -> Result<Option<Ref<'a>>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return match parse_id(text) {
            Some(id) => Ok(Some(Ref::Id(id))),
            None => Err(UserError::Number { what, text: text.into() }),
        };
    }
    // useradd(8), with the upper case, dots and `$` that real images have.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-$@\\".contains(c);
    let valid = text.chars().all(allowed) && !text.starts_with('-') && !text.is_empty();
    Ok(valid.then_some(Ref::Name(text)))
}

/// A number of digits only, in range.
fn parse_id(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

struct Entry<'a> {
    name: Option<&'a str>,
    uid: u32,
    gid: u32,
    home: Option<&'a str>,
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The user's entry: `name:password:uid:gid:comment:home:shell` (passwd(5)). A number needs none:
/// it is then in group 0.
fn find_user<'a>(user: Ref<'a>, passwd: Option<&'a str>) -> Result<Entry<'a>, UserError> {
    for line in lines(passwd, PASSWD)? {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, uid, gid, ref rest @ ..] = fields.as_slice() else { continue };
        let found = match user {
            Ref::Id(wanted) => parse_id(uid) == Some(wanted),
            Ref::Name(wanted) => name == wanted,
        };
        if !found {
            continue;
        }
        let (Some(uid), Some(gid)) = (parse_id(uid), parse_id(gid)) else {
            return Err(UserError::Entry { name: name.into(), file: PASSWD });
        };
        let home = rest.get(1).copied().filter(|home| is_directory(home));
        return Ok(Entry { name: Some(name), uid, gid, home });
    }
    match user {
        Ref::Id(uid) => Ok(Entry { name: None, uid, gid: 0, home: None }),
        Ref::Name(name) => Err(UserError::Lookup {
            kind: "user",
            name: name.into(),
            file: PASSWD,
            field: "runAsUser",
        }),
    }
}

/// What may become `HOME`: an absolute path without control characters.
fn is_directory(home: &str) -> bool {
    home.starts_with('/') && !home.chars().any(char::is_control)
}

/// The group's id: `name:password:gid:member,…` (group(5)).
fn find_group(group: Ref<'_>, file: Option<&str>) -> Result<u32, UserError> {
    let name = match group {
        Ref::Id(gid) => return Ok(gid),
        Ref::Name(name) => name,
    };
    for (entry, gid, _) in group_entries(file)? {
        if entry == name {
            let invalid = || UserError::Entry { name: name.into(), file: GROUP };
            return parse_id(gid).ok_or_else(invalid);
        }
    }
    Err(UserError::Lookup { kind: "group", name: name.into(), file: GROUP, field: "runAsGroup" })
}

/// The groups that `/etc/group` counts a user among.
fn groups_of(name: Option<&str>, file: Option<&str>) -> Result<Vec<u32>, UserError> {
    let Some(name) = name else { return Ok(Vec::new()) };
    let mut gids = Vec::new();
    for (group, gid, members) in group_entries(file)? {
        if members.split(',').any(|member| member == name) {
            let invalid = || UserError::Entry { name: group.into(), file: GROUP };
            gids.push(parse_id(gid).ok_or_else(invalid)?);
        }
    }
    Ok(gids)
}

fn group_entries(
    file: Option<&str>,
) -> Result<impl Iterator<Item = (&str, &str, &str)>, UserError> {
    Ok(lines(file, GROUP)?.filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid, fields.next().unwrap_or("")))
    }))
}

/// The entries of a file. Comments, and NIS' `+` and `-` lines, are none.
fn lines<'a>(
    file: Option<&'a str>,
    name: &'static str,
) -> Result<impl Iterator<Item = &'a str>, UserError> {
    let text = file.unwrap_or("");
    if text.len() > MAX_FILE_BYTES {
        return Err(UserError::TooLarge { file: name });
    }
    let entry = |line: &&str| !line.is_empty() && !line.starts_with(['#', '+', '-', ':']);
    Ok(text.lines().map(str::trim).filter(entry))
}

fn without_repeats(gids: Vec<u32>) -> Result<Vec<u32>, UserError> {
    let mut seen = std::collections::BTreeSet::new();
    let unique: Vec<u32> = gids.into_iter().filter(|gid| seen.insert(*gid)).collect();
    if unique.len() > MAX_GROUPS {
        return Err(UserError::TooManyGroups);
    }
    Ok(unique)
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
