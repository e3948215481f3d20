//! The files and directories that a pod's containers share, as text and as descriptions: host name,
//! `/etc/hosts`, `/etc/resolv.conf`, emptyDir and hostPath volumes. ([`crate::payload`] has the
//! volumes whose files are values.)
//!
//! Follows the kubelet (`kubelet_pods.go`, `network/dns`, `volume/emptydir`). Makes nothing on disk:
//! the runtime writes these texts and makes these directories.

use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostAlias, Pod, PodSpec, Volume};

use crate::host::Host;
use crate::quantity::QuantityError;
use crate::resources;

/// The directory of emptyDir volumes in a pod's volume directory, as the kubelet calls it.
pub const EMPTY_DIR: &str = "kubernetes.io~empty-dir";

/// The domain that names of pods with a subdomain end with.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// The longest label of a domain name.
const MAX_LABEL: usize = 63;
/// The longest host name that the kernel takes (`HOST_NAME_MAX`).
const MAX_HOSTNAME: usize = 64;

/// Why a shared file or volume cannot be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// A host name that is none.
    #[error("{field} {name:?} is not a host name: use letters, digits, '-' and '.'")]
    Hostname {
        /// Where it comes from.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A host name that the kernel does not take.
    #[error(
        "the pod's full name {name:?} is longer than {MAX_HOSTNAME} bytes: shorten hostname or subdomain"
    )]
    TooLong {
        /// The name.
        name: String,
    },
    /// An address that is none.
    #[error("{field} {text:?} is not an IP address")]
    Address {
        /// Where it comes from.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// A word for resolv.conf that would be more than a word.
    #[error("dnsConfig.{field} {text:?} has blanks or control characters, or is empty")]
    Dns {
        /// Where it comes from.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// A medium that emptyDir volumes do not have here.
    #[error("volume {volume:?}: emptyDir medium {medium:?} is not supported: use \"\" or Memory")]
    Medium {
        /// The volume's name.
        volume: String,
        /// The medium.
        medium: String,
    },
    /// A size that is no quantity.
    #[error("volume {volume:?}: emptyDir sizeLimit: {source}")]
    Size {
        /// The volume's name.
        volume: String,
        /// Why.
        source: QuantityError,
    },
    /// A mode that no directory has.
    #[error("volume {volume:?}: mode {value} is out of range")]
    Mode {
        /// The volume's name.
        volume: String,
        /// The number.
        value: i32,
    },
}

/// What a pod is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The name in `/etc/hosts`, without domain.
    pub short: String,
    /// The domain, if the pod has a subdomain.
    pub domain: Option<String>,
    /// The kernel's host name, which is also the content of `/etc/hostname` and `HOSTNAME`.
    pub hostname: String,
}

impl Names {
    /// The content of `/etc/hostname`.
    #[must_use]
    pub fn hostname_file(&self) -> String {
        format!("{}\n", self.hostname)
    }
}

/// The pod's names. A pod on the host's network has the host's.
///
/// # Errors
/// If a part is not a host name, or the whole too long for the kernel.
pub fn names(pod: &Pod, host: &Host) -> Result<Names, VolumeError> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    if spec.host_network == Some(true) {
        let hostname = checked("the host's name", &host.hostname)?.to_string();
        return Ok(Names { short: hostname.clone(), domain: None, hostname });
    }
    let set = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    if let Some(name) = set(&spec.hostname_override) {
        let hostname = fitting(checked("hostnameOverride", &name)?.to_string())?;
        return Ok(Names { short: hostname.clone(), domain: None, hostname });
    }
    let name = set(&spec.hostname).or_else(|| set(&pod.metadata.name)).unwrap_or_default();
    let short = truncated(checked("hostname", &name)?).to_string();
    let Some(subdomain) = set(&spec.subdomain) else {
        return Ok(Names { hostname: short.clone(), short, domain: None });
    };
    let subdomain = checked("subdomain", &subdomain)?;
    let namespace = set(&pod.metadata.namespace).unwrap_or_else(|| "default".into());
    let namespace = checked("namespace", &namespace)?;
    let domain = format!("{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}");
    let hostname = match spec.set_hostname_as_fqdn {
        Some(true) => fitting(format!("{short}.{domain}"))?,
        _ => short.clone(),
    };
    Ok(Names { short, domain: Some(domain), hostname })
}

