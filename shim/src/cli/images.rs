//! `podshim load` and `podshim pull`.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::Context;
use bundles::image::{Progress, Reference, Store, archive, registry};
use bundles::layout::Layout;
use indicatif::{ProgressBar, ProgressStyle};

use super::terminal::{Output, complain};
use super::{FAILED, LoadArgs, PullArgs};

/// Takes images from an archive and names them.
pub fn load(layout: &Layout, args: &LoadArgs) -> anyhow::Result<i32> {
    let store = Store::open(&layout.images())?;
    let input: Box<dyn Read> = if args.input == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&args.input)
            .with_context(|| format!("cannot open {}", args.input.display()))?;
        Box::new(file)
    };
    let mut bar = Bar::new(!args.quiet);
    let loaded = archive::load(&store, input, &mut |p| bar.show(&p))?;
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
    let mut bar = Bar::new(!args.quiet);
    match registry::pull(&store, &reference, &mut |p| bar.show(&p)) {
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
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(wanted: bool) -> Bar {
        Bar((wanted && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template(
                "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        }))
    }

    fn show(&mut self, progress: &Progress) {
        let Some(bar) = &self.0 else { return };
        match progress {
            Progress::Layer { digest, done, total } => {
                bar.set_length(*total);
                bar.set_position(*done);
                bar.set_message(digest.get(..19).unwrap_or(digest).to_owned());
            }
            Progress::Resolved { layers, .. } => bar.set_message(format!("{layers} layers")),
            _ => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
