//! batch/v1 Job, not indexed.
//!
//! Sidecars never keep a job from completing: a pod is Succeeded by its mains. They do count where
//! Kubernetes counts restarts (`restartPolicy: OnFailure`).

use serde::Serialize;

use super::{Condition, Phase, WorkloadPod};
use crate::model::RestartPolicy;
use crate::time::{At, Mono};

/// Seconds before the first new pod after a failure; doubled for each failure in a row.
const FIRST_DELAY_S: u32 = 10;
/// The longest such delay.
const MAX_DELAY_S: u32 = 600;

/// `spec` of a job, defaults applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// `parallelism`.
    pub parallelism: u32,
    /// `completions`; `None` is a work queue: done with the first success and no active pod.
    pub completions: Option<u32>,
    /// `backoffLimit`.
    pub backoff_limit: u32,
    /// `activeDeadlineSeconds`.
    pub active_deadline_s: Option<u32>,
    /// The template's `restartPolicy`.
    pub restart_policy: RestartPolicy,
}

/// How a job ends, decided once and remembered by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Complete, or failed.
    pub complete: bool,
    /// `CompletionsReached`, `BackoffLimitExceeded`, `DeadlineExceeded`.
    pub reason: &'static str,
    /// A sentence.
    pub message: &'static str,
    /// When.
    pub at: At,
}

const BACKOFF_LIMIT: (&str, &str) =
    ("BackoffLimitExceeded", "Job has reached the specified backoff limit");
const DEADLINE: (&str, &str) =
    ("DeadlineExceeded", "Job was active longer than specified deadline");
const COMPLETIONS: (&str, &str) =
    ("CompletionsReached", "Reached expected number of succeeded pods");

impl Verdict {
    fn new((reason, message): (&'static str, &'static str), at: At) -> Verdict {
        Verdict { complete: reason == COMPLETIONS.0, reason, message, at }
    }

    /// What was decided before, by the reason that its condition gives.
    #[must_use]
    pub fn recall(reason: &str, at: At) -> Option<Verdict> {
        let all = [BACKOFF_LIMIT, DEADLINE, COMPLETIONS];
        all.into_iter().find(|known| known.0 == reason).map(|known| Verdict::new(known, at))
    }
}

/// What follows from a job's pods at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPlan {
    /// How many pods to make.
    pub create: u32,
    /// The uids of those to delete.
    pub delete: Vec<String>,
    /// Decided now or before; the job is over when no pod is left that is not terminal.
    pub verdict: Option<Verdict>,
    /// Nothing is left to do.
    pub over: bool,
    /// When time alone changes the answer.
    pub wake_at: Option<Mono>,
    /// `status`.
    pub status: JobStatus,
}

/// `status` of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    start_time: String,
    active: u32,
    ready: u32,
    terminating: u32,
    succeeded: u32,
    failed: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Condition>,
}

fn count(pods: &[WorkloadPod], what: impl Fn(&WorkloadPod) -> bool) -> u32 {
    u32::try_from(pods.iter().filter(|p| what(p)).count()).unwrap_or(u32::MAX)
}

/// Plans a job. `decided` is the verdict of an earlier plan.
#[must_use]
pub fn plan(
    spec: &JobSpec,
    pods: &[WorkloadPod],
    started: At,
    decided: Option<&Verdict>,
    now: At,
) -> JobPlan {
    let verdict = decided.cloned().or_else(|| judge(spec, pods, started, now));
    let mut wake_at = None;
    let mut create = 0;
    let mut delete = Vec::new();
    if verdict.is_some() {
        delete.extend(pods.iter().filter(|p| p.is_active()).map(|p| p.uid.clone()));
    } else {
        let active = count(pods, WorkloadPod::is_active);
        create = wanted(spec, pods).saturating_sub(active);
        let (late, due) = (spec.active_deadline_s, retry_at(pods));
        wake_at = late.map(|s| started.mono.plus_s(s));
        if create > 0
            && let Some(due) = due.filter(|due| now.mono < *due)
        {
            create = 0;
            wake_at = wake_at.into_iter().chain([due]).min();
        }
    }
    let over = verdict.is_some() && pods.iter().all(WorkloadPod::is_terminal);
    let status = status(pods, started, verdict.as_ref(), over);
    JobPlan { create, delete, verdict, over, wake_at, status }
}

