//! Containers' output: from their FIFOs into their logs, as the epoll set says.

use std::path::Path;

use plan::Wall;
use runtime::log::packing;
use runtime::log::{Flow, PumpError, Stream, Taken, Token};
use rustix::event::epoll::{EventData, EventFlags};

use super::machine::Machine;
use super::sandbox::stream_token;
use super::watch;

impl Machine {
    pub(super) fn on_output(&mut self, index: u32) {
        let container = index as usize / 2;
        let stream = if index.is_multiple_of(2) { Stream::Stdout } else { Stream::Stderr };
        let now = runtime::clock::now().wall;
        let Some(pump) = &mut self.pump else { return };
        let taken = pump.take(Token { container, stream }, now);
        self.note_flow(
            container,
            taken.map(|taken| match taken {
                Taken::Bytes(_) | Taken::Nothing => Flow::Free,
                Taken::Blocked => Flow::Blocked,
            }),
        );
    }

    /// Switches a container's output to the log of its next run.
    pub(super) fn open_log(&mut self, c: usize, log: &Path) {
        let now = runtime::clock::now().wall;
        let Some(pump) = &mut self.pump else { return };
        match pump.open_log(c, log, now) {
            // The log of the run before must take the rest of its output first.
            Err(PumpError::Unfinished { .. }) => {
                self.next_logs.insert(c, log.to_owned());
            }
            other => self.note_flow(c, other),
        }
    }

    /// What a container that has exited wrote goes into its log.
    pub(super) fn drain(&mut self, c: usize) {
        let now = runtime::clock::now().wall;
        let Some(pump) = &mut self.pump else { return };
        match pump.drain(c, now) {
            // It was created and never started.
            Err(PumpError::NoLog { .. }) => {}
            other => self.note_flow(c, other),
        }
    }

    /// Tries logs that took no more (a full disk) again; their writers wait meanwhile.
    pub(super) fn retry_logs(&mut self, now: Wall) {
        for c in 0..self.pod.containers.len() {
            let Some(pump) = &mut self.pump else { return };
            if pump.blocked_on(c).is_none() {
                continue;
            }
            match pump.retry(c, now) {
                Ok(Flow::Blocked) => {}
                Ok(Flow::Free) => {
                    self.listen(c, true);
                    self.tell_output(c, false, "LogResumed", "its output is logged again".into());
                    if let Some(log) = self.next_logs.remove(&c) {
                        self.drain(c);
                        self.open_log(c, &log);
                    }
                }
                Err(e) => self.note_flow(c, Err(e)),
            }
        }
    }

    /// Has what was rotated compressed, by one child at a time.
    pub(super) fn pack_logs(&mut self) {
        if let Some(pump) = &mut self.pump {
            self.to_pack.extend(pump.take_rotated());
        }
        if self.packing.is_some() || self.to_pack.is_empty() {
            return;
        }
        let containers = std::mem::take(&mut self.to_pack);
        let directories: Vec<_> = containers.into_iter().map(|c| self.log_dir(c)).collect();
        match packing::spawn(&directories) {
            Ok(pid) => self.packing = Some(pid),
            // The next rotation tries again; nothing is lost but room.
            Err(e) => tracing::warn!("cannot compress logs: {e}"),
        }
    }

    /// `false` if it was not the child that compresses logs.
    pub(super) fn on_packed(&mut self, pid: i32) -> bool {
        self.packing.take_if(|packing| *packing == pid).is_some()
    }

    /// A log that takes no more is said once, with the reason, and its FIFOs are left alone.
    fn note_flow(&mut self, c: usize, flow: Result<Flow, PumpError>) {
        let text = match flow {
            Ok(Flow::Free) => return,
            Ok(Flow::Blocked) => {
                let reason = self.pump.as_ref().and_then(|pump| pump.blocked_on(c));
                let reason = reason.map(|e| runtime::chain(e)).unwrap_or_default();
                format!("its output waits, and so does who writes when the pipe is full: {reason}")
            }
            // It would be reported again and again: this container's output stops here.
            Err(e) => format!("its output is not logged any more: {}", runtime::chain(&e)),
        };
        // It is tried again when a timer says so.
        self.is_news = true;
        self.listen(c, false);
        if self.output_told.get(&c) != Some(&text) {
            self.output_told.insert(c, text.clone());
            self.tell_output(c, true, "LogBlocked", text);
        }
    }

    fn tell_output(&mut self, c: usize, warning: bool, reason: &str, message: String) {
        if !warning {
            self.output_told.remove(&c);
        }
        let event = plan::Event { warning, reason: reason.into(), message, container: Some(c) };
        self.tell_event(runtime::clock::now(), &event);
    }

    fn listen(&self, container: usize, listen: bool) {
        let Some(pump) = &self.pump else { return };
        let flags = if listen { EventFlags::IN } else { EventFlags::empty() };
        for (fd, token) in pump.fds().filter(|(_, token)| token.container == container) {
            let data = EventData::new_u64(stream_token(token));
            if let Err(e) = watch::modify(&self.epoll, fd, data, flags) {
                tracing::error!("cannot listen to a container's output: {e}");
            }
        }
    }
}
