//! `podshim images`, `rmi` and `image build-rootfs`: what is in the image store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use bundles::image::{Image, ImageConfig, Reference, Store, remove, rootfs};
use bundles::layout::Layout;
use clap::{Args, Subcommand};
use serde_json::json;

use super::table::columns;
use super::terminal::{Output, complain};
use super::{FAILED, RunOutput, one_line};

/// `podshim images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Only the ids
    #[arg(long, short)]
    quiet: bool,
    /// A list of objects; their size_bytes are those that were transferred
    #[arg(long, short, value_enum, conflicts_with = "quiet")]
    output: Option<RunOutput>,
}

/// `podshim rmi`.
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Names, or ids or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Also what living pods run: the name goes now, the layers when the pod is gone
    #[arg(long, short)]
    force: bool,
}

/// `podshim image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image of one layer from a directory: owners, modes, hard links and attributes stay
    BuildRootfs(BuildRootfsArgs),
}

/// `podshim image build-rootfs`.
#[derive(Debug, Args)]
pub struct BuildRootfsArgs {
    /// The directory that becomes the container's root
    dir: PathBuf,
    /// The image's name
    #[arg(long, short, value_name = "NAME")]
    tag: String,
    /// What is run: a list in JSON, or a line for /bin/sh
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Its arguments, or what is run if there is no entrypoint: a list in JSON, or a line for /bin/sh
    #[arg(long, value_name = "COMMAND")]
    cmd: Option<String>,
    /// A variable of its environment; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Its working directory
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// As whom it runs: USER[:GROUP], names or numbers
    #[arg(long)]
    user: Option<String>,
    /// Print nothing
    #[arg(long, short)]
    quiet: bool,
}

/// What stands where a name has no tag or no repository, as docker has it.
const NONE: &str = "<none>";

/// A name in the store.
struct Row {
    repository: String,
    tag: Option<String>,
    image: Image,
}

/// Lists images.
pub fn images(layout: &Layout, args: &ImagesArgs) -> anyhow::Result<i32> {
    let rows = rows(Store::open(&layout.images())?.list()?)?;
    let mut output = Output::default();
    if args.quiet {
        let mut ids: Vec<&str> = rows.iter().map(|row| short(&row.image.id)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.iter().for_each(|id| output.line(id));
        output.end()?;
        return Ok(0);
    }
    if args.output.is_some() {
        let list: Vec<serde_json::Value> = rows.iter().map(Row::json).collect();
        output.line(serde_json::to_string_pretty(&list)?);
        output.end()?;
        return Ok(0);
    }
    let mut table = vec![["REPOSITORY", "TAG", "IMAGE ID", "SIZE"].map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(|row| {
        let tag = row.tag.clone().unwrap_or_else(|| NONE.to_owned());
        let id = short(&row.image.id).to_owned();
        vec![row.repository.clone(), tag, id, size(row.image.size_bytes)]
    }));
    output.write(columns(&table).as_bytes());
    output.end()?;
    Ok(0)
}

/// One row a name; a digest under which an image was noted too is not one if it has a tag.
fn rows(images: Vec<Image>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut tagged: BTreeMap<String, usize> = BTreeMap::new();
    for image in images {
        let reference = Reference::parse(&image.reference)?;
        let tag = reference.tag().map(str::to_owned);
        if tag.is_some() {
            *tagged.entry(image.id.clone()).or_default() += 1;
        }
        rows.push(Row { repository: familiar(&reference), tag, image });
    }
    rows.retain(|row| row.tag.is_some() || !tagged.contains_key(&row.image.id));
    Ok(rows)
}

impl Row {
    fn json(&self) -> serde_json::Value {
        json!({
            "repository": self.repository,
            "tag": self.tag,
            "name": self.image.reference,
            "digest": self.image.manifest_digest,
            "id": self.image.id,
            "size_bytes": self.image.size_bytes,
        })
    }
}

/// A repository as people write it: `docker.io/library/alpine` is `alpine`.
fn familiar(reference: &Reference) -> String {
    let (registry, repository) = (reference.registry(), reference.repository());
    if registry != "docker.io" {
        return format!("{registry}/{repository}");
    }
    repository.strip_prefix("library/").unwrap_or(repository).to_owned()
}

/// The first twelve digits of an id.
fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// Bytes with three digits and a unit of thousands, as docker shows them.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    let Some((unit, name)) = UNITS.iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes}B");
    };
    let (whole, tenths) = (bytes / unit, bytes % unit * 10 / unit);
    if whole >= 100 { format!("{whole}{name}") } else { format!("{whole}.{tenths}{name}") }
}

