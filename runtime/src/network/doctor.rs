//! What a host's own firewall means for pods, told without changing anything.

use super::cidr::CANDIDATES;
use super::firewall::foreign::{self, Opening};
use super::program::{Program, ProgramError};

/// Whether `nft` is there and the kernel understands it.
///
/// # Errors
/// [`ProgramError`].
pub fn nft_works() -> Result<(), ProgramError> {
    Program::nft()?.ask("list the tables", &["list", "tables"]).map(drop)
}

/// What other firewalls do to packets of pods, a sentence each: what podshim will add to let them
/// through, or what it cannot.
///
/// # Errors
/// [`ProgramError`] if the rules cannot be listed.
pub fn other_firewalls() -> Result<Vec<String>, ProgramError> {
    let plan = foreign::plan(&foreign::look()?, CANDIDATES[0]);
    let opened = plan.openings.into_iter().map(|opening| match opening {
        Opening::Nft { family, table, chain } => format!(
            "the chain {chain} of the nft table {family} {table} drops what is forwarded; the first \
             pod adds a rule there that lets pods through, with the comment podshim"
        ),
        Opening::Iptables { program, chain } => format!(
            "{} drops what is forwarded; the first pod adds a rule to {chain} that lets pods through, \
             with the comment podshim",
            program.display()
        ),
        Opening::Firewalld { .. } => "firewalld drops what is forwarded; the first pod adds the pods' \
             addresses to its zone trusted"
            .to_owned(),
    });
    Ok(opened.chain(plan.obstacles).collect())
}
