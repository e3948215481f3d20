//! Host ports: which of the host's ports lead to which pod.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ContainerPort, PodSpec};

use super::state::{PortRecord, State, StateError};

/// A port's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As nftables writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    fn of_name(name: &str) -> Option<Protocol> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

/// A port of the host that leads to one of a pod (`ports[].hostPort`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The address of the host that it is for; `None`: every one.
    pub host_address: Option<Ipv4Addr>,
    /// The host's port, not 0.
    pub host_port: u16,
    /// The pod's port, not 0.
    pub container_port: u16,
}

/// Why a host port cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another pod has it.
    #[error(
        "hostPort {wanted} is taken by pod {holder} (as {taken}); delete that pod or use another port"
    )]
    Taken {
        /// What was asked for, like `tcp 8080`.
        wanted: String,
        /// Whose it is: the other pod's uid.
        holder: String,
        /// As what that one has it.
        taken: String,
    },
    /// The pod asks for it twice.
    #[error("hostPort {0} is asked for twice by the same pod, for different container ports")]
    Twice(String),
    /// The manifest's words are no port.
    #[error("ports[] of container {container}: {what}")]
    Meaning {
        /// Which container.
        container: String,
        /// What is wrong, with the field.
        what: String,
    },
}

impl HostPort {
    /// The host ports of a pod: its containers' and its sidecars' (a kubelet leaves those of sidecars
    /// out).
    ///
    /// # Errors
    /// [`PortError::Meaning`]: a hostIP that is no IPv4 address, a port out of range.
    pub fn of_pod(spec: &PodSpec) -> Result<Vec<HostPort>, PortError> {
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let mut all = Vec::new();
        for container in sidecars.chain(&spec.containers) {
            for port in container.ports.iter().flatten() {
                let host_port = HostPort::of(port).map_err(|what| PortError::Meaning {
                    container: container.name.clone(),
                    what,
                })?;
                all.extend(host_port);
            }
        }
        Ok(all)
    }

    fn of(port: &ContainerPort) -> Result<Option<HostPort>, String> {
        let Some(host_port) = port.host_port.filter(|p| *p != 0) else { return Ok(None) };
        let number = |field: &str, value: i32| {
            let number = u16::try_from(value).ok().filter(|p| *p != 0);
            number.ok_or_else(|| format!("{field}: {value} is no port (1 to 65535)"))
        };
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let host_ip = port.host_ip.as_deref().unwrap_or_default();
        let host_address = match host_ip {
            "" => None,
            ip => Some(ip.parse::<Ipv4Addr>().map_err(|_| {
                format!("hostIP: {ip:?} is no IPv4 address, and the pods' network has no IPv6")
            })?),
        };
        Ok(Some(HostPort {
            protocol: Protocol::of_name(protocol)
                .ok_or_else(|| format!("protocol: {protocol:?} is not TCP, UDP or SCTP"))?,
            host_address: host_address.filter(|a| !a.is_unspecified()),
            host_port: number("hostPort", host_port)?,
            container_port: number("containerPort", port.container_port)?,
        }))
    }

    /// The name of its record: a file name.
    fn name(&self) -> String {
        let address = self.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        format!("{}-{}-{address}", self.protocol.name(), self.host_port)
    }

    fn words(&self) -> String {
        let port = format!("{} {}", self.protocol.name(), self.host_port);
        match self.host_address {
            Some(address) => format!("{port} of {address}"),
            None => port,
        }
    }

    /// Whether one packet could be for both.
    fn clashes(&self, other: &HostPort) -> bool {
        let any = self.host_address.is_none() || other.host_address.is_none();
        (self.protocol, self.host_port) == (other.protocol, other.host_port)
            && (any || self.host_address == other.host_address)
    }
}

/// A host port that leads somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Whose.
    pub uid: String,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// What leads there.
    pub port: HostPort,
}

/// Every mapping on record. A file whose name is no port's was not written here: left out.
///
/// # Errors
/// A record cannot be read.
pub fn all(state: &State) -> Result<Vec<Mapping>, StateError> {
    let records = state.ports()?;
    Ok(records.into_iter().filter_map(|(name, record)| mapping(&name, record)).collect())
}

fn mapping(name: &str, record: PortRecord) -> Option<Mapping> {
    let mut parts = name.splitn(3, '-');
    let protocol = Protocol::of_name(parts.next()?)?;
    let host_port = parts.next()?.parse().ok()?;
    let address: Ipv4Addr = parts.next()?.parse().ok()?;
    let port = HostPort {
        protocol,
        host_address: Some(address).filter(|a| !a.is_unspecified()),
        host_port,
        container_port: record.container_port,
    };
    Some(Mapping { uid: record.uid, address: record.address, port })
}

/// The mappings that a pod wants, if it can have them beside those that others have. One wanted twice
/// is one.
///
/// # Errors
/// [`PortError`].
pub fn decide(
    uid: &str,
    address: Ipv4Addr,
    wanted: &[HostPort],
    taken: &[Mapping],
) -> Result<Vec<Mapping>, PortError> {
    let mut decided: Vec<Mapping> = Vec::new();
    for port in wanted {
        let clash = taken.iter().find(|held| held.uid != uid && held.port.clashes(port));
        if let Some(held) = clash {
            return Err(PortError::Taken {
                wanted: port.words(),
                holder: held.uid.clone(),
                taken: held.port.words(),
            });
        }
        match decided.iter().find(|d| d.port.clashes(port)) {
            Some(same) if same.port == *port => {}
            Some(_) => return Err(PortError::Twice(port.words())),
            None => decided.push(Mapping { uid: uid.into(), address, port: *port }),
        }
    }
    Ok(decided)
}

