//! The default profile as the OCI runtime specification writes it, for other runtimes: the decisions
//! that the filter is compiled from, by the calls' names.
//!
//! One thing cannot be said there: a personality that is not allowed gives ENOSYS, and not EPERM,
//! because libseccomp takes no rule for "none of these values".

use std::collections::BTreeMap;

use bundles::capability::CapSet;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use super::program::{Decision, Rule};
use super::{decisions, table};

/// The default profile for a container with these capabilities.
///
/// # Errors
/// That the OCI types refuse a value.
pub fn described(capabilities: CapSet) -> Result<LinuxSeccomp, OciSpecError> {
    let mut whole: BTreeMap<bool, Vec<String>> = BTreeMap::new();
    let mut calls = Vec::new();
    for (number, rule) in decisions(capabilities) {
        let Some(name) = table::name(number) else { continue };
        let mut on = |verdict, conditions: &[Condition]| -> Result<(), OciSpecError> {
            for condition in conditions {
                calls.push(call(vec![name.to_owned()], verdict, Some(argument(*condition)?))?);
            }
            Ok(())
        };
        match rule {
            Rule::Always(Decision::Allow) => whole.entry(true).or_default().push(name.to_owned()),
            Rule::Always(Decision::Refuse) => whole.entry(false).or_default().push(name.to_owned()),
            // The default.
            Rule::Always(Decision::Unknown) => {}
            Rule::NoneOf(bits) => {
                on(true, &[Condition::Bits { of: bits, are: 0 }])?;
                let each = (0..u32::BITS).map(|n| 1 << n).filter(|bit| bits & bit != 0);
                let each: Vec<_> = each.map(|bit| Condition::Bits { of: bit, are: bit }).collect();
                on(false, &each)?;
            }
            Rule::OneOf(values) => {
                let each: Vec<_> = values.iter().map(|v| Condition::Is(*v)).collect();
                on(true, &each)?;
            }
            Rule::Neither(values) => {
                let each: Vec<_> = values.iter().map(|v| Condition::Is(*v)).collect();
                on(false, &each)?;
                on(true, &around(values))?;
            }
        }
    }
    for (allowed, names) in whole {
        calls.push(call(names, allowed, None)?);
    }
    let arch =
        if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 };
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::ENOSYS.unsigned_abs())
        .architectures(vec![arch])
        .syscalls(calls)
        .build()
}

/// What the first argument must be.
#[derive(Clone, Copy)]
enum Condition {
    Is(u32),
    Below(u32),
    Above(u32),
    Bits { of: u32, are: u32 },
}

/// All values but these, which are in order and at most two apart from each other: one condition an
/// argument is all that runtimes take.
fn around(values: &[u32]) -> Vec<Condition> {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return Vec::new() };
    let between = (*first..*last).filter(|value| !values.contains(value)).map(Condition::Is);
    [Condition::Below(*first), Condition::Above(*last)].into_iter().chain(between).collect()
}

fn argument(condition: Condition) -> Result<LinuxSeccompArg, OciSpecError> {
    let (op, value, more) = match condition {
        Condition::Is(value) => (LinuxSeccompOperator::ScmpCmpEq, value, None),
        Condition::Below(value) => (LinuxSeccompOperator::ScmpCmpLt, value, None),
        Condition::Above(value) => (LinuxSeccompOperator::ScmpCmpGt, value, None),
        Condition::Bits { of, are } => (LinuxSeccompOperator::ScmpCmpMaskedEq, of, Some(are)),
    };
    let mut argument =
        LinuxSeccompArgBuilder::default().index(0_usize).value(u64::from(value)).op(op);
    if let Some(more) = more {
        argument = argument.value_two(u64::from(more));
    }
    argument.build()
}

fn call(
    names: Vec<String>,
    allowed: bool,
    argument: Option<LinuxSeccompArg>,
) -> Result<LinuxSyscall, OciSpecError> {
    let (action, errno) = if allowed {
        (LinuxSeccompAction::ScmpActAllow, None)
    } else {
        (LinuxSeccompAction::ScmpActErrno, Some(libc::EPERM.unsigned_abs()))
    };
    let mut call = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        call = call.errno_ret(errno);
    }
    if let Some(argument) = argument {
        call = call.args(vec![argument]);
    }
    call.build()
}
