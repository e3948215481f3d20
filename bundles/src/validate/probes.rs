//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, LifecycleHandler, PodSpec, Probe,
};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Errors, names};
use crate::manifest::span::Path;

/// The probes and hooks of a main or a sidecar.
pub fn of(container: &Container, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    for (name, probe) in [
        ("startupProbe", &container.startup_probe),
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ] {
        if let Some(probe) = probe {
            probe_rules(name, probe, &path.field(name), errors);
        }
    }
    let Some(lifecycle) = &container.lifecycle else { return };
    let path = path.field("lifecycle");
    for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            hook_rules(hook, grace, &path.field(name), errors);
        }
    }
    if let Some(signal) = &lifecycle.stop_signal {
        stop_signal(signal, spec, path.field("stopSignal"), errors);
    }
}

/// `validateStopSignal`: the names of Linux' signals as Kubernetes lists them.
fn stop_signal(signal: &str, spec: &PodSpec, path: Path, errors: &mut Errors) {
    const NAMES: [&str; 35] = [
        "SIGABRT",
        "SIGALRM",
        "SIGBUS",
        "SIGCHLD",
        "SIGCLD",
        "SIGCONT",
        "SIGFPE",
        "SIGHUP",
        "SIGILL",
        "SIGINT",
        "SIGIO",
        "SIGIOT",
        "SIGKILL",
        "SIGPIPE",
        "SIGPOLL",
        "SIGPROF",
        "SIGPWR",
        "SIGQUIT",
        "SIGSEGV",
        "SIGSTKFLT",
        "SIGSTOP",
        "SIGSYS",
        "SIGTERM",
        "SIGTRAP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGUSR1",
        "SIGUSR2",
        "SIGVTALRM",
        "SIGWINCH",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGRTMIN",
    ];
    let os = spec.os.as_ref().map_or("", |os| os.name.as_str());
    if os.is_empty() {
        let detail = "may not be set for containers with empty `spec.os.name`";
        errors.forbidden(path, detail).help = Some("write `os: {name: linux}` in the spec".into());
        return;
    }
    let distance = |prefix: &str, most: u8| {
        let number = signal.strip_prefix(prefix)?.parse::<u8>().ok()?;
        (1..=most).contains(&number).then_some(())
    };
    let known = NAMES.contains(&signal)
        || signal == "SIGRTMAX"
        || distance("SIGRTMIN+", 15).is_some()
        || distance("SIGRTMAX-", 14).is_some();
    if !known {
        errors.one_of(path, signal, &NAMES);
    }
}

fn probe_rules(name: &str, probe: &Probe, path: &Path, errors: &mut Errors) {
    let handlers = [
        ("exec", probe.exec.is_some()),
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("grpc", probe.grpc.is_some()),
    ];
    one_handler(&handlers, path, errors);
    exec(probe.exec.as_ref(), path, errors);
    http(probe.http_get.as_ref(), path, errors);
    if let Some(tcp) = &probe.tcp_socket {
        port(&tcp.port, path.field("tcpSocket").field("port"), errors);
    }
    if let Some(grpc) = &probe.grpc {
        port_number(grpc.port, path.field("grpc").field("port"), errors);
    }
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        errors.not_negative(path.field(field), value);
    }
    let successes = probe.success_threshold.unwrap_or(1);
    if name != "readinessProbe" && successes > 1 {
        errors.invalid_plain(path.field("successThreshold"), successes, "must be 1");
    }
    if let Some(grace) = probe.termination_grace_period_seconds {
        let path = path.field("terminationGracePeriodSeconds");
        if name == "readinessProbe" {
            errors.invalid_plain(path, grace, "must not be set for readinessProbes");
        } else if grace <= 0 {
            errors.invalid_plain(path, grace, "must be greater than 0");
        }
    }
}

fn hook_rules(hook: &LifecycleHandler, grace: i64, path: &Path, errors: &mut Errors) {
    let handlers = [
        ("exec", hook.exec.is_some()),
        ("httpGet", hook.http_get.is_some()),
        ("tcpSocket", hook.tcp_socket.is_some()),
        ("sleep", hook.sleep.is_some()),
    ];
    one_handler(&handlers, path, errors);
    exec(hook.exec.as_ref(), path, errors);
    http(hook.http_get.as_ref(), path, errors);
    if let Some(sleep) = &hook.sleep
        && !(0..=grace).contains(&sleep.seconds)
    {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid_plain(path.field("sleep"), sleep.seconds, detail);
    }
}

fn one_handler(handlers: &[(&str, bool)], path: &Path, errors: &mut Errors) {
    let mut set = handlers.iter().filter(|(_, set)| *set);
    if set.next().is_none() {
        errors.required_because(path.clone(), "must specify a handler type");
    }
    for (name, _) in set {
        errors.forbidden(path.field(name), "may not specify more than 1 handler type");
    }
}

fn exec(action: Option<&ExecAction>, path: &Path, errors: &mut Errors) {
    if action.is_some_and(|action| action.command.as_ref().is_none_or(Vec::is_empty)) {
        errors.required(path.field("exec.command"));
    }
}

/// `ValidatePortNumOrName`.
fn port(port: &IntOrString, path: Path, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => port_number(*number, path, errors),
        IntOrString::String(name) => errors.name(path, name, names::port(name)),
    }
}

fn port_number(number: i32, path: Path, errors: &mut Errors) {
    if !(1..=65535).contains(&number) {
        errors.invalid_plain(path, number, "must be between 1 and 65535, inclusive");
    }
}

fn http(action: Option<&HTTPGetAction>, path: &Path, errors: &mut Errors) {
    let Some(action) = action else { return };
    let path = path.field("httpGet");
    port(&action.port, path.field("port"), errors);
    if let Some(scheme) = action.scheme.as_deref().filter(|scheme| !scheme.is_empty()) {
        errors.one_of(path.field("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for (i, header) in action.http_headers.iter().flatten().enumerate() {
        let name = &header.name;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.invalid(path.field("httpHeaders").index(i).field("name"), name, detail);
        }
    }
}