/// How many pods are to be active at the same time.
fn wanted(spec: &JobSpec, pods: &[WorkloadPod]) -> u32 {
    let succeeded = count(pods, |p| p.phase == Phase::Succeeded);
    match spec.completions {
        Some(completions) => completions.saturating_sub(succeeded).min(spec.parallelism),
        None if succeeded > 0 => count(pods, WorkloadPod::is_active),
        None => spec.parallelism,
    }
}

/// Kubernetes' order: the backoff limit and the deadline before completion.
fn judge(spec: &JobSpec, pods: &[WorkloadPod], started: At, now: At) -> Option<Verdict> {
    if backoff_limit_exceeded(spec, pods) {
        return Some(Verdict::new(BACKOFF_LIMIT, now));
    }
    let late = spec.active_deadline_s.is_some_and(|s| started.mono.plus_s(s) <= now.mono);
    if late {
        return Some(Verdict::new(DEADLINE, now));
    }
    let succeeded = count(pods, |p| p.phase == Phase::Succeeded);
    let complete = match spec.completions {
        Some(completions) => succeeded >= completions,
        None => succeeded > 0 && pods.iter().all(WorkloadPod::is_terminal),
    };
    complete.then(|| Verdict::new(COMPLETIONS, now))
}

fn backoff_limit_exceeded(spec: &JobSpec, pods: &[WorkloadPod]) -> bool {
    if count(pods, |p| p.phase == Phase::Failed) > spec.backoff_limit {
        return true;
    }
    if spec.restart_policy != RestartPolicy::OnFailure {
        return false;
    }
    let restarts: u32 = pods.iter().filter(|p| !p.is_terminal()).map(|p| p.restarts).sum();
    if spec.backoff_limit == 0 { restarts > 0 } else { restarts >= spec.backoff_limit }
}

/// When the next pod after failures may be made: counted from the finish of the last pod that
/// failed; a success in between begins the series again.
fn retry_at(pods: &[WorkloadPod]) -> Option<Mono> {
    let mut ended: Vec<(Mono, Phase)> =
        pods.iter().filter_map(|p| Some((p.finished?.mono, p.phase))).collect();
    ended.sort_by_key(|(at, _)| *at);
    let failures = ended.iter().rev().take_while(|(_, phase)| *phase == Phase::Failed).count();
    let (last, _) = ended.last().filter(|_| failures > 0)?;
    let doublings = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(16);
    Some(last.plus_s(FIRST_DELAY_S.saturating_mul(1 << doublings).min(MAX_DELAY_S)))
}

fn status(pods: &[WorkloadPod], started: At, verdict: Option<&Verdict>, over: bool) -> JobStatus {
    let condition = |kind, verdict: &Verdict| Condition {
        kind,
        status: "True",
        reason: verdict.reason,
        message: verdict.message.to_owned(),
        last_update_time: None,
        last_transition_time: verdict.at.wall.rfc3339(),
    };
    let mut conditions = Vec::new();
    if let Some(verdict) = verdict {
        let (target, end) = if verdict.complete {
            ("SuccessCriteriaMet", "Complete")
        } else {
            ("FailureTarget", "Failed")
        };
        conditions.push(condition(target, verdict));
        if over {
            conditions.push(condition(end, verdict));
        }
    }
    JobStatus {
        start_time: started.wall.rfc3339(),
        active: count(pods, WorkloadPod::is_active),
        ready: count(pods, |p| p.is_active() && p.ready.is_some()),
        terminating: count(pods, |p| p.deleting && !p.is_terminal()),
        succeeded: count(pods, |p| p.phase == Phase::Succeeded),
        failed: count(pods, |p| p.phase == Phase::Failed),
        completion_time: verdict.filter(|v| v.complete && over).map(|v| v.at.wall.rfc3339()),
        conditions,
    }
}

