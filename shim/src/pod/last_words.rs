//! A container's termination message, as its `terminationMessagePath` and `-Policy` say.

use std::path::PathBuf;

use plan::Exit;
use runtime::log::reader::{Follower, Start};

use super::children::Incarnation;
use super::machine::Machine;

/// What is taken of a log (kubelet: `MaxContainerTerminationMessageLogLines`, `-LogLength`).
const LOG_LINES: usize = 80;
const LOG_BYTES: usize = 2048;
/// What of a log file is read for that: enough for an entry of 16 KiB on both sides of the cut, or for
/// that many lines with their times.
const LOG_FILE_BYTES: u64 = 64 << 10;
/// What all messages of a pod may have in its status, in bytes (kubelet: `MaxPodTerminationMessageLogLength`).
const POD_BYTES: usize = 12 << 10;

impl Machine {
    pub(super) fn log_dir(&self, c: usize) -> PathBuf {
        let pod = self.layout.pod_logs(&self.pod.namespace, &self.pod.name, &self.pod.uid);
        pod.join(&self.pod.containers[c].name)
    }

    /// What an incarnation that has just ended leaves as its message. Its log is drained.
    pub(super) fn last_words(&self, ended: &Incarnation, exit: &Exit) -> Option<String> {
        // A spare that was never started has nothing to say.
        let restart_count = ended.restart_count?;
        let container = self.container_of(ended.c, ended.inc)?;
        let path = self.dir.termination(&container.name, ended.inc);
        let written = runtime::termination::read(&path).unwrap_or_else(|e| {
            tracing::warn!("cannot read {}: {e}", path.display());
            None
        });
        let falls_back =
            container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let failed = exit.code != 0 && exit.start_error.is_none();
        let text = match written {
            Some(text) => text,
            None if falls_back && failed => self.end_of_log(ended.c, restart_count),
            None => return None,
        };
        let share = POD_BYTES / self.pod.containers.len().max(1);
        Some(beginning(&text, share).to_owned()).filter(|text| !text.is_empty())
    }

    fn end_of_log(&self, c: usize, restart_count: u32) -> String {
        let mut text = Vec::new();
        let mut follower = Follower::new(&self.log_dir(c), Start::Restart(restart_count))
            .tail(LOG_LINES)
            .within(LOG_FILE_BYTES);
        let read = follower.read_run(&mut |line| {
            text.extend_from_slice(line.bytes);
            if line.ended {
                text.push(b'\n');
            }
        });
        if let Err(e) = read {
            tracing::warn!("{}", runtime::chain(&e));
        }
        let from = text.len().saturating_sub(LOG_BYTES);
        String::from_utf8_lossy(&text[from..]).into_owned()
    }
}

/// At most `bytes` of a text, cut between characters.
fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::beginning;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(beginning("aäb", 2), "a");
        assert_eq!(beginning("aäb", 3), "aä");
        assert_eq!(beginning("aäb", 9), "aäb");
    }
}
