//! The compiled filter, evaluated for every number by an interpreter of classic BPF, and loaded
//! into a real process.

use std::collections::BTreeMap;

use super::program::{
    ALLOW, ARCHITECTURE, ENOSYS, EPERM, FIRST_ARGUMENT, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL,
    Instruction, JUMP, LOAD, NATIVE, NUMBER, RETURN, X32,
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
                    other => panic!("loads from {other}"),
                }
            }
            JUMP => at += i.k as usize,
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
