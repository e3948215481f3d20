//! What is said of containers and users, clause by clause.

use plan::{Hook, Kind, ProbeKind};

use super::{
    Answers, Behaviour, HookRun, Life, Scenario, ToContainer, UserAct, UserDeed, milliseconds,
    number,
};

/// As many attempts as no scenario lives to see.
const FOR_EVER: u32 = u32::MAX;

impl Scenario {
    /// Takes in a line between the pod and what must come of it.
    pub(super) fn told(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (after, what) = match words[..] {
            ["delete", "after", time] => (time, UserAct::Delete { grace_s: None }),
            ["delete", "after", time, grace] => {
                let grace = grace.strip_prefix("grace=").ok_or("grace=SECONDS is expected")?;
                (time, UserAct::Delete { grace_s: Some(number(grace)?) })
            }
            [verb @ ("reboot" | "lose-power"), "after", time] => {
                (time, UserAct::Reboot { notice: verb == "reboot" })
            }
            [verb, name, "after", time] if deed(verb).is_some() => {
                self.index(name)?;
                let container = name.to_owned();
                (time, deed(verb).map(|deed| UserAct::To { container, deed }).ok_or("a deed")?)
            }
            _ => return self.behaves(line),
        };
        self.deeds.push(UserDeed { after_ms: milliseconds(after)?, what });
        Ok(())
    }

    fn behaves(&mut self, line: &str) -> Result<(), String> {
        let (name, text) =
            line.split_once(':').ok_or("a container or a user's deed is expected")?;
        let c = self.index(name)?;
        let is_init = self.pod.containers[c].kind == Kind::Init;
        let behaviour = self.behaviours.entry(c).or_default();
        for clause in text.split(',').map(str::trim) {
            behaviour.clause(clause)?;
        }
        if is_init && behaviour.lives.is_empty() {
            return Err("an init container has to end by itself: exits CODE after TIME".into());
        }
        Ok(())
    }

    pub(super) fn index(&self, name: &str) -> Result<usize, String> {
        let found = self.pod.containers.iter().position(|c| c.name == name);
        found.ok_or_else(|| format!("there is no container {name:?}"))
    }
}

impl Behaviour {
    fn clause(&mut self, clause: &str) -> Result<(), String> {
        let words: Vec<&str> = clause.split_whitespace().collect();
        if words.as_slice() == ["ignores", "its", "signal"] {
            self.ignores_signal = true;
        } else if let Some((kind, rest)) =
            words.split_first().and_then(|(w, r)| Some((probe(w)?, r)))
        {
            self.probes.insert(kind, answers(rest)?);
        } else if let Some((hook, rest)) =
            words.split_first().and_then(|(w, r)| Some((hook(w)?, r)))
        {
            self.hooks.insert(hook, hook_run(rest)?);
        } else {
            self.lives = clause.split(';').map(life).collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

fn deed(word: &str) -> Option<ToContainer> {
    [ToContainer::Restart, ToContainer::Change, ToContainer::Stop, ToContainer::Start]
        .into_iter()
        .find(|deed| deed.word() == word)
}

fn probe(word: &str) -> Option<ProbeKind> {
    Some(match word {
        "startup" => ProbeKind::Startup,
        "readiness" => ProbeKind::Readiness,
        "liveness" => ProbeKind::Liveness,
        _ => return None,
    })
}

fn hook(word: &str) -> Option<Hook> {
    Some(match word {
        "post-start" => Hook::PostStart,
        "pre-stop" => Hook::PreStop,
        _ => return None,
    })
}

fn answers(words: &[&str]) -> Result<Answers, String> {
    let (verb, count) = match words {
        [verb, "for", "ever"] => (*verb, FOR_EVER),
        [verb, count, "times" | "time"] => (*verb, number(count)?),
        _ => return Err("`fails|succeeds N times` or `fails for ever` is expected".into()),
    };
    match verb {
        "succeeds" => Ok(Answers { first: count, first_succeed: true }),
        "fails" => Ok(Answers { first: count, first_succeed: false }),
        _ => Err("a probe fails or succeeds".into()),
    }
}

fn hook_run(words: &[&str]) -> Result<HookRun, String> {
    match words {
        ["takes", time] => Ok(HookRun { takes_ms: milliseconds(time)?, fails: false }),
        ["fails"] => Ok(HookRun { takes_ms: 0, fails: true }),
        ["fails", "after", time] => Ok(HookRun { takes_ms: milliseconds(time)?, fails: true }),
        _ => Err("a hook `takes TIME` or `fails`".into()),
    }
}

fn life(text: &str) -> Result<Life, String> {
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["runs"] => Ok(Life::Runs),
        ["exits", code, "after", time] => {
            Ok(Life::Exits { code: number(code)?, after_ms: milliseconds(time)? })
        }
        _ => Err(format!("nobody knows what {text:?} means")),
    }
}
