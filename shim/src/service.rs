//! What systemd wants of a service: readiness, a watchdog, a socket that it holds (sd_notify(3),
//! sd_listen_fds(3)). Without systemd none of it is asked for, and nothing happens.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use sd_notify::NotifyState;

/// How long a service manager may take to listen.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long it may take to say whether the host goes down: it has much to do then, and without an answer the
/// pods' containers are stopped in no order.
const ASK: Duration = Duration::from_secs(10);

/// The service manager that started this process, if one did.
#[derive(Clone, Copy)]
pub struct Service {
    /// How often it wants to hear from us.
    watchdog: Option<Duration>,
}

/// The socket that systemd listens at for us. To be called before this process opens anything.
pub fn passed_socket() -> anyhow::Result<Option<OwnedFd>> {
    let passed: Vec<i32> = sd_notify::listen_fds().context("LISTEN_FDS")?.collect();
    anyhow::ensure!(
        passed.len() <= 1,
        "systemd passes {} sockets, and one is served: see podshim.socket",
        passed.len()
    );
    let owned = runtime::sys::process::inherited(&passed);
    Ok(owned.context("systemd's socket")?.pop())
}

impl Service {
    /// By its variables in the environment.
    pub fn of_systemd() -> Service {
        Service { watchdog: sd_notify::watchdog_enabled().map(|limit| limit / 2) }
    }

    /// It does what it is there for, from now on.
    pub async fn ready(&self, status: &'static str) {
        tell(vec![NotifyState::Ready, NotifyState::Status(status)]).await;
    }

    /// It does not, for a reason: not `yet`, and the unit is activating; or no longer, and it is reloading until
    /// it does again.
    pub async fn not_ready(&self, yet: bool, status: String) {
        let mut states = Vec::new();
        if !yet {
            states.push(NotifyState::Reloading);
            states.extend(NotifyState::monotonic_usec_now().ok());
        }
        tell_with(states, status).await;
    }

    /// It ends because it was told to.
    pub async fn stopping(&self) {
        tell(vec![NotifyState::Stopping]).await;
    }

    /// Whether this process ends because the host goes down (systemctl(1), `is-system-running`).
    pub async fn host_goes_down(&self) -> bool {
        if !Path::new("/run/systemd/system").exists() {
            return false;
        }
        let ask = || Command::new("systemctl").arg("is-system-running").output();
        let asked = tokio::time::timeout(ASK, tokio::task::spawn_blocking(ask)).await;
        match asked {
            Ok(Ok(Ok(output))) => output.stdout.trim_ascii() == b"stopping",
            _ => false,
        }
    }

    /// Says that all is well, as often as somebody wants to hear it.
    pub async fn watchdog(self) {
        let Some(period) = self.watchdog else { return };
        loop {
            tokio::time::sleep(period).await;
            tell(vec![NotifyState::Watchdog]).await;
        }
    }
}

/// A service manager that does not listen must not stop this process: it is told from another thread.
async fn tell(states: Vec<NotifyState<'static>>) {
    carry(move || sd_notify::notify(&states)).await;
}

async fn tell_with(mut states: Vec<NotifyState<'static>>, status: String) {
    carry(move || {
        let states: Vec<NotifyState<'_>> =
            states.drain(..).chain([NotifyState::Status(&status)]).collect();
        sd_notify::notify(&states)
    })
    .await;
}

async fn carry(notify: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let told = tokio::task::spawn_blocking(notify);
    if let Ok(Ok(Err(e))) = tokio::time::timeout(PATIENCE, told).await {
        tracing::warn!("cannot tell systemd: {e}");
    }
}