/// Removes images.
pub fn rmi(layout: &Layout, args: &RmiArgs) -> anyhow::Result<i32> {
    let store = Store::open(&layout.images())?;
    let mut failed = false;
    let mut output = Output::default();
    for text in &args.images {
        match remove::remove(&store, text, args.force) {
            Ok(removed) => {
                for name in &removed.names {
                    output.line(format_args!("Untagged: {name}"));
                }
                for id in &removed.images {
                    output.line(format_args!("Deleted: {id}"));
                }
                if removed.layers > 0 {
                    output.line(format_args!("Deleted layers: {}", removed.layers));
                }
            }
            Err(error) => {
                complain(&one_line(&error.into()));
                failed = true;
            }
        }
    }
    output.end()?;
    Ok(if failed { FAILED } else { 0 })
}

/// Makes an image from a directory.
pub fn build_rootfs(layout: &Layout, args: &BuildRootfsArgs) -> anyhow::Result<i32> {
    if !rustix::process::geteuid().is_root() {
        bail!("`podshim image build-rootfs` needs root, to keep owners and capabilities of files");
    }
    let words = |text: &Option<String>| text.as_deref().map(command).transpose();
    let config = ImageConfig {
        entrypoint: words(&args.entrypoint)?.unwrap_or_default(),
        cmd: words(&args.cmd)?.unwrap_or_default(),
        env: args.env.clone(),
        working_dir: args.workdir.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        ..ImageConfig::default()
    };
    if let Some(wrong) = config.env.iter().find(|text| !text.contains('=')) {
        bail!("--env {wrong:?} is not NAME=VALUE");
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        bail!("--workdir {:?} is not an absolute path", config.working_dir);
    }
    let name = Reference::parse(&args.tag)?;
    let store = Store::open(&layout.images())?;
    let (image, left_out) = rootfs::build(&store, &args.dir, &name, &config)?;
    for path in &left_out.special {
        complain(&format!("left out: {} (a device or a socket)", path.display()));
    }
    for path in &left_out.mounts {
        complain(&format!("left empty: {} (another file system)", path.display()));
    }
    let mut output = Output::default();
    if !args.quiet {
        output.line(format_args!("{} {}", image.reference, image.id));
    }
    output.end()?;
    Ok(0)
}

/// A command as Dockerfiles write it: a list in JSON, or a line for the shell.
fn command(text: &str) -> anyhow::Result<Vec<String>> {
    if text.trim_start().starts_with('[') {
        return match serde_json::from_str(text) {
            Ok(words) => Ok(words),
            Err(e) => bail!("{text:?} begins like a list in JSON, but is none: {e}"),
        };
    }
    Ok(["/bin/sh", "-c", text].map(str::to_owned).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_names_are_docker_s() {
        for (bytes, shown) in [
            (0, "0B"),
            (999, "999B"),
            (1500, "1.5kB"),
            (7_340_000, "7.3MB"),
            (152_000_000, "152MB"),
            (2_100_000_000, "2.1GB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        let name = |text: &str| familiar(&Reference::parse(text).unwrap());
        assert_eq!(name("alpine"), "alpine");
        assert_eq!(name("docker.io/team/app:v1"), "team/app");
        assert_eq!(name("localhost:5000/app"), "localhost:5000/app");
    }

    #[test]
    fn a_command_is_a_list_or_a_line_for_the_shell() {
        assert_eq!(command(r#"["/app", "-v"]"#).unwrap(), ["/app", "-v"]);
        assert_eq!(command("a && b").unwrap(), ["/bin/sh", "-c", "a && b"]);
        assert!(command("[broken").is_err());
    }

    #[test]
    fn a_name_by_digest_has_a_row_only_if_no_tag_means_the_image() {
        let image = |name: &str, id: &str| Image {
            reference: name.into(),
            manifest_digest: String::new(),
            id: id.into(),
            layers: Vec::new(),
            config: ImageConfig::default(),
            size_bytes: 0,
        };
        let digest = format!("docker.io/library/a@sha256:{}", "0".repeat(64));
        let shown = |images: Vec<Image>| {
            let rows = rows(images).unwrap();
            rows.iter().map(|r| (r.repository.clone(), r.tag.clone())).collect::<Vec<_>>()
        };
        let both = vec![image("docker.io/library/a:1", "x"), image(&digest, "x")];
        assert_eq!(shown(both), [("a".to_owned(), Some("1".to_owned()))]);
        assert_eq!(shown(vec![image(&digest, "x")]), [("a".to_owned(), None)]);
    }
}
