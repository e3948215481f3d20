//! What a pod may be told about itself: `fieldRef` and `resourceFieldRef`.
//!
//! The paths are those of `k8s.io/kubernetes/pkg/fieldpath` and of the kubelet's
//! `podFieldSelectorRuntimeValue`. Values only: who asks, and under which name, is [`crate::env`]'s.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceFieldSelector};

use crate::host::Host;
use crate::quantity::{Quantity, QuantityError};
use crate::resources;

/// Why a reference has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownwardError {
    /// `fieldRef.fieldPath` names nothing that an environment can have.
    #[error(
        "fieldPath {path:?} is not supported: use metadata.name, metadata.namespace, metadata.uid, \
         metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, \
         spec.serviceAccountName, status.hostIP, status.hostIPs, status.podIP or status.podIPs"
    )]
    Field {
        /// The path.
        path: String,
    },
    /// `resourceFieldRef.containerName` names no container of the pod.
    #[error("resourceFieldRef names the container {name:?}, which the pod does not have")]
    Container {
        /// The name.
        name: String,
    },
    /// `resourceFieldRef.resource` names nothing that has a value.
    #[error("resource {resource:?} has no value: use {{limits,requests}}.{{cpu,memory}}")]
    Resource {
        /// The name.
        resource: String,
    },
    /// `resourceFieldRef.divisor` is zero or below.
    #[error("the divisor {divisor:?} of a resourceFieldRef is not above zero")]
    Divisor {
        /// As it was written.
        divisor: String,
    },
    /// An amount is no quantity.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
}

/// The pod as it knows itself.
#[derive(Clone, Copy, Debug)]
pub struct Downward<'a> {
    /// The pod, with name, namespace and uid set.
    pub pod: &'a Pod,
    /// Its spec.
    pub spec: &'a PodSpec,
    /// The machine.
    pub host: &'a Host,
    /// The pod's addresses; empty if it has none (yet).
    pub pod_ips: &'a [String],
}

