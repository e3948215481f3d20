//! `seccompProfile: {type: Localhost}`: a profile of the user's, in the form of the OCI runtime
//! specification ("Seccomp"), compiled to BPF.
//!
//! Read strictly: what is not understood is refused, because leaving it out could widen the profile
//! (docker's own `includes` and `excludes`, for one). Names of calls that this architecture does not
//! have are passed over, as by other runtimes. A call of a foreign architecture (32-bit programs on a
//! 64-bit kernel) is unknown, whatever `architectures` says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::program::{self, Instruction, Step};
use super::{Filter, table};

/// The largest profile that is read, in bytes; docker's default has 15 KiB.
const MAX_BYTES: u64 = 1 << 20;
/// The kernel's `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read the seccomp profile {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not a profile of the OCI runtime specification.
    #[error("{} is no seccomp profile that podshim understands", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// It asks for something that is not done.
    #[error("seccomp profile {}: {what}", path.display())]
    Unsupported {
        /// Which.
        path: PathBuf,
        /// What it asks for.
        what: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: Action,
    default_errno_ret: Option<u32>,
    #[serde(default, rename = "architectures")]
    _architectures: IgnoredAny,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: Action,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Condition>,
    #[serde(default, rename = "comment")]
    _comment: IgnoredAny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
}

impl Action {
    /// The filter's return value (seccomp(2)).
    fn verdict(self, errno: Option<u32>) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno => {
                let errno = errno.unwrap_or(libc::EPERM.unsigned_abs());
                libc::SECCOMP_RET_ERRNO | (errno & libc::SECCOMP_RET_DATA)
            }
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Log => libc::SECCOMP_RET_LOG,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// One way to a verdict: all conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    conditions: Vec<Condition>,
    verdict: u32,
}

/// Reads and compiles a profile.
///
/// # Errors
/// [`ProfileError`].
pub fn load(path: &Path) -> Result<Filter, ProfileError> {
    let failed = |source: io::Error| ProfileError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(io::Error::other("it is larger than 1 MiB")));
    }
    let profile: Profile = serde_json::from_slice(&text)
        .map_err(|source| ProfileError::Parse { path: path.into(), source })?;
    compile(&profile).map_err(|what| ProfileError::Unsupported { path: path.into(), what })
}

fn compile(profile: &Profile) -> Result<Filter, String> {
    // These change nothing of what is allowed; others would.
    const HARMLESS: [&str; 3] =
        ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
    if let Some(flag) = profile.flags.iter().find(|flag| !HARMLESS.contains(&flag.as_str())) {
        return Err(format!("the flag {flag} is not supported"));
    }
    let default = profile.default_action.verdict(profile.default_errno_ret);
    let mut calls: BTreeMap<u32, Vec<Clause>> = BTreeMap::new();
    for rule in &profile.syscalls {
        let verdict = rule.action.verdict(rule.errno_ret);
        for name in &rule.names {
            if let Some(number) = table::number(name) {
                add(calls.entry(number).or_default(), rule, verdict)
                    .map_err(|what| format!("{name}: {what}"))?;
            }
        }
    }
    let blocks: Vec<(u32, Vec<Instruction>)> =
        calls.into_iter().map(|(number, clauses)| (number, block(&clauses, default))).collect();
    let program = program::of_blocks(&blocks, &[program::give(default)]);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(format!(
            "it becomes {} instructions, and the kernel takes {MAX_INSTRUCTIONS}",
            program.len()
        ));
    }
    Ok(Filter(program))
}

fn add(clauses: &mut Vec<Clause>, rule: &Rule, verdict: u32) -> Result<(), String> {
    if let Some(wrong) = rule.args.iter().find(|condition| condition.index > 5) {
        return Err(format!("a call has the arguments 0 to 5, not {}", wrong.index));
    }
    let mut indexes: Vec<u32> = rule.args.iter().map(|condition| condition.index).collect();
    indexes.sort_unstable();
    // As runc has it: conditions on one argument twice are alternatives.
    let are_alternatives = indexes.windows(2).any(|pair| pair[0] == pair[1]);
    let new: Vec<Vec<Condition>> = if are_alternatives {
        rule.args.iter().map(|condition| vec![*condition]).collect()
    } else {
        vec![rule.args.clone()]
    };
    for conditions in new {
        let same = clauses.iter().find(|known| known.conditions == conditions);
        if same.is_some_and(|known| known.verdict != verdict) {
            return Err("two rules with the same conditions say different things".into());
        }
        clauses.push(Clause { conditions, verdict });
    }
    // What holds without conditions holds whatever the others say (libseccomp).
    if let Some(always) = clauses.iter().find(|clause| clause.conditions.is_empty()).cloned() {
        *clauses = vec![always];
    }
    Ok(())
}

/// The first clause that holds decides, else the default.
fn block(clauses: &[Clause], default: u32) -> Vec<Instruction> {
    let mut block = Vec::new();
    for clause in clauses {
        let mut steps: Vec<Step> = Vec::new();
        for condition in &clause.conditions {
            steps.extend(condition.steps());
        }
        block.extend(program::guarded(&steps, clause.verdict));
    }
    if clauses.last().is_none_or(|clause| !clause.conditions.is_empty()) {
        block.push(program::give(default));
    }
    block
}

impl Condition {
    /// Compares a 64-bit argument by its halves.
    fn steps(self) -> Vec<Step> {
        use Step::{And, Equal, EqualElseFail, EqualElseHolds, Greater, GreaterOrEqual};
        use Step::{Load, NotEqual, NotGreater, NotGreaterOrEqual};
        let (high, low) = program::argument(self.index);
        let halves = |value: u64| ((value >> 32) as u32, value as u32);
        let (value_high, value_low) = halves(self.value);
        let (two_high, two_low) = halves(self.value_two);
        match self.op {
            Operator::Equal => {
                vec![Load(high), EqualElseFail(value_high), Load(low), Equal(value_low)]
            }
            Operator::NotEqual => {
                vec![Load(high), EqualElseHolds(value_high), Load(low), NotEqual(value_low)]
            }
            Operator::MaskedEqual => vec![
                Load(high),
                And(value_high),
                EqualElseFail(two_high),
                Load(low),
                And(value_low),
                Equal(two_low),
            ],
            Operator::Greater => {
                vec![Load(high), Step::Compare(value_high), Load(low), Greater(value_low)]
            }
            Operator::GreaterOrEqual => {
                vec![Load(high), Step::Compare(value_high), Load(low), GreaterOrEqual(value_low)]
            }
            Operator::Less => {
                vec![
                    Load(high),
                    Step::CompareLess(value_high),
                    Load(low),
                    NotGreaterOrEqual(value_low),
                ]
            }
            Operator::LessOrEqual => {
                vec![Load(high), Step::CompareLess(value_high), Load(low), NotGreater(value_low)]
            }
        }
    }
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
