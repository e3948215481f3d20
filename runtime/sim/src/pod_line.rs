//! A pod in a line: `Always grace=30 deadline=60; init migrate; sidecar log startup(period=1) pre-stop;
//! main app policy=Never rules(restart in 42)`. Stories and scenarios begin with one.

use std::collections::BTreeMap;

use plan::{
    Container, Kind, Pod, Probe, PullWhen, RESTART_DELAY_MAX_S, RestartPolicy, Rule, RuleAction,
};

/// Reads it; neither name nor uid stand in the line.
pub(crate) fn read(text: &str, name: &str, uid: &str) -> Result<Pod, String> {
    let mut parts = text.split(';').map(str::trim);
    let head = parts.next().unwrap_or_default();
    let mut head = head.split_whitespace();
    let restart_policy = policy(head.next().unwrap_or_default())?;
    let (gates, head): (Vec<&str>, Vec<&str>) = head.partition(|word| word.starts_with("gate="));
    let numbers = numbers(head.into_iter())?;
    let containers: Vec<Container> = parts.map(container).collect::<Result<_, _>>()?;
    if !containers.iter().any(|c| c.kind == Kind::Main) {
        return Err("a pod has a main".into());
    }
    Ok(Pod {
        namespace: "default".into(),
        name: name.into(),
        uid: uid.into(),
        restart_policy,
        grace_s: numbers.get("grace").copied().unwrap_or(30),
        active_deadline_s: numbers.get("deadline").copied(),
        restart_delay_max_s: numbers.get("delay-max").copied().unwrap_or(RESTART_DELAY_MAX_S),
        gates: gates.iter().filter_map(|gate| gate.strip_prefix("gate=")).map(Into::into).collect(),
        containers,
    })
}

fn numbers<'a>(words: impl Iterator<Item = &'a str>) -> Result<BTreeMap<&'a str, u32>, String> {
    words
        .map(|word| {
            let (key, value) =
                word.split_once('=').ok_or_else(|| format!("{word:?} has no value"))?;
            Ok((key, number(value)?))
        })
        .collect()
}

/// The word for a kind.
pub(crate) fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Init => "init",
        Kind::Sidecar => "sidecar",
        Kind::Main => "main",
    }
}

/// `sidecar log image=log:2 startup(period=1) pre-stop`
pub(crate) fn container(text: &str) -> Result<Container, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, name, ..] = words[..] else { return Err(format!("{text:?} is no container")) };
    let kind = match kind {
        "init" => Kind::Init,
        "sidecar" => Kind::Sidecar,
        "main" => Kind::Main,
        other => return Err(format!("init, sidecar or main, not {other:?}")),
    };
    let within = |name: &str| {
        let (_, rest) = text.split_once(&format!(" {name}("))?;
        Some(rest.split_once(')')?.0)
    };
    let value = |key: &str| {
        let (_, rest) = text.split_once(key)?;
        rest.split_whitespace().next()
    };
    let own = value(" policy=");
    let image = value(" image=").map_or_else(|| format!("{name}:1"), str::to_owned);
    let rules = within("rules").into_iter().flat_map(|rules| rules.split(','));
    Ok(Container {
        pull: if words.contains(&"pull-always") { PullWhen::EachStart } else { PullWhen::Once },
        policy: own.map(policy).transpose()?,
        rules: rules.map(rule).collect::<Result<_, _>>()?,
        startup: within("startup").map(probe).transpose()?,
        readiness: within("readiness").map(probe).transpose()?,
        liveness: within("liveness").map(probe).transpose()?,
        post_start: words.contains(&"post-start"),
        pre_stop: words.contains(&"pre-stop"),
        notify: words.contains(&"notify"),
        standby: words.contains(&"standby"),
        at_start: words.contains(&"at-start"),
        ..Container::new(name, kind, &image)
    })
}

fn policy(text: &str) -> Result<RestartPolicy, String> {
    match text {
        "Always" => Ok(RestartPolicy::Always),
        "OnFailure" => Ok(RestartPolicy::OnFailure),
        "Never" => Ok(RestartPolicy::Never),
        other => Err(format!("{other:?} is no restart policy")),
    }
}

/// `restart in 42 43` or `restart-all not-in 0`.
fn rule(text: &str) -> Result<Rule, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [action, operator, codes @ ..] = &words[..] else {
        return Err(format!("{text:?} is no rule"));
    };
    Ok(Rule {
        action: match *action {
            "restart" => RuleAction::Restart,
            "restart-all" => RuleAction::RestartAllContainers,
            other => return Err(format!("restart or restart-all, not {other:?}")),
        },
        within: match *operator {
            "in" => true,
            "not-in" => false,
            other => return Err(format!("in or not-in, not {other:?}")),
        },
        codes: codes.iter().map(|code| number(code)).collect::<Result<_, _>>()?,
    })
}

/// `delay=2 period=3 failures=3 burst=1 grace=4`.
fn probe(text: &str) -> Result<Probe, String> {
    let numbers = numbers(text.split_whitespace())?;
    let get = |key, default| numbers.get(key).copied().unwrap_or(default);
    let known = Probe::default();
    Ok(Probe {
        initial_delay_s: get("delay", 0),
        period_s: get("period", known.period_s),
        timeout_s: get("timeout", known.timeout_s),
        failure_threshold: get("failures", known.failure_threshold),
        success_threshold: get("successes", 1),
        burst: get("burst", 0) > 0,
        grace_s: numbers.get("grace").copied(),
    })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number that fits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pod_is_refused_with_a_reason() {
        for (text, why) in [
            ("Sometimes; main app", "\"Sometimes\" is no restart policy"),
            ("Always; sidecar log", "a pod has a main"),
            ("Always; app", "\"app\" is no container"),
            ("Always; main app startup(period)", "\"period\" has no value"),
            ("Always; main app rules(restart)", "\"restart\" is no rule"),
            ("Always; main app rules(restart within 1)", "in or not-in, not \"within\""),
        ] {
            let refused = read(text, "p", "u").expect_err(text);
            assert!(refused.contains(why), "{text}: {refused}");
        }
        let pod = read("Never gate=a gate=b delay-max=7; main app", "p", "u").expect("a pod");
        assert_eq!((pod.gates.len(), pod.restart_delay_max_s), (2, 7));
    }
}