fn truncated(name: &str) -> &str {
    // All ASCII by now, so that any byte is a character.
    name[..name.len().min(MAX_LABEL)].trim_end_matches(['-', '.'])
}

fn fitting(name: String) -> Result<String, VolumeError> {
    if name.len() > MAX_HOSTNAME { Err(VolumeError::TooLong { name }) } else { Ok(name) }
}

/// Names are written into files of lines and words: nothing that could become another one.
fn checked<'a>(field: &'static str, name: &'a str) -> Result<&'a str, VolumeError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || !name.chars().all(valid) {
        return Err(VolumeError::Hostname { field, name: name.into() });
    }
    Ok(name)
}

fn address<'a>(field: &'static str, text: &'a str) -> Result<&'a str, VolumeError> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(text),
        Err(_) => Err(VolumeError::Address { field, text: text.into() }),
    }
}

/// The content of `/etc/hosts`. `host_file` is the host's own, which pods on its network see.
///
/// # Errors
/// If an address or an alias is none.
pub fn hosts_file(
    spec: &PodSpec,
    names: &Names,
    pod_ips: &[String],
    host_file: &str,
) -> Result<String, VolumeError> {
    let mut text = String::new();
    if spec.host_network == Some(true) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(host_file);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        for ip in pod_ips {
            let ip = address("pod address", ip)?;
            let short = &names.short;
            text.push_str(&match &names.domain {
                Some(domain) => format!("{ip}\t{short}.{domain}\t{short}\n"),
                None => format!("{ip}\t{short}\n"),
            });
        }
    }
    text.push_str(&aliases(spec.host_aliases.as_deref().unwrap_or_default())?);
    Ok(text)
}

fn aliases(aliases: &[HostAlias]) -> Result<String, VolumeError> {
    if aliases.is_empty() {
        return Ok(String::new());
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        text.push_str(address("hostAliases.ip", &alias.ip)?);
        for name in alias.hostnames.iter().flatten() {
            text.push('\t');
            text.push_str(checked("hostAliases.hostnames", name)?);
        }
        text.push('\n');
    }
    Ok(text)
}

/// The largest number of name servers that resolvers read (resolv.conf(5)).
const MAX_NAMESERVERS: usize = 3;
/// The kubelet's limits of a search list.
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// The content of `/etc/resolv.conf`, and what was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The content.
    pub text: String,
    /// Texts of `DNSConfigForming` events.
    pub warnings: Vec<String>,
}

/// The content of `/etc/resolv.conf`. `host_file` is the one that is used on the host, upstream of
/// any resolver on a loopback address.
///
/// There is no cluster and no cluster DNS, so that `ClusterFirst` is `Default`: the host's file as
/// it is. `dnsConfig` is merged into it; under the policy `None` it stands alone.
///
/// # Errors
/// If `dnsConfig` has something that is no address, name or option.
pub fn resolv_conf(spec: &PodSpec, host_file: &str) -> Result<ResolvConf, VolumeError> {
    let alone = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        let text = if alone { String::new() } else { host_file.to_string() };
        return Ok(ResolvConf { text, warnings: Vec::new() });
    };
    let mut lines = Lines::default();
    if !alone {
        lines.read(host_file);
    }
    for server in config.nameservers.iter().flatten() {
        push_new(&mut lines.nameservers, address("dnsConfig.nameservers", server)?);
    }
    for search in config.searches.iter().flatten() {
        push_new(&mut lines.searches, word("searches", search)?);
    }
    for option in config.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        let name = word("options", name)?;
        let value = option.value.as_deref().filter(|value| !value.is_empty());
        lines.option(&match value {
            Some(value) => format!("{name}:{}", word("options", value)?),
            None => name.into(),
        });
    }
    Ok(lines.write())
}

