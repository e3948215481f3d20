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
    std::process::exit(cli::main());
}
