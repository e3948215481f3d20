//! System call filters: the default profile, compiled to BPF by ourselves.
//!
//! A profile is a decision for each number: allow, refuse with EPERM (known, and not for
//! containers), or answer ENOSYS (a number that the profile does not know, so that programs fall
//! back to what they know). Equal decisions of neighbouring numbers are one range; a binary search
//! over the ranges makes about eight comparisons a call. It is compiled once a pod in a fraction of
//! a millisecond and given to forked creators as it is; no library, no file.
//!
//! A profile of the user's is compiled the same way ([`profile`]). Nothing loads itself: [`load`] is called by the
//! container's process right before its program.

pub mod oci;
pub mod profile;
mod program;
mod table;

use std::io;

use bundles::capability::CapSet;
use program::{Decision, Rule};

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Vec<program::Instruction>);

/// A filter that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("cannot install a system call filter of {length} instructions")]
pub struct SeccompError {
    length: usize,
    #[source]
    source: io::Error,
}

/// `SeccompProfile` `RuntimeDefault` for a container with these capabilities.
#[must_use]
pub fn runtime_default(capabilities: CapSet) -> Filter {
    Filter(program::compile(&decisions(capabilities)))
}

/// Installs the filter on the calling thread, for good. It takes CAP_SYS_ADMIN or no_new_privs.
///
/// # Errors
/// [`SeccompError`].
pub fn load(filter: &Filter) -> Result<(), SeccompError> {
    let instructions: Vec<libc::sock_filter> = filter.0.iter().map(|i| i.to_kernel()).collect();
    crate::sys::seccomp::set_filter(&instructions)
        .map_err(|source| SeccompError { length: instructions.len(), source })
}

/// What becomes of each known number, in their order.
fn decisions(capabilities: CapSet) -> Vec<(u32, Rule)> {
    let held = capabilities.names();
    let holds = |name: &str| held.iter().any(|held| held == name);
    let gated = |call: &str| {
        table::BY_CAPABILITY
            .iter()
            .any(|(capability, calls)| holds(capability) && calls.contains(&call))
    };
    let mut rules = Vec::new();
    for (_, number) in
        [table::ALLOWED, table::ALLOWED_NEW, table::ALLOWED_HERE].into_iter().flatten()
    {
        rules.push((*number, Rule::Always(Decision::Allow)));
    }
    for (name, number) in [table::BLOCKED, table::BLOCKED_HERE].into_iter().flatten() {
        let decision = if gated(name) { Decision::Allow } else { Decision::Refuse };
        rules.push((*number, Rule::Always(decision)));
    }
    let admin = holds("CAP_SYS_ADMIN");
    let always = |decision| Rule::Always(decision);
    rules.push((
        libc::SYS_clone,
        if admin { always(Decision::Allow) } else { Rule::NoneOf(NAMESPACE_FLAGS) },
    ));
    // Its flags are behind a pointer, which a filter cannot follow: programs fall back to clone.
    rules.push((libc::SYS_clone3, always(if admin { Decision::Allow } else { Decision::Unknown })));
    rules.push((libc::SYS_personality, Rule::OneOf(&PERSONALITIES)));
    rules.push((libc::SYS_socket, Rule::Neither(&FORBIDDEN_FAMILIES)));
    let mut rules: Vec<(u32, Rule)> = rules
        .into_iter()
        .filter_map(|(number, rule)| Some((u32::try_from(number).ok()?, rule)))
        .collect();
    rules.sort_by_key(|(number, _)| *number);
    rules
}

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// PER_LINUX, PER_LINUX32, both with UNAME26, and the question (personality(2)).
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// AF_ALG, AF_VSOCK.
const FORBIDDEN_FAMILIES: [u32; 2] = [38, 40];

#[cfg(test)]
mod tests;
