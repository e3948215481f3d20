//! Jobs: complete when their mains have ended, however long a sidecar would run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use integration::{Instance, position, sources};

/// A job `work` with these fields of its own and a pod of this `spec`, which is indented by six.
fn job(fields: &str, pod: &str) -> String {
    format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{name: work}}
spec:
  {fields}
  template:
    spec:
{pod}"
    )
}

/// The documentation's log shipper beside a main of this script; a failure is final.
fn shipped(main: &str) -> String {
    job(
        "backoffLimit: 0",
        &format!(
            "      restartPolicy: Never
      terminationGracePeriodSeconds: 2
      initContainers:
      - name: logshipper
        image: alpine:latest
        restartPolicy: Always
        command: [sh, -c, 'tail -F /opt/logs.txt']
        volumeMounts: [{{name: data, mountPath: /opt}}]
      containers:
      - name: main
        image: alpine:latest
        command: [sh, -c, '{main}']
        volumeMounts: [{{name: data, mountPath: /opt}}]
      volumes: [{{name: data, emptyDir: {{}}}}]
"
        ),
    )
}

#[test]
fn a_job_completes_although_its_sidecar_runs_and_the_sidecar_sees_it_all() {
    let podshim = Instance::new();
    let said = podshim.run(&shipped("sleep 0.5; echo logging > /opt/logs.txt; sleep 1.5"));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("logshipper | logging"), "{}", said.out);
    // As in Kubernetes its shell has no handler for TERM, and it is said how long that takes.
    assert!(said.err.contains("no handler for SIGTERM"), "{}", said.err);
}

#[test]
fn main_starts_after_its_sidecar_and_the_sidecar_stops_after_main() {
    let podshim = Instance::new();
    let (code, events) = podshim.events(&shipped("exit 7"));
    assert_eq!(code, 7);
    let sidecar = position(&events, "Started", "logshipper");
    let main = position(&events, "Started", "main");
    let main_ended = position(&events, "Exited", "main");
    let stopped = position(&events, "Killing", "logshipper");
    assert!(sidecar < main && main < main_ended && main_ended < stopped, "{events:?}");
}

#[test]
fn the_example_job_runs_as_it_is() {
    let podshim = Instance::new();
    let example = fs::read_to_string(sources().join("examples/job.yaml")).unwrap();
    // As written it takes the whole grace of 30 s; the manifest is otherwise the same.
    let quick = example.replace(
        "      restartPolicy: Never\n",
        "      restartPolicy: Never\n      terminationGracePeriodSeconds: 2\n",
    );
    assert_ne!(quick, example);
    let said = podshim.run(&quick);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("logshipper | logging"), "{}", said.out);
}
