//! Waiting for what the daemon has: jobs, deployments, and pods that may end meanwhile and stay.

use anyhow::Context;
use bundles::layout::Layout;

use super::condition::Condition;
use super::{LOOK, Wait, WaitArgs};
use crate::cli::api::Api;
use crate::cli::daemon::kind_of;
use crate::cli::one_line;
use crate::daemon::store::Kind;

/// What a command line names of the daemon's: the kind, and the names.
pub struct Kept {
    api: Api,
    kind: Kind,
    names: Vec<String>,
}

/// `None` if pods are meant that no daemon has.
pub fn find(layout: &Layout, args: &WaitArgs) -> anyhow::Result<Option<Kept>> {
    let split =
        |text: &String| text.split_once('/').map(|(word, name)| (word.to_owned(), name.to_owned()));
    let (word, names): (String, Vec<String>) = match &args.pods[..] {
        [first, rest @ ..] if kind_of(first).is_some_and(|kind| kind != Kind::Pod) => {
            (first.clone(), rest.to_vec())
        }
        all => match all.iter().map(split).collect::<Option<Vec<_>>>() {
            Some(pairs) if !pairs.is_empty() => {
                let word = pairs[0].0.clone();
                anyhow::ensure!(
                    pairs.iter().all(|(other, _)| *other == word),
                    "objects of one kind are waited for at a time"
                );
                (word, pairs.into_iter().map(|(_, name)| name).collect())
            }
            _ => return of_pods(layout, args),
        },
    };
    let kind = kind_of(&word).with_context(|| format!("podshim has no {word:?}"))?;
    anyhow::ensure!(!names.is_empty(), "which {word}? write `wait {word} NAME`");
    Ok(Some(Kept { api: Api::of(layout)?, kind, names }))
}

fn of_pods(layout: &Layout, args: &WaitArgs) -> anyhow::Result<Option<Kept>> {
    let names = super::names(args)?.to_vec();
    let Some(api) = Api::find(layout)?.filter(|_| !names.is_empty()) else { return Ok(None) };
    for name in &names {
        if api.get(Kind::Pod, &args.namespace, name)?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(Kept { api, kind: Kind::Pod, names }))
}

impl Wait<'_> {
    /// Looks until each fulfils the condition.
    pub(super) fn until_kept(&mut self, namespace: &str, kept: Kept) -> anyhow::Result<()> {
        let Kept { api, kind, names } = kept;
        let plural = kind.plural();
        let mut missing = names;
        loop {
            let mut still = Vec::new();
            for name in missing {
                let met = match (api.get(kind, namespace, &name)?, self.condition) {
                    (None, Condition::Delete) => true,
                    (None, Condition::Create) => false,
                    (None, _) => {
                        self.error(&format!("{plural} {name:?} not found"));
                        continue;
                    }
                    (Some(object), condition) => match condition.is_met(&object) {
                        Ok(met) => met,
                        Err(e) => {
                            self.error(&format!("{plural}/{name}: {}", one_line(&e)));
                            continue;
                        }
                    },
                };
                if met {
                    let word = crate::cli::daemon::word(kind);
                    self.output.line(format_args!("{word}/{name} condition met"));
                } else {
                    still.push(name);
                }
            }
            missing = still;
            let left = self.left();
            if missing.is_empty() || left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LOOK));
        }
        for name in missing {
            self.error(&format!("timed out waiting for the condition on {plural}/{name}"));
        }
        Ok(())
    }
}
