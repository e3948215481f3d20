//! `podshim load` and `podshim pull`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::Context;
use bundles::image::{Progress, Reference, Store, archive, registry};
use bundles::layout::Layout;
use indicatif::{ProgressBar, ProgressStyle};

use super::registries;
use super::terminal::{Output, complain, printable};
use super::{FAILED, LoadArgs, PullArgs};

/// Takes images from an archive and names them.
pub fn load(layout: &Layout, args: &LoadArgs) -> anyhow::Result<i32> {
    let store = Store::open(&layout.images())?;
    let mut bar = Bar::new(!args.quiet);
    let loaded = if args.input == Path::new("-") {
        archive::load(&store, io::stdin().lock(), &mut |p| bar.show(&p))?
    } else if args.input.is_dir() {
        archive::load_directory(&store, &args.input, &mut |p| bar.show(&p))?
    } else {
        let file = File::open(&args.input)
            .with_context(|| format!("cannot open {}", args.input.display()))?;
        archive::load(&store, file, &mut |p| bar.show(&p))?
    };
    bar.finish();
    let mut output = Output::default();
    if !args.quiet {
        for name in loaded {
            output.line(format_args!("Loaded image: {name}"));
        }
    }
    output.end()?;
    Ok(0)
}

/// Pulls one image. The exit code tells a registry that cannot be reached from other failures.
pub fn pull(layout: &Layout, args: &PullArgs) -> anyhow::Result<i32> {
    let store = Store::open(&layout.images())?;
    let reference = Reference::parse(&args.image)?;
    let options = registries::options(args.plain_http, args.insecure)?;
    let mut bar = Bar::new(!args.quiet);
    match registry::pull(&store, &reference, &options, &mut |p| bar.show(&p)) {
        Ok(image) => {
            bar.finish();
            let mut output = Output::default();
            if !args.quiet {
                output.line(format_args!("{} {}", image.reference, image.manifest_digest));
            }
            output.end()?;
            Ok(0)
        }
        Err(e) => {
            bar.finish();
            complain(&runtime::chain(&e));
            Ok(if e.is_unreachable() { crate::pod::UNREACHABLE } else { FAILED })
        }
    }
}

/// A progress bar on a terminal, nothing elsewhere.
struct Bar {
    bar: Option<ProgressBar>,
    /// Bytes of each layer so far: several are under way at the same time.
    done: BTreeMap<String, u64>,
    /// Device nodes that are in no layer of the store.
    devices: u64,
    wanted: bool,
}

impl Bar {
    fn new(wanted: bool) -> Bar {
        let bar = (wanted && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template(
                "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Bar { bar, done: BTreeMap::new(), devices: 0, wanted }
    }

    fn show(&mut self, progress: &Progress) {
        if let Progress::LeftOut { devices, .. } = progress {
            self.devices += devices;
        }
        let Some(bar) = &self.bar else { return };
        match progress {
            Progress::Resolved { layers, bytes } => {
                bar.set_length(*bytes);
                bar.set_message(format!("{layers} layers"));
            }
            Progress::Layer { digest, done, .. } => {
                self.done.insert(digest.clone(), *done);
                bar.set_position(self.done.values().sum());
            }
            Progress::Retry { digest, reason } => {
                bar.println(format!("{}: trying again: {}", short(digest), printable(reason)));
            }
            Progress::Waiting { digest } => {
                bar.println(format!("{}: waiting for another pull of it", short(digest)));
            }
            Progress::Unpacked { .. } | Progress::LeftOut { .. } => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.wanted && self.devices > 0 {
            complain(&format!(
                "{} device nodes of the image are left out: a container gets a /dev of its own",
                self.devices
            ));
        }
    }
}

/// As much of a digest as docker shows.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}
