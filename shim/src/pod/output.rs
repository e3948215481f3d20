//! Containers' output: from their FIFOs into their logs, as the epoll set says.

use std::path::Path;

use plan::Wall;
use runtime::log::{Flow, Stream, Taken, Token};
use rustix::event::epoll::{self, EventData, EventFlags};

use super::machine::Machine;
use super::sandbox::stream_token;

impl Machine {
    pub(super) fn on_output(&mut self, index: u32) {
        let container = index as usize / 2;
        let stream = if index.is_multiple_of(2) { Stream::Stdout } else { Stream::Stderr };
        let now = runtime::clock::now().wall;
        let Some(pump) = &mut self.pump else { return };
        match pump.take(Token { container, stream }, now) {
            Ok(Taken::Bytes(_) | Taken::Nothing) => {}
            Ok(Taken::Blocked) => self.listen(container, false),
            Err(e) => {
                // It would be reported again and again: this container's output stops here.
                tracing::error!("{}", runtime::chain(&e));
                self.listen(container, false);
            }
        }
    }

    /// Switches a container's output to the log of its next run.
    pub(super) fn open_log(&mut self, c: usize, log: &Path) {
        let now = runtime::clock::now().wall;
        let Some(pump) = &mut self.pump else { return };
        match pump.open_log(c, log, now) {
            Ok(Flow::Free) => {}
            Ok(Flow::Blocked) => self.listen(c, false),
            Err(e) => tracing::error!("{}", runtime::chain(&e)),
        }
    }

    /// What a container that has exited wrote goes into its log.
    pub(super) fn drain(&mut self, c: usize) {
        let now = runtime::clock::now().wall;
        let Some(pump) = &mut self.pump else { return };
        match pump.drain(c, now) {
            Ok(Flow::Free) => {}
            Ok(Flow::Blocked) => self.listen(c, false),
            Err(e) => tracing::error!("{}", runtime::chain(&e)),
        }
    }

    /// Tries logs that took no more (a full disk) again; their writers wait meanwhile.
    pub(super) fn retry_logs(&mut self, now: Wall) {
        let Some(pump) = &mut self.pump else { return };
        if !pump.blocked() {
            return;
        }
        match pump.retry(now) {
            Ok(freed) => freed.into_iter().for_each(|c| self.listen(c, true)),
            Err(e) => tracing::error!("{}", runtime::chain(&e)),
        }
    }

    fn listen(&self, container: usize, listen: bool) {
        let Some(pump) = &self.pump else { return };
        let flags = if listen { EventFlags::IN } else { EventFlags::empty() };
        for (fd, token) in pump.fds().filter(|(_, token)| token.container == container) {
            let data = EventData::new_u64(stream_token(token));
            if let Err(e) = epoll::modify(&self.epoll, fd, data, flags) {
                tracing::error!("cannot listen to a container's output: {e}");
            }
        }
    }
}