/// Writes the records of mappings.
///
/// # Errors
/// That of a file.
pub fn take(state: &State, mappings: &[Mapping]) -> Result<(), StateError> {
    for Mapping { uid, address, port } in mappings {
        let (uid, container_port) = (uid.clone(), port.container_port);
        state.take_port(&port.name(), &PortRecord { uid, address: *address, container_port })?;
    }
    Ok(())
}

/// Removes the records of mappings.
///
/// # Errors
/// That of a file.
pub fn free(state: &State, mappings: &[Mapping]) -> Result<(), StateError> {
    mappings.iter().try_for_each(|mapping| state.free_port(&mapping.port.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, host: Option<[u8; 4]>, host_port: u16) -> HostPort {
        HostPort { protocol, host_address: host.map(Ipv4Addr::from), host_port, container_port: 80 }
    }

    fn held(uid: &str, port: HostPort) -> Mapping {
        Mapping { uid: uid.into(), address: Ipv4Addr::new(10, 213, 0, 2), port }
    }

    const HERE: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 9);

    #[test]
    fn a_port_of_another_pod_is_refused_by_both_names() {
        let taken = [held("other", port(Protocol::Tcp, None, 8080))];
        let one = port(Protocol::Tcp, Some([192, 0, 2, 1]), 8080);
        let error = decide("me", HERE, &[one], &taken).expect_err("taken").to_string();
        assert!(error.contains("tcp 8080 of 192.0.2.1 is taken by pod other (as tcp 8080)"));
        assert!(decide("other", HERE, &[one], &taken).is_ok(), "its own it may have again");
        for free in [
            port(Protocol::Udp, None, 8080),
            port(Protocol::Sctp, None, 8080),
            port(Protocol::Tcp, None, 8081),
        ] {
            assert_eq!(decide("me", HERE, &[free], &taken).expect("free").len(), 1);
        }
    }

    #[test]
    fn one_port_may_be_shared_by_addresses_of_the_host() {
        let taken = [held("other", port(Protocol::Tcp, Some([192, 0, 2, 1]), 80))];
        let elsewhere = port(Protocol::Tcp, Some([192, 0, 2, 2]), 80);
        assert!(decide("me", HERE, &[elsewhere], &taken).is_ok());
        assert!(decide("me", HERE, &[port(Protocol::Tcp, None, 80)], &taken).is_err());
    }

    #[test]
    fn a_port_wanted_twice_is_one_or_an_error() {
        let once = port(Protocol::Tcp, None, 80);
        assert_eq!(decide("me", HERE, &[once, once], &[]).expect("one").len(), 1);
        let other = HostPort { container_port: 81, ..once };
        assert!(matches!(decide("me", HERE, &[once, other], &[]), Err(PortError::Twice(_))));
    }

    #[test]
    fn a_record_s_name_tells_its_port() {
        for port in
            [port(Protocol::Sctp, None, 65535), port(Protocol::Udp, Some([127, 0, 0, 1]), 53)]
        {
            let record =
                PortRecord { uid: "me".into(), address: HERE, container_port: port.container_port };
            let expected = Mapping { uid: "me".into(), address: HERE, port };
            assert_eq!(mapping(&port.name(), record), Some(expected));
        }
        let record = PortRecord { uid: "me".into(), address: HERE, container_port: 1 };
        for name in ["", "tcp", "tcp-x-0.0.0.0", "icmp-1-0.0.0.0", "tcp-1-"] {
            assert_eq!(mapping(name, record.clone()), None, "{name}");
        }
    }

    #[test]
    fn ports_of_sidecars_and_containers_are_read_from_the_manifest() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "initContainers": [
                {"name": "once", "ports": [{"containerPort": 1, "hostPort": 1}]},
                {"name": "car", "restartPolicy": "Always",
                 "ports": [{"containerPort": 53, "hostPort": 5353, "protocol": "UDP"}]}],
            "containers": [{"name": "main", "ports": [
                {"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"},
                {"containerPort": 81, "hostPort": 8081, "hostIP": "0.0.0.0"},
                {"containerPort": 82}]}]
        }))
        .expect("a pod");
        let ports = HostPort::of_pod(&spec).expect("ports");
        let seen: Vec<_> = ports.iter().map(HostPort::name).collect();
        assert_eq!(seen, ["udp-5353-0.0.0.0", "tcp-8080-127.0.0.1", "tcp-8081-0.0.0.0"]);
    }

    #[test]
    fn what_is_no_host_port_names_its_field() {
        for (port, field) in [
            (serde_json::json!({"containerPort": 80, "hostPort": 80, "hostIP": "::1"}), "hostIP"),
            (serde_json::json!({"containerPort": 0, "hostPort": 80}), "containerPort"),
            (serde_json::json!({"containerPort": 80, "hostPort": 70000}), "hostPort"),
            (
                serde_json::json!({"containerPort": 1, "hostPort": 1, "protocol": "ICMP"}),
                "protocol",
            ),
        ] {
            let spec = serde_json::json!({"containers": [{"name": "main", "ports": [port]}]});
            let spec: PodSpec = serde_json::from_value(spec).expect("a pod");
            let error = HostPort::of_pod(&spec).expect_err("wrong").to_string();
            assert!(error.starts_with(&format!("ports[] of container main: {field}: ")), "{error}");
        }
    }
}