/// What `podshim run` of a job exits with: 0 if it is complete, else the code of the pod that failed
/// last, 1 if that was 0.
#[must_use]
pub fn exit_code(verdict: &Verdict, pods: &[WorkloadPod]) -> i32 {
    if verdict.complete {
        return 0;
    }
    let last = pods
        .iter()
        .filter(|p| p.phase == Phase::Failed)
        .max_by_key(|p| p.finished.map(|at| at.mono));
    last.map_or(1, |p| if p.exit_code == 0 { 1 } else { p.exit_code })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    fn at(s: u64) -> At {
        At { mono: Mono(s * Mono::SECOND), wall: Wall(s * Mono::SECOND) }
    }

    fn spec() -> JobSpec {
        JobSpec {
            parallelism: 1,
            completions: Some(1),
            backoff_limit: 6,
            active_deadline_s: None,
            restart_policy: RestartPolicy::Never,
        }
    }

    fn pod(uid: &str, phase: Phase) -> WorkloadPod {
        let over = matches!(phase, Phase::Succeeded | Phase::Failed);
        WorkloadPod {
            uid: uid.into(),
            name: uid.into(),
            owner: String::new(),
            phase,
            deleting: false,
            created: at(0),
            finished: over.then(|| at(5)),
            restarts: 0,
            ready: (phase == Phase::Running).then(At::default),
            deletion_cost: 0,
            exit_code: if phase == Phase::Failed { 7 } else { 0 },
        }
    }

    fn planned(spec: &JobSpec, pods: &[WorkloadPod], now: u64) -> JobPlan {
        plan(spec, pods, at(0), None, at(now))
    }

    #[test]
    fn a_new_job_makes_as_many_pods_as_it_wants_side_by_side() {
        assert_eq!(planned(&spec(), &[], 0).create, 1);
        let wide = JobSpec { parallelism: 3, completions: Some(5), ..spec() };
        assert_eq!(planned(&wide, &[], 0).create, 3);
        let almost: Vec<_> = (0..4).map(|i| pod(&i.to_string(), Phase::Succeeded)).collect();
        assert_eq!(planned(&wide, &almost, 6).create, 1);
    }

    #[test]
    fn a_queue_makes_no_more_pods_once_one_has_succeeded() {
        let queue = JobSpec { parallelism: 2, completions: None, backoff_limit: 6, ..spec() };
        assert_eq!(planned(&queue, &[], 0).create, 2);
        let mut failed = pod("a", Phase::Failed);
        failed.finished = Some(at(5));
        let pods = [failed.clone(), pod("b", Phase::Running)];
        assert_eq!(planned(&queue, &pods, 15).create, 1);
        let pods = [pod("a", Phase::Succeeded), pod("b", Phase::Running)];
        assert_eq!(planned(&queue, &pods, 6).create, 0);
        // Nobody waits for the delay of a pod that is not to be made.
        let pods = [failed, pod("b", Phase::Running), pod("c", Phase::Running)];
        assert_eq!(planned(&queue, &pods, 6).wake_at, None);
    }

    #[test]
    fn it_is_complete_when_enough_pods_succeeded_and_none_is_left() {
        let plan = planned(&spec(), &[pod("a", Phase::Succeeded)], 6);
        let verdict = plan.verdict.expect("verdict");
        assert!(verdict.complete && plan.over && plan.create == 0);
        assert_eq!(verdict.reason, "CompletionsReached");
        assert_eq!(exit_code(&verdict, &[]), 0);
        let kinds: Vec<_> = plan.status.conditions.iter().map(|c| c.kind).collect();
        assert_eq!(kinds, ["SuccessCriteriaMet", "Complete"]);
    }

    #[test]
    fn after_a_failure_the_next_pod_waits_ten_seconds_then_twenty() {
        let failed = [pod("a", Phase::Failed)];
        let early = planned(&spec(), &failed, 6);
        assert_eq!((early.create, early.wake_at), (0, Some(at(15).mono)));
        assert_eq!(planned(&spec(), &failed, 15).create, 1);
        let mut second = pod("b", Phase::Failed);
        second.finished = Some(at(20));
        let twice = [failed[0].clone(), second];
        assert_eq!(planned(&spec(), &twice, 30).wake_at, Some(at(40).mono));
    }

    #[test]
    fn more_failures_than_the_limit_fail_it_with_the_last_ones_code() {
        let none = JobSpec { backoff_limit: 0, ..spec() };
        let pods = [pod("a", Phase::Failed)];
        let plan = planned(&none, &pods, 6);
        let verdict = plan.verdict.expect("verdict");
        assert_eq!(verdict.reason, "BackoffLimitExceeded");
        assert_eq!(exit_code(&verdict, &pods), 7);
    }

    #[test]
    fn restarts_of_a_sidecar_count_where_containers_are_restarted_in_place() {
        let in_place =
            JobSpec { backoff_limit: 2, restart_policy: RestartPolicy::OnFailure, ..spec() };
        let mut running = pod("a", Phase::Running);
        running.restarts = 1;
        assert_eq!(planned(&in_place, &[running.clone()], 6).verdict, None);
        running.restarts = 2;
        let plan = planned(&in_place, &[running], 6);
        assert_eq!(plan.verdict.map(|v| v.reason), Some("BackoffLimitExceeded"));
        assert_eq!(plan.delete, ["a"]);
        assert!(!plan.over);
    }

    #[test]
    fn the_limit_itself_is_not_too_much_but_for_restarts_in_place() {
        let once = JobSpec { backoff_limit: 1, ..spec() };
        assert_eq!(planned(&once, &[pod("a", Phase::Failed)], 6).verdict, None);
        let mut running = pod("a", Phase::Running);
        let failed = |spec: &JobSpec, pod: &WorkloadPod| {
            planned(spec, std::slice::from_ref(pod), 6).verdict.is_some()
        };
        for (backoff_limit, restarts, fails) in
            [(0, 0, false), (0, 1, true), (1, 0, false), (1, 1, true), (2, 1, false), (2, 3, true)]
        {
            running.restarts = restarts;
            let in_place =
                JobSpec { backoff_limit, restart_policy: RestartPolicy::OnFailure, ..spec() };
            assert_eq!(failed(&in_place, &running), fails, "{backoff_limit} {restarts}");
            let never = JobSpec { backoff_limit, ..spec() };
            assert!(!failed(&never, &running), "restarts count in place only");
        }
    }

    #[test]
    fn the_deadline_ends_what_runs() {
        let short = JobSpec { active_deadline_s: Some(10), ..spec() };
        let pods = [pod("a", Phase::Running)];
        assert_eq!(planned(&short, &pods, 9).wake_at, Some(at(10).mono));
        let plan = planned(&short, &pods, 10);
        assert_eq!(plan.verdict.map(|v| v.reason), Some("DeadlineExceeded"));
        assert_eq!(plan.delete, ["a"]);
    }

    #[test]
    fn a_verdict_stays_whatever_happens_afterwards() {
        let verdict = planned(&spec(), &[pod("a", Phase::Succeeded)], 6).verdict;
        let later = plan(&spec(), &[], at(0), verdict.as_ref(), at(99));
        assert_eq!(later.verdict, verdict);
        assert_eq!(later.create, 0);
    }

    #[test]
    fn a_work_queue_is_done_with_a_success_and_nobody_left() {
        let queue = JobSpec { completions: None, parallelism: 2, ..spec() };
        let half = [pod("a", Phase::Succeeded), pod("b", Phase::Running)];
        let plan = planned(&queue, &half, 6);
        assert_eq!((plan.create, plan.verdict), (0, None));
        let done = [pod("a", Phase::Succeeded), pod("b", Phase::Failed)];
        assert!(planned(&queue, &done, 6).verdict.is_some_and(|v| v.complete));
    }
}
