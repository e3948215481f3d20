//! The pod of a story, in one line:
//! `Always grace=30 deadline=60; init migrate; sidecar log startup(period=1 failures=3) pre-stop`.

use std::collections::BTreeMap;

use plan::{Container, Kind, Pod, Probe, PullWhen, RESTART_DELAY_MAX_S, Rule, RuleAction};

use super::words;

/// Reads it.
pub(crate) fn parse(text: &str) -> Result<Pod, String> {
    let mut parts = text.split(';').map(str::trim);
    let mut head = parts.next().unwrap_or_default().split_whitespace();
    let restart_policy = words::policy(head.next().unwrap_or_default())?;
    let (gates, head): (Vec<&str>, Vec<&str>) = head.partition(|word| word.starts_with("gate="));
    let numbers = head.into_iter().map(words::number);
    let numbers: BTreeMap<&str, u32> = numbers.collect::<Result<_, _>>()?;
    let containers: Vec<Container> = parts.map(container).collect::<Result<_, _>>()?;
    if !containers.iter().any(|c| c.kind == Kind::Main) {
        return Err("a pod has a main".to_owned());
    }
    Ok(Pod {
        namespace: "default".into(),
        name: "shop".into(),
        uid: "u1".into(),
        restart_policy,
        grace_s: numbers.get("grace").copied().unwrap_or(30),
        active_deadline_s: numbers.get("deadline").copied(),
        restart_delay_max_s: numbers.get("delay-max").copied().unwrap_or(RESTART_DELAY_MAX_S),
        gates: gates.iter().map(|gate| gate["gate=".len()..].to_owned()).collect(),
        containers,
    })
}

fn container(text: &str) -> Result<Container, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (Some(kind), Some(name)) = (words.first(), words.get(1)) else {
        return Err(format!("a container's kind and name, not {text:?}"));
    };
    let kind = match *kind {
        "init" => Kind::Init,
        "sidecar" => Kind::Sidecar,
        "main" => Kind::Main,
        other => return Err(format!("init, sidecar or main, not {other}")),
    };
    let within = |name: &str| {
        let (_, rest) = text.split_once(&format!(" {name}("))?;
        rest.split_once(')').map(|(inner, _)| inner)
    };
    let policy = text.split_once(" policy=").and_then(|(_, rest)| rest.split_whitespace().next());
    let rules = within("rules").into_iter().flat_map(|rules| rules.split(','));
    let has = |word: &str| words.contains(&word);
    Ok(Container {
        pull: if has("pull-always") { PullWhen::EachStart } else { PullWhen::Once },
        policy: policy.map(words::policy).transpose()?,
        rules: rules.map(rule).collect::<Result<_, _>>()?,
        startup: within("startup").map(probe).transpose()?,
        readiness: within("readiness").map(probe).transpose()?,
        liveness: within("liveness").map(probe).transpose()?,
        post_start: has("post-start"),
        pre_stop: has("pre-stop"),
        notify: has("notify"),
        standby: has("standby"),
        at_start: has("at-start"),
        ..Container::new(name, kind, &format!("{name}:1"))
    })
}

/// `restart in 42 43` or `restart-all not-in 0`.
fn rule(text: &str) -> Result<Rule, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [action, operator, codes @ ..] = &words[..] else {
        return Err(format!("restart or restart-all, in or not-in, codes; not {text:?}"));
    };
    Ok(Rule {
        action: match *action {
            "restart" => RuleAction::Restart,
            "restart-all" => RuleAction::RestartAllContainers,
            other => return Err(format!("restart or restart-all, not {other}")),
        },
        within: *operator == "in",
        codes: codes.iter().map(|code| words::code(code)).collect::<Result<_, _>>()?,
    })
}

fn probe(text: &str) -> Result<Probe, String> {
    let numbers = text.split_whitespace().map(words::number);
    let numbers: BTreeMap<&str, u32> = numbers.collect::<Result<_, _>>()?;
    let get = |key, default| numbers.get(key).copied().unwrap_or(default);
    Ok(Probe {
        initial_delay_s: get("delay", 0),
        period_s: get("period", 10),
        timeout_s: get("timeout", 1),
        failure_threshold: get("failures", 3),
        success_threshold: get("successes", 1),
        burst: get("burst", 0) > 0,
        grace_s: numbers.get("grace").copied(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pod_is_refused_with_a_reason() {
        for (text, why) in [
            ("Sometimes; main app", "a restart policy, not Sometimes"),
            ("Always; sidecar log", "a pod has a main"),
            ("Always; app", "a container's kind and name"),
            ("Always; main app startup(period)", "NAME=NUMBER, not period"),
            ("Always; main app rules(restart)", "restart or restart-all, in or not-in"),
        ] {
            let refused = parse(text).expect_err(text);
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
