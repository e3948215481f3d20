//! The compiled filter, evaluated for every number by an interpreter of classic BPF, and loaded
//! into a real process.

use std::collections::BTreeMap;

use super::program::{
    ALLOW, AND, ARCHITECTURE, ENOSYS, EPERM, FIRST_ARGUMENT, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL,
    IF_GREATER, Instruction, JUMP, LOAD, NATIVE, NUMBER, RETURN, X32,
};
use super::*;

struct Data {
    number: u32,
    architecture: u32,
    argument: u32,
}

fn evaluate(program: &[Instruction], data: &Data) -> u32 {
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let i = program[at];
        at += 1;
        let mut jump = |taken: bool| at += usize::from(if taken { i.if_true } else { i.if_false });
        match i.code {
            LOAD => {
                a = match i.k {
                    NUMBER => data.number,
                    ARCHITECTURE => data.architecture,
                    FIRST_ARGUMENT => data.argument,
                    // Its upper half.
                    place if place == program::argument(0).0 => 0,
                    other => panic!("loads from {other}"),
                }
            }
            JUMP => at += i.k as usize,
            AND => a &= i.k,
            IF_GREATER => jump(a > i.k),
            IF_EQUAL => jump(a == i.k),
            IF_AT_LEAST => jump(a >= i.k),
            IF_ANY_BIT => jump(a & i.k != 0),
            RETURN => return i.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

fn of(filter: &Filter, number: libc::c_long, argument: u32) -> u32 {
    let number = u32::try_from(number).unwrap();
    evaluate(&filter.0, &Data { number, architecture: NATIVE, argument })
}

#[test]
fn every_number_has_the_verdict_of_the_lists_for_every_set_of_capabilities() {
    for capabilities in [CapSet::DEFAULT, CapSet::EMPTY, CapSet::ALL, CapSet::SYS_ADMIN] {
        let filter = runtime_default(capabilities);
        let held = capabilities.names();
        let gated = |name: &str| {
            table::BY_CAPABILITY
                .iter()
                .any(|(cap, calls)| held.iter().any(|h| h == cap) && calls.contains(&name))
        };
        let mut expected = BTreeMap::new();
        for (_, n) in
            [table::ALLOWED, table::ALLOWED_NEW, table::ALLOWED_HERE].into_iter().flatten()
        {
            assert_eq!(expected.insert(*n, ALLOW), None, "{n} stands twice");
        }
        for (name, n) in [table::BLOCKED, table::BLOCKED_HERE].into_iter().flatten() {
            let verdict = if gated(name) { ALLOW } else { EPERM };
            assert_eq!(expected.insert(*n, verdict), None, "{name} stands twice");
        }
        let by_argument =
            [libc::SYS_clone, libc::SYS_clone3, libc::SYS_personality, libc::SYS_socket];
        for number in 0..700 {
            if !by_argument.contains(&number) {
                let wanted = expected.get(&number).copied().unwrap_or(ENOSYS);
                assert_eq!(of(&filter, number, 0), wanted, "{number} with {held:?}");
            }
        }
        assert!(filter.0.len() < 800, "{} instructions", filter.0.len());
    }
}

#[test]
fn arguments_decide_where_the_profile_says_so() {
    let filter = runtime_default(CapSet::DEFAULT);
    for flag in
        [0x2_0000_u32, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
    {
        assert_eq!(of(&filter, libc::SYS_clone, flag | 17), EPERM, "{flag:#x}");
    }
    assert_eq!(of(&filter, libc::SYS_clone, 17), ALLOW);
    assert_eq!(of(&filter, libc::SYS_clone3, 0), ENOSYS);
    for (family, verdict) in [(1, ALLOW), (2, ALLOW), (16, ALLOW), (38, EPERM), (40, EPERM)] {
        assert_eq!(of(&filter, libc::SYS_socket, family), verdict, "family {family}");
    }
    for (persona, verdict) in [(0, ALLOW), (8, ALLOW), (0xffff_ffff, ALLOW), (0x4_0000, EPERM)] {
        assert_eq!(of(&filter, libc::SYS_personality, persona), verdict, "{persona:#x}");
    }
    let admin = runtime_default(CapSet::SYS_ADMIN);
    assert_eq!(of(&admin, libc::SYS_clone, 0x2_0000), ALLOW);
    assert_eq!(of(&admin, libc::SYS_clone3, 0), ALLOW);
}

#[test]
fn other_architectures_have_no_calls_at_all() {
    let filter = runtime_default(CapSet::ALL);
    let i386 = Data { number: 4, architecture: 0x4000_0003, argument: 0 };
    assert_eq!(evaluate(&filter.0, &i386), ENOSYS);
    if cfg!(target_arch = "x86_64") {
        let x32 = Data { number: X32 | 1, architecture: NATIVE, argument: 0 };
        assert_eq!(evaluate(&filter.0, &x32), ENOSYS);
    }
}

#[test]
fn a_profile_knows_the_calls_that_programs_need_and_not_those_that_escape() {
    let filter = runtime_default(CapSet::DEFAULT);
    for call in
        [libc::SYS_read, libc::SYS_execve, libc::SYS_chroot, libc::SYS_prctl, libc::SYS_capset]
    {
        assert_eq!(of(&filter, call, 0), ALLOW, "{call}");
    }
    for call in
        [libc::SYS_mount, libc::SYS_unshare, libc::SYS_setns, libc::SYS_bpf, libc::SYS_keyctl]
    {
        assert_eq!(of(&filter, call, 0), EPERM, "{call}");
    }
}

/// Read back as a profile of the user's, it decides as the one that we load.
#[test]
fn the_profile_for_other_runtimes_decides_as_ours() {
    let temp = tempfile::tempdir().unwrap();
    for capabilities in [CapSet::DEFAULT, CapSet::EMPTY, CapSet::ALL, CapSet::SYS_ADMIN] {
        let described = serde_json::to_vec(&oci::described(capabilities).unwrap()).unwrap();
        let path = temp.path().join("profile.json");
        std::fs::write(&path, described).unwrap();
        let theirs = profile::load(&path).unwrap();
        let ours = runtime_default(capabilities);
        for number in 0..700 {
            // Values around each one that a rule speaks of, and each flag of clone alone.
            let flags = (0..32).map(|bit| 1 << bit);
            let arguments = (0..64).chain(flags).chain([0x2_0008, 0x2_0009, u32::MAX, 0x7e02_0011]);
            for argument in arguments {
                let verdict = of(&ours, number, argument);
                let known = number == libc::SYS_personality && verdict == EPERM;
                let verdict = if known { ENOSYS } else { verdict };
                assert_eq!(of(&theirs, number, argument), verdict, "{number} {argument:#x}");
            }
        }
    }
}