/// The host's resolver file as pods can use it, and what there is to say about it.
///
/// A resolver on a loopback address (systemd-resolved's 127.0.0.53, dnsmasq) answers on the host and
/// not in a pod's own network: then systemd-resolved's list of upstream servers is used, and if there
/// is none, it is said. `upstream` is that file's content.
#[must_use]
pub fn host_resolver(spec: &PodSpec, host_file: &str, upstream: Option<&str>) -> ResolvConf {
    let of = |file: &str| {
        let mut lines = Lines::default();
        lines.read(file);
        lines.nameservers
    };
    let is_loopback = |server: &String| {
        // An IPv6 address may have a zone behind a percent sign.
        let address = server.split('%').next().unwrap_or_default();
        address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let servers = of(host_file);
    let as_it_is = ResolvConf { text: host_file.into(), warnings: Vec::new() };
    let alone = spec.dns_policy.as_deref() == Some("None");
    // Without any server the resolver asks a local one as well (resolv.conf(5)).
    let useless = servers.iter().all(is_loopback);
    if spec.host_network == Some(true) || alone || !useless {
        return as_it_is;
    }
    match upstream {
        Some(text) if !of(text).iter().all(is_loopback) => {
            ResolvConf { text: text.into(), warnings: Vec::new() }
        }
        _ => ResolvConf {
            warnings: vec![format!(
                "the host's /etc/resolv.conf names no server that a pod can reach ({}); set \
                 dnsPolicy: None and dnsConfig.nameservers, or hostNetwork: true",
                if servers.is_empty() { "none at all".into() } else { servers.join(" ") }
            )],
            ..as_it_is
        },
    }
}

fn word<'a>(field: &'static str, text: &'a str) -> Result<&'a str, VolumeError> {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(VolumeError::Dns { field, text: text.into() });
    }
    Ok(text)
}

fn push_new(list: &mut Vec<String>, text: &str) {
    if !list.iter().any(|known| known == text) {
        list.push(text.into());
    }
}

#[derive(Default)]
struct Lines {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Lines {
    /// As resolvers read it: servers and options add up, the last search list counts.
    fn read(&mut self, file: &str) {
        for line in file.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    words.take(1).for_each(|server| push_new(&mut self.nameservers, server));
                }
                Some("search" | "domain") => {
                    self.searches.clear();
                    words.for_each(|search| push_new(&mut self.searches, search));
                }
                Some("options") => words.for_each(|option| self.option(option)),
                _ => {}
            }
        }
    }

    /// An option of the same name is replaced where it stands.
    fn option(&mut self, option: &str) {
        let name = |text: &str| text.split(':').next().unwrap_or_default().to_string();
        match self.options.iter_mut().find(|known| name(known) == name(option)) {
            Some(known) => *known = option.into(),
            None => self.options.push(option.into()),
        }
    }

    fn write(mut self) -> ResolvConf {
        let mut warnings = Vec::new();
        if self.nameservers.len() > MAX_NAMESERVERS {
            self.nameservers.truncate(MAX_NAMESERVERS);
            warnings.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied \
                 nameserver line is: {}",
                self.nameservers.join(" ")
            ));
        }
        if self.cut_searches() {
            warnings.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, the \
                 applied search line is: {}",
                self.searches.join(" ")
            ));
        }
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        ResolvConf { text, warnings }
    }

    fn cut_searches(&mut self) -> bool {
        let before = self.searches.len();
        // A name cannot be longer (RFC 1123).
        self.searches.retain(|search| search.len() <= 253);
        self.searches.truncate(MAX_SEARCHES);
        while self.searches.join(" ").len() > MAX_SEARCH_CHARS {
            self.searches.pop();
        }
        self.searches.len() != before
    }
}

/// Where an emptyDir volume's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// In a directory on disk.
    Disk,
    /// In a tmpfs of this size in bytes.
    Memory {
        /// Size in bytes.
        size: u64,
    },
}

/// An emptyDir volume that is to be made, once in a pod's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmptyDir {
    /// The volume's name; its place is `PodDir::volume(EMPTY_DIR, name)`.
    pub name: String,
    /// What it is on.
    pub medium: Medium,
    /// Permission bits, whatever the umask.
    pub mode: u32,
    /// The group that owns it, if not root's: the pod's `fsGroup`.
    pub gid: Option<u32>,
    /// `sizeLimit` in bytes. On disk nothing enforces it in this release.
    pub size_limit: Option<u64>,
}

