//! `podshim timeline POD`: what happened to a pod that lives, as bars.

use std::io;

use anyhow::Context;
use bundles::layout::Layout;

use super::relay::window_size;
use super::terminal::Output;
use super::{TimelineArgs, TimelineOutput, find_pod};
use crate::pod::file::PodFile;
use crate::pod::past;
use crate::timeline::{self, render};

/// The width of what is no terminal.
const PLAIN_WIDTH: u16 = 100;

/// Draws it from the pod's journal.
pub fn timeline(layout: &Layout, args: &TimelineArgs) -> anyhow::Result<i32> {
    let pod = find_pod(layout, &args.namespace, &args.pod)?;
    let dir = layout.pod(&pod.uid);
    let file = PodFile::read(&dir.spec())?;
    let contents = runtime::journal::read(&dir.journal()).context("cannot read its history")?;
    runtime::clock::set_ahead(contents.ahead());
    let beginning = past::beginning(&file, &contents);
    let made = timeline::of(beginning, &contents.records, runtime::clock::mono());
    let mut output = Output::default();
    match args.output {
        None => {
            use io::IsTerminal;
            let is_terminal = io::stdout().is_terminal();
            let size = window_size().filter(|_| is_terminal);
            let width = size.map_or(PLAIN_WIDTH, |(_, columns)| columns);
            output.write(render::text(&made, usize::from(width)).as_bytes());
        }
        Some(TimelineOutput::Svg) => output.write(render::svg(&made).as_bytes()),
        Some(TimelineOutput::Json) => output.line(serde_json::to_string_pretty(&made)?),
        Some(TimelineOutput::Perfetto) => output.line(render::trace(&made)),
    }
    output.end()?;
    Ok(0)
}