impl Downward<'_> {
    /// The value of a `fieldRef`. A label or annotation that is not there, and an address that is
    /// not known, are empty, as in Kubernetes.
    ///
    /// # Errors
    /// If no field has this path.
    pub fn field(&self, path: &str) -> Result<String, DownwardError> {
        let metadata = &self.pod.metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Ok(match path {
            "metadata.name" => text(&metadata.name),
            "metadata.namespace" => text(&metadata.namespace),
            "metadata.uid" => text(&metadata.uid),
            "spec.nodeName" => self.host.node_name.clone(),
            "spec.serviceAccountName" => self.service_account(),
            "status.hostIP" | "status.hostIPs" => text(&self.host.host_ip),
            "status.podIP" => self.ips().first().cloned().unwrap_or_default(),
            "status.podIPs" => self.ips().join(","),
            _ => {
                self.subscripted(path).ok_or_else(|| DownwardError::Field { path: path.into() })?
            }
        })
    }

    fn subscripted(&self, path: &str) -> Option<String> {
        let (map, key) = path.strip_suffix("']")?.split_once("['")?;
        let entries: &Option<BTreeMap<String, String>> = match map {
            "metadata.labels" => &self.pod.metadata.labels,
            "metadata.annotations" => &self.pod.metadata.annotations,
            _ => return None,
        };
        let value = entries.as_ref().and_then(|entries| entries.get(key));
        (!key.is_empty()).then(|| value.cloned().unwrap_or_default())
    }

    fn service_account(&self) -> String {
        let named = self.spec.service_account_name.as_ref().or(self.spec.service_account.as_ref());
        named.filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| "default".into())
    }

    /// A pod on the host's network has the host's address.
    fn ips(&self) -> Vec<String> {
        if self.pod_ips.is_empty() && self.spec.host_network == Some(true) {
            return self.host.host_ip.iter().cloned().collect();
        }
        self.pod_ips.to_vec()
    }

    /// The value of a `resourceFieldRef` in the environment of `own`: the amount divided by the
    /// divisor, rounded up. A limit that is not set is what the machine has.
    ///
    /// # Errors
    /// If there is no such container, resource or divisor.
    pub fn resource(
        &self,
        own: &Container,
        selector: &ResourceFieldSelector,
    ) -> Result<String, DownwardError> {
        let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
            None => own,
            Some(name) => resources::all_containers(self.spec)
                .find(|c| c.name == name)
                .ok_or_else(|| DownwardError::Container { name: name.into() })?,
        };
        let amount = self.amount(container, &selector.resource)?;
        let written = selector.divisor.as_ref().map_or("1", |divisor| divisor.0.as_str());
        // Kubernetes' zero value of a quantity means that nothing was written.
        let divisor: Quantity = match written {
            "" | "0" => "1",
            other => other,
        }
        .parse()?;
        let value = (divisor > Quantity::ZERO).then(|| amount.ceil_div_by(divisor)).flatten();
        let value = value.ok_or_else(|| DownwardError::Divisor { divisor: written.into() })?;
        Ok(value.to_string())
    }

    fn amount(&self, container: &Container, resource: &str) -> Result<Quantity, DownwardError> {
        let unknown = || DownwardError::Resource { resource: resource.into() };
        let (kind, name) = resource.split_once('.').ok_or_else(unknown)?;
        let capacity = match name {
            "cpu" => self.host.cpus.to_string(),
            "memory" => self.host.memory_bytes.to_string(),
            _ => return Err(unknown()),
        };
        match kind {
            "requests" => Ok(resources::request(container, name)?.unwrap_or(Quantity::ZERO)),
            "limits" => match resources::limit(container, name)? {
                Some(limit) if limit > Quantity::ZERO => Ok(limit),
                _ => Ok(capacity.parse()?),
            },
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::fixture;

    const POD: &str = "
metadata:
  {name: web, namespace: shop, uid: 1-2-3, labels: {app: web, a.b/c: x}, annotations: {note: hi}}
spec:
  containers:
  - {name: main, resources: {limits: {cpu: 1500m}, requests: {memory: 64Mi}}}
  - {name: free}
";

    fn value(path: &str) -> Result<String, DownwardError> {
        let (pod, host) = (fixture::pod(POD), fixture::host());
        let spec = pod.spec.as_ref().expect("a spec");
        let ips = ["10.213.0.5".to_string(), "fd00::5".to_string()];
        Downward { pod: &pod, spec, host: &host, pod_ips: &ips }.field(path)
    }

    #[test]
    fn fields_have_the_pods_values() {
        for (path, expected) in [
            ("metadata.name", "web"),
            ("metadata.namespace", "shop"),
            ("metadata.uid", "1-2-3"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['a.b/c']", "x"),
            ("metadata.labels['absent']", ""),
            ("metadata.annotations['note']", "hi"),
            ("spec.nodeName", "node-1"),
            ("spec.serviceAccountName", "default"),
            ("status.hostIP", "192.0.2.1"),
            ("status.podIP", "10.213.0.5"),
            ("status.podIPs", "10.213.0.5,fd00::5"),
        ] {
            assert_eq!(value(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "",
            "metadata",
            "metadata.labels",
            "metadata.labels['']",
            "metadata.labels[app]",
            "metadata.labels['app'",
            "spec.containers",
            "status.phase",
            "spec.labels['app']",
        ] {
            assert!(value(path).is_err(), "{path}");
        }
    }

    #[test]
    fn without_an_address_it_is_empty_and_on_the_hosts_network_it_is_the_hosts() {
        let host = fixture::host();
        for (spec, expected) in [("{}", ""), ("{hostNetwork: true}", "192.0.2.1")] {
            let pod = fixture::pod(&format!("spec: {spec}"));
            let spec = pod.spec.as_ref().expect("a spec");
            let downward = Downward { pod: &pod, spec, host: &host, pod_ips: &[] };
            assert_eq!(downward.field("status.podIP").as_deref(), Ok(expected));
        }
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let (pod, host) = (fixture::pod(POD), fixture::host());
        let spec = pod.spec.as_ref().expect("a spec");
        let downward = Downward { pod: &pod, spec, host: &host, pod_ips: &[] };
        let ask = |container: &str, resource: &str, divisor: &str| {
            let selector = fixture::yaml(&format!(
                "{{containerName: {container:?}, resource: {resource}, divisor: {divisor:?}}}"
            ));
            downward.resource(&spec.containers[0], &selector)
        };
        for (container, resource, divisor, expected) in [
            ("", "limits.cpu", "0", "2"),
            ("", "limits.cpu", "1m", "1500"),
            // A request that is not written is the limit.
            ("main", "requests.cpu", "1m", "1500"),
            ("main", "requests.memory", "1Mi", "64"),
            // A limit that is not written is what the machine has; a request is nothing.
            ("main", "limits.memory", "1Gi", "8"),
            ("free", "limits.cpu", "1", "4"),
            ("free", "requests.memory", "1", "0"),
        ] {
            assert_eq!(ask(container, resource, divisor).as_deref(), Ok(expected), "{resource}");
        }
        for (container, resource, divisor) in [
            ("absent", "limits.cpu", "1"),
            ("", "limits.gpu", "1"),
            ("", "cpu", "1"),
            ("", "min.cpu", "1"),
            ("", "limits.cpu", "-1"),
            ("", "limits.cpu", "x"),
        ] {
            assert!(ask(container, resource, divisor).is_err(), "{container} {resource} {divisor}");
        }
    }
}
