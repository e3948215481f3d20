//! Volumes whose files are values, laid out as the kubelet's `atomic_writer.go` does, so that all
//! files change at once: they lie in a directory with a name of its own, `..data` links to it, and
//! each top-level name links through `..data`.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use bundles::layout::PodDir;
use bundles::payload::{Payload, PayloadFile};
use plan::Wall;

use crate::state_dir::make_dir;
use crate::volume::VolumeError;

const DIRECTORY_MODE: u32 = 0o755;
/// What `fsGroup` adds to a directory: everything for the group, and the group is inherited.
const GROUP_DIRECTORY: u32 = 0o2070;
/// What it adds to a file of a volume that is mounted read-only.
const GROUP_FILE: u32 = 0o040;

/// Makes a volume of files.
///
/// # Errors
/// [`VolumeError::Make`].
pub fn make(dir: &PodDir, payload: &Payload, now: Wall) -> Result<(), VolumeError> {
    let root = dir.payload(payload.plugin, &payload.name);
    let failed = |e: io::Error| VolumeError::Make { path: root.clone(), source: e };
    make_dir(&root, DIRECTORY_MODE).map_err(|e| failed(io::Error::other(e)))?;
    fill(&root, payload, now).map_err(failed)
}

fn fill(root: &Path, payload: &Payload, now: Wall) -> io::Result<()> {
    own_directory(root, payload.gid)?;
    let name = directory_name(now);
    let data = root.join(&name);
    fs::create_dir(&data)?;
    own_directory(&data, payload.gid)?;
    let mut top = BTreeSet::new();
    for (path, file) in &payload.files {
        let mut parents = Path::new(path).ancestors().skip(1).collect::<Vec<_>>();
        parents.reverse();
        for parent in parents.into_iter().filter(|p| !p.as_os_str().is_empty()) {
            match fs::create_dir(data.join(parent)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made?;
                    own_directory(&data.join(parent), payload.gid)?;
                }
            }
        }
        write_file(&data.join(path), file, payload.gid)?;
        top.extend(path.split('/').next());
    }
    symlink(&name, root.join("..data_tmp"))?;
    fs::rename(root.join("..data_tmp"), root.join("..data"))?;
    for name in top {
        symlink(Path::new("..data").join(name), root.join(name))?;
    }
    Ok(())
}

/// As in Kubernetes: `..2026_11_24_12_00_00.` and digits.
fn directory_name(now: Wall) -> String {
    let time = now.rfc3339().replace([':', '-', 'T'], "_");
    format!("..{}.{:09}", time.trim_end_matches('Z'), now.0 % 1_000_000_000)
}

fn own_directory(path: &Path, gid: Option<u32>) -> io::Result<()> {
    let more = if gid.is_some() { GROUP_DIRECTORY } else { 0 };
    lchown(path, None, gid)?;
    fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE | more))
}

fn write_file(path: &Path, file: &PayloadFile, gid: Option<u32>) -> io::Result<()> {
    // Nobody reads it before it has its owner and mode.
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    made.write_all(&file.data)?;
    lchown(path, None, gid)?;
    let more = if gid.is_some() { GROUP_FILE } else { 0 };
    made.set_permissions(Permissions::from_mode(file.mode | more))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use bundles::layout::Layout;

    use super::*;

    #[test]
    fn files_are_links_through_data_with_their_modes_and_group() {
        let temp = tempfile::tempdir().expect("directory");
        let at = |name: &str| temp.path().join(name);
        let layout =
            Layout { root: at("root"), state: at("state"), logs: at("logs"), network: at("net") };
        let dir = layout.pod("0b0e8d4c");
        let file = |mode, text: &str| PayloadFile { mode, data: text.into() };
        let files = [
            ("plain".to_owned(), file(0o644, "a")),
            ("deep/er/x".to_owned(), file(0o400, "b")),
            ("deep/y".to_owned(), file(0o600, "c")),
        ];
        let gid = rustix::process::getegid().as_raw();
        let mut payload = Payload {
            name: "v".into(),
            plugin: "kubernetes.io~configmap",
            files: files.into_iter().collect(),
            gid: None,
        };
        make(&dir, &payload, Wall(1_767_225_600_000_000_007)).expect("made");
        let root = dir.payload(payload.plugin, "v");
        let link = |name: &str| fs::read_link(root.join(name)).expect(name);
        let text = |name: &str| fs::read_to_string(root.join(name)).expect(name);
        assert_eq!(link("..data"), Path::new("..2026_01_01_00_00_00.000000007"));
        assert_eq!(link("plain"), Path::new("..data/plain"));
        assert_eq!(link("deep"), Path::new("..data/deep"));
        assert_eq!(
            (text("plain"), text("deep/er/x"), text("deep/y")),
            ("a".into(), "b".into(), "c".into())
        );
        let mode = |name: &str| fs::metadata(root.join(name)).expect(name).mode() & 0o7777;
        assert_eq!((mode("deep/er/x"), mode("deep"), mode("")), (0o400, 0o755, 0o755));

        payload.name = "w".into();
        payload.gid = Some(gid);
        make(&dir, &payload, Wall(0)).expect("made");
        let root = dir.payload(payload.plugin, "w");
        let mode = |name: &str| fs::metadata(root.join(name)).expect(name).mode() & 0o7777;
        assert_eq!((mode("deep/er/x"), mode("deep"), mode("")), (0o440, 0o2775, 0o2775));
    }
}
