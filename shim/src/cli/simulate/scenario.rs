//! `podshim simulate --scenario`: one text for the simulator and for the real kernel.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use plan::PodPhase;
use serde_json::Value;
use sim::{Happening, Scenario, Seen, What};

use super::super::FAILED;
use super::super::terminal::{Output, complain};

/// Reads a scenario.
pub fn read(path: &Path) -> anyhow::Result<Scenario> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Scenario::read(&text)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{} is no scenario", path.display()))
}

/// Prints the scenario as a manifest, with what a user does as comments.
pub fn manifest(scenario: &Scenario, image: &str) -> anyhow::Result<i32> {
    let mut output = Output::default();
    output.line(format_args!("# {}", scenario.title));
    for cue in scenario.cues() {
        let what = match &cue.what {
            sim::UserAct::Delete { grace_s: None } => "delete".to_owned(),
            sim::UserAct::Delete { grace_s: Some(s) } => format!("delete grace={s}"),
            sim::UserAct::Reboot { notice: true } => "reboot".to_owned(),
            sim::UserAct::Reboot { notice: false } => "lose-power".to_owned(),
            sim::UserAct::To { container, deed } => format!("{} {container}", deed.word()),
        };
        let seen = cue.seen.iter().map(|seen| {
            let Seen { container, starts, exits } = seen;
            format!(" {container} starts={starts} exits={exits}")
        });
        let seen: Vec<String> = seen.collect();
        output.line(format_args!("# {} ms after{}: {what}", cue.after_ms, seen.join(",")));
    }
    output.line(scenario.manifest(image).trim_end());
    output.end()?;
    Ok(0)
}

/// Judges what `podshim run -o json` printed of the scenario's manifest.
pub fn observed(scenario: &Scenario, path: &Path) -> anyhow::Result<i32> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut happened = Vec::new();
    let mut phase = None;
    for (number, line) in (1..).zip(text.lines()) {
        let object: Value = serde_json::from_str(line)
            .with_context(|| format!("{}, line {number}, is no JSON", path.display()))?;
        match object["kind"].as_str() {
            Some("Event") => happened.extend(happening(&object)),
            Some("Pod") => phase = phase_of(&object),
            _ => {}
        }
    }
    let Some(phase) = phase else { bail!("{} has no pod that is over", path.display()) };
    verdict(scenario, &happened, phase)
}

/// Says what is not as expected.
pub fn verdict(
    scenario: &Scenario,
    happened: &[Happening],
    phase: PodPhase,
) -> anyhow::Result<i32> {
    let wrong = scenario.judge(happened, phase);
    for line in &wrong {
        complain(line);
    }
    if wrong.is_empty() {
        let mut output = Output::default();
        output.line(format_args!("{} as expected", scenario.expectations.len()));
        output.end()?;
        return Ok(0);
    }
    let told: Vec<String> =
        happened.iter().map(|h| format!("{} {:?}", h.container, h.what)).collect();
    complain(&format!("what happened: {}", told.join(", ")));
    Ok(FAILED)
}

fn happening(event: &Value) -> Option<Happening> {
    let field = event["involvedObject"]["fieldPath"].as_str()?;
    let container = field.split(['{', '}']).nth(1)?.to_owned();
    let what = match event["reason"].as_str()? {
        "Started" => What::Starts,
        "Exited" => What::Exits(event["message"].as_str()?.split(' ').next_back()?.parse().ok()?),
        _ => return None,
    };
    Some(Happening { container, what })
}

fn phase_of(pod: &Value) -> Option<PodPhase> {
    match pod["status"]["phase"].as_str()? {
        "Pending" => Some(PodPhase::Pending),
        "Running" => Some(PodPhase::Running),
        "Succeeded" => Some(PodPhase::Succeeded),
        "Failed" => Some(PodPhase::Failed),
        _ => None,
    }
}
