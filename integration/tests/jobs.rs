//! Jobs: complete when their mains have ended, however long a sidecar would run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use integration::{Instance, of_kind, position, sources, status_of};
use nix::sys::signal::Signal;
use serde_json::Value;

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

/// A sidecar that hears TERM beside a main of this script, which begins when the sidecar listens.
fn attended(main: &str) -> String {
    format!(
        "      restartPolicy: Never
      terminationGracePeriodSeconds: 20
      initContainers:
      - name: side
        image: alpine:latest
        restartPolicy: Always
        command: [sh, -c, 'trap \"exit 0\" TERM; touch /d/up; while :; do sleep 0.1; done']
        volumeMounts: [{{name: d, mountPath: /d}}]
      containers:
      - name: main
        image: alpine:latest
        command: [sh, -c, 'until [ -e /d/up ]; do sleep 0.1; done; {main}']
        volumeMounts: [{{name: d, mountPath: /d}}]
      volumes: [{{name: d, emptyDir: {{}}}}]
"
    )
}

fn has_condition(job: &Value, kind: &str, reason: &str) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|c| c["type"] == *kind && c["reason"] == *reason && c["status"] == "True")
}

/// The most pods that were there at the same time, each from its first event to its last.
fn most_at_once(objects: &[Value]) -> usize {
    let mut lives = BTreeMap::new();
    for (at, event) in of_kind(objects, "Event").iter().enumerate() {
        let name = event["involvedObject"]["name"].as_str().unwrap();
        lives.entry(name).or_insert((at, at)).1 = at;
    }
    let alive_at =
        |at: usize| lives.values().filter(|(from, to)| (*from..=*to).contains(&at)).count();
    lives.values().map(|(from, _)| alive_at(*from)).max().unwrap_or(0)
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

#[test]
fn a_sidecar_deaf_to_sigterm_costs_its_grace_period_and_no_more() {
    let podshim = Instance::new();
    let began = Instant::now();
    let (code, objects) = podshim.objects(&shipped("true"));
    let took = began.elapsed();
    assert_eq!(code, 0);
    let pod = of_kind(&objects, "Pod")[0];
    assert_eq!(status_of(pod, "logshipper")["state"]["terminated"]["exitCode"], 137, "{pod:#}");
    assert!(took >= Duration::from_secs(2), "killed before its 2 s were over: {took:?}");
    // Of a slow machine's time only so much is known: it is less than the 30 s of the default.
    assert!(took < Duration::from_secs(25), "not the 2 s of the manifest: {took:?}");
}

#[test]
fn a_job_without_a_second_try_fails_and_says_that_its_limit_is_reached() {
    let podshim = Instance::new();
    let (code, objects) = podshim.objects(&job("backoffLimit: 0", &attended("exit 7")));
    assert_eq!(code, 7);
    assert_eq!(of_kind(&objects, "Pod").len(), 1);
    let job = of_kind(&objects, "Job")[0];
    assert!(has_condition(job, "Failed", "BackoffLimitExceeded"), "{job:#}");
    assert_eq!(job["status"]["failed"], 1, "{job:#}");
    assert_eq!(job["status"]["succeeded"], 0, "{job:#}");
}

#[test]
fn a_failed_pod_is_followed_by_another_up_to_the_limit_and_the_last_code_counts() {
    let podshim = Instance::new();
    // Ten seconds lie between two pods, so each has a code of its own.
    let main = "exit $((1 + `date +%s` % 100))";
    let (code, objects) = podshim.objects(&job("backoffLimit: 1", &attended(main)));
    let codes: Vec<Value> = of_kind(&objects, "Pod")
        .iter()
        .map(|pod| status_of(pod, "main")["state"]["terminated"]["exitCode"].clone())
        .collect();
    assert_eq!(codes.len(), 2, "{codes:?}");
    assert_ne!(codes[0], codes[1]);
    assert_eq!(codes[1], code, "of {codes:?}");
    let job = of_kind(&objects, "Job")[0];
    assert_eq!(job["status"]["failed"], 2, "{job:#}");
    assert!(has_condition(job, "Failed", "BackoffLimitExceeded"), "{job:#}");
}

#[test]
fn that_a_job_waits_before_its_next_pod_is_told() {
    let podshim = Instance::new();
    for with_daemon in [false, true] {
        let daemon = with_daemon.then(|| podshim.daemon());
        // Without --pull, which would make the pods run's own.
        let pod = attended("exit 7").replace(
            "image: alpine:latest\n",
            "image: alpine:latest\n        imagePullPolicy: Never\n",
        );
        let path = podshim.manifest(&job("backoffLimit: 1", &pod));
        let running = podshim.start_command(podshim.command(&["run", &path]));
        running.until_printed("a pod has failed (1 so far, 1 may be replaced)");
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait().0, 143);
        if let Some(daemon) = daemon {
            let told = podshim.podshim(&["events", "job/work"]).out;
            assert!(told.contains("SuccessfulCreate"), "the daemon had it: {told}");
            podshim.end_daemon(daemon);
        }
    }
}

#[test]
fn a_job_has_as_many_successes_as_it_asks_for_and_no_more_pods_at_once_than_it_allows() {
    let podshim = Instance::new();
    let fields = "completions: 3\n  parallelism: 2";
    // Long enough for the second pod to begin in a slow machine too.
    let (code, objects) = podshim.objects(&job(fields, &attended("sleep 3")));
    assert_eq!(code, 0);
    let pods = of_kind(&objects, "Pod");
    assert_eq!(pods.len(), 3, "{pods:#?}");
    assert!(pods.iter().all(|pod| pod["status"]["phase"] == "Succeeded"), "{pods:#?}");
    assert_eq!(most_at_once(&objects), 2, "{:#?}", of_kind(&objects, "Event"));
    let job = of_kind(&objects, "Job")[0];
    assert_eq!(job["status"]["succeeded"], 3, "{job:#}");
    assert!(has_condition(job, "Complete", "CompletionsReached"), "{job:#}");
}

#[test]
fn a_job_that_is_not_done_at_its_deadline_is_stopped_in_order_and_has_failed() {
    let podshim = Instance::new();
    // It ends with 0 when it is told to; the job has failed all the same. It takes its time, so
    // that a sidecar that is stopped together with it would end first.
    let main = "trap \"sleep 1; exit 0\" TERM; while :; do sleep 0.1; done";
    let (code, objects) = podshim.objects(&job("activeDeadlineSeconds: 5", &attended(main)));
    assert_ne!(code, 0);
    let job = of_kind(&objects, "Job")[0];
    assert!(has_condition(job, "Failed", "DeadlineExceeded"), "{job:#}");
    assert_eq!(of_kind(&objects, "Pod").len(), 1, "it is not tried again");
    let events = integration::events(&objects);
    assert!(
        position(&events, "Exited", "main") < position(&events, "Exited", "side"),
        "{events:?}"
    );
}
