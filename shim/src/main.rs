//! podshim: runs Kubernetes pod manifests with native sidecars on a bare Linux host.
//!
//! One binary: the command line (`podshim run` is also the controller of its jobs and deployments for as
//! long as it runs), the daemon, and, started by one of the two once a pod, the keeper and the shim that
//! *is* the pod.

mod cli;
mod daemon;
mod durable;
mod event_log;
mod history;
mod knobs;
mod pod;
mod protocol;
mod remembered;
mod run;
mod service;
mod shown;
mod spawn;
mod timeline;
mod workload;

fn main() {
    // Before anything takes memory: it is there for as long as the pod.
    if let Some(code) = keep() {
        std::process::exit(code);
    }
    std::process::exit(cli::main());
}

/// `podshim keep [--owned] POD_DIR`, which podshim itself starts; `None` if that is not asked for.
fn keep() -> Option<i32> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != "keep" {
        return None;
    }
    let (first, second) = (args.next()?, args.next());
    let (pod_dir, owned) = match second {
        Some(pod_dir) if first == "--owned" => (pod_dir, true),
        _ => (first, false),
    };
    Some(runtime::keeper::process::run(&pod_dir, owned).unwrap_or_else(|e| {
        cli::complain(&format!("cannot keep the pod in {}: {e}", pod_dir.display()));
        cli::FAILED
    }))
}