/// The pod's emptyDir volumes, in the spec's order.
///
/// # Errors
/// If one is of another medium, or of a size, mode or group that is none.
pub fn empty_dirs(spec: &PodSpec, host: &Host) -> Result<Vec<EmptyDir>, VolumeError> {
    let volumes = spec.volumes.iter().flatten();
    let described = volumes.filter_map(|volume| Some((volume, empty_dir_source(volume)?)));
    described.map(|(volume, source)| empty_dir(spec, volume, &source, host)).collect()
}

/// Kubernetes makes a volume without a source an emptyDir.
pub(crate) fn empty_dir_source(volume: &Volume) -> Option<EmptyDirVolumeSource> {
    let bare = Volume { name: volume.name.clone(), ..Volume::default() };
    volume.empty_dir.clone().or_else(|| (*volume == bare).then(EmptyDirVolumeSource::default))
}

fn empty_dir(
    spec: &PodSpec,
    volume: &Volume,
    source: &EmptyDirVolumeSource,
    host: &Host,
) -> Result<EmptyDir, VolumeError> {
    let name = volume.name.clone();
    let size = |source| VolumeError::Size { volume: name.clone(), source };
    let limit = source.size_limit.as_ref().map(|q| q.0.parse().map_err(size)).transpose()?;
    let bytes = |quantity: crate::quantity::Quantity| u64::try_from(quantity.ceil()).unwrap_or(0);
    let size_limit = limit.map(bytes).filter(|limit| *limit > 0);
    let medium = match source.medium.as_deref().unwrap_or("") {
        "" => Medium::Disk,
        "Memory" => {
            let pod = resources::pod_limit(spec, "memory").map_err(size)?.map(bytes);
            let sizes = [Some(host.memory_bytes), pod, size_limit];
            Medium::Memory { size: sizes.into_iter().flatten().min().unwrap_or_default() }
        }
        other => return Err(VolumeError::Medium { volume: name, medium: other.into() }),
    };
    let value = source.mode.unwrap_or(0o777);
    let mode = u32::try_from(value).ok().filter(|mode| *mode <= 0o1777);
    let mut mode = mode.ok_or_else(|| VolumeError::Mode { volume: name.clone(), value })?;
    let gid = fs_group(spec);
    if gid.is_some() {
        // The group may do everything, and what is made inside belongs to it.
        mode |= 0o2770;
    }
    Ok(EmptyDir { name, medium, mode, gid, size_limit })
}

/// The group that owns the pod's own volumes: `securityContext.fsGroup`, which validation has found
/// to be a group's number.
#[must_use]
pub fn fs_group(spec: &PodSpec) -> Option<u32> {
    let gid = spec.security_context.as_ref()?.fs_group?;
    u32::try_from(gid).ok().filter(|gid| *gid <= i32::MAX as u32)
}

/// A hostPath volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath {
    /// The volume's name.
    pub name: String,
    /// The path on the host.
    pub path: PathBuf,
    /// What has to be there, or is made.
    pub kind: HostPathKind,
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPathKind {
    /// Nothing is checked.
    Unchecked,
    /// A directory, made with mode 0755 if it is not there.
    DirectoryOrCreate,
    /// A directory.
    Directory,
    /// A file, made with mode 0644 in an existing directory if it is not there.
    FileOrCreate,
    /// A file.
    File,
    /// A unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// The values of `hostPath.type`.
pub(crate) const HOST_PATH_TYPES: [(&str, HostPathKind); 8] = [
    ("", HostPathKind::Unchecked),
    ("BlockDevice", HostPathKind::BlockDevice),
    ("CharDevice", HostPathKind::CharDevice),
    ("Directory", HostPathKind::Directory),
    ("DirectoryOrCreate", HostPathKind::DirectoryOrCreate),
    ("File", HostPathKind::File),
    ("FileOrCreate", HostPathKind::FileOrCreate),
    ("Socket", HostPathKind::Socket),
];

/// The pod's hostPath volumes, in the spec's order.
#[must_use]
pub fn host_paths(spec: &PodSpec) -> Vec<HostPath> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| {
            let source = volume.host_path.as_ref()?;
            let name = source.type_.as_deref().unwrap_or_default();
            let kind = HOST_PATH_TYPES.iter().find(|(known, _)| *known == name);
            Some(HostPath {
                name: volume.name.clone(),
                path: PathBuf::from(&source.path),
                // Validation lets no other through.
                kind: kind.map_or(HostPathKind::Unchecked, |(_, kind)| *kind),
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
