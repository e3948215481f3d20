//! The pod on the host's network of pods.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::Context;
use bundles::layout::Layout;
use runtime::network::{Config, DEFAULT_BRIDGE, HostPort, Network, Request};

use super::machine::Machine;

/// The network of the host's pods, as an instance knows it.
pub fn of(layout: &Layout, range: Option<&str>) -> anyhow::Result<Network> {
    let range = range.map(str::parse).transpose().context("the pods' range")?;
    let config = Config { dir: layout.network.clone(), bridge: DEFAULT_BRIDGE.into(), range };
    Ok(Network::new(config)?)
}

impl Machine {
    /// Gives the pod an address, unless it is on the host's network or on none.
    pub(super) fn attach(&mut self) -> anyhow::Result<()> {
        let Some(wanted) = &self.file.network else { return Ok(()) };
        if self.wanted.host_network {
            return Ok(());
        }
        let spec = self.file.pod.spec.clone().unwrap_or_default();
        let ports = HostPort::of_pod(&spec)?;
        let path = self.dir.namespace("net");
        let netns = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let network = of(&self.layout, wanted.range.as_deref())?;
        let uid = &self.pod.uid;
        let attached = network.attach(&Request { uid, netns: netns.as_fd(), ports: &ports })?;
        self.address = Some(attached.address);
        for message in attached.notes {
            let reason = "HostFirewall".to_owned();
            let event = plan::Event { warning: true, reason, message, container: None };
            self.tell_event(runtime::clock::now(), &event);
        }
        Ok(())
    }

    /// Takes it away; nothing if there was none.
    pub(super) fn detach(&mut self) -> anyhow::Result<()> {
        if self.file.network.is_none() || self.wanted.host_network {
            return Ok(());
        }
        self.address = None;
        Ok(of(&self.layout, None)?.detach(&self.pod.uid)?)
    }
}
