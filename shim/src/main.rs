//! podshim: runs Kubernetes pod manifests with native sidecars on a bare Linux host.
//!
//! One binary, two processes: the command line (`podshim run` is also the controller of its jobs
//! and deployments for as long as it runs) and, started by it once a pod, the shim that *is* the
//! pod.

mod cli;
mod pod;
mod protocol;
mod run;
mod timeline;

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
