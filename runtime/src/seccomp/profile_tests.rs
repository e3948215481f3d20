//! Profiles, compiled and evaluated.

use super::super::program::{ARCHITECTURE, NATIVE, NUMBER};
use super::*;

/// Evaluates a program of classic BPF as the kernel does.
fn evaluate(filter: &Filter, name: &str, arguments: [u64; 6]) -> u32 {
    let number = table::number(name).expect(name);
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let i = filter.0[at];
        at += 1;
        let mut jump = |taken: bool| at += usize::from(if taken { i.if_true } else { i.if_false });
        match i.code {
            program::LOAD => {
                a = match i.k {
                    NUMBER => number,
                    ARCHITECTURE => NATIVE,
                    place => (0..6)
                        .find_map(|index| {
                            let (high, low) = program::argument(index);
                            let value = arguments[index as usize];
                            (place == high)
                                .then_some((value >> 32) as u32)
                                .or((place == low).then_some(value as u32))
                        })
                        .expect("an argument"),
                }
            }
            program::AND => a &= i.k,
            program::JUMP => at += i.k as usize,
            program::IF_EQUAL => jump(a == i.k),
            program::IF_GREATER => jump(a > i.k),
            program::IF_AT_LEAST => jump(a >= i.k),
            program::RETURN => return i.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

fn compiled(text: &str) -> Result<Filter, String> {
    let profile: Profile = serde_json::from_str(text).map_err(|e| e.to_string())?;
    compile(&profile)
}

fn with_rules(rules: &str) -> String {
    format!("{{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"syscalls\": [{rules}]}}")
}

const DENIED: u32 = libc::SECCOMP_RET_ERRNO | 1;
const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;

#[test]
fn each_call_has_the_verdict_of_its_rule_and_others_the_default() {
    let filter = compiled(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls": [
              {"names": ["read", "write", "no_such_call", "chown32"], "action": "SCMP_ACT_ALLOW"},
              {"names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS", "comment": "never"},
              {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
              {"names": ["ptrace"], "action": "SCMP_ACT_LOG"},
              {"names": ["bpf"], "action": "SCMP_ACT_TRAP"}]}"#,
    )
    .expect("a profile");
    for (name, verdict) in [
        ("read", ALLOWED),
        ("write", ALLOWED),
        ("reboot", libc::SECCOMP_RET_KILL_PROCESS),
        ("mount", libc::SECCOMP_RET_ERRNO | 13),
        ("ptrace", libc::SECCOMP_RET_LOG),
        ("bpf", libc::SECCOMP_RET_TRAP),
        ("openat", libc::SECCOMP_RET_ERRNO | 38),
        ("socket", libc::SECCOMP_RET_ERRNO | 38),
    ] {
        assert_eq!(evaluate(&filter, name, [0; 6]), verdict, "{name}");
    }
}

#[test]
fn arguments_are_compared_with_all_their_64_bits() {
    let wide = 0x1_0000_0005_u64;
    let values = [0, 4, 5, 6, wide - 1, wide, wide + 1, u64::MAX, 0x2_0000_0000, 0x1_0000_0000];
    for (op, holds) in [
        ("EQ", (|a, v| a == v) as fn(u64, u64) -> bool),
        ("NE", |a, v| a != v),
        ("LT", |a, v| a < v),
        ("LE", |a, v| a <= v),
        ("GT", |a, v| a > v),
        ("GE", |a, v| a >= v),
    ] {
        for value in values {
            let rule = format!(
                "{{\"names\": [\"read\"], \"action\": \"SCMP_ACT_ALLOW\",
                   \"args\": [{{\"index\": 5, \"value\": {value}, \"op\": \"SCMP_CMP_{op}\"}}]}}"
            );
            let filter = compiled(&with_rules(&rule)).expect(op);
            for argument in values {
                let verdict = evaluate(&filter, "read", [9, 9, 9, 9, 9, argument]);
                assert_eq!(verdict == ALLOWED, holds(argument, value), "{argument} {op} {value}");
            }
        }
    }
    let masked = r#"{"names": ["clone"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}"#;
    let filter = compiled(&with_rules(masked)).expect("masked");
    assert_eq!(evaluate(&filter, "clone", [0x11, 0, 0, 0, 0, 0]), ALLOWED);
    assert_eq!(evaluate(&filter, "clone", [0x1000_0000, 0, 0, 0, 0, 0]), DENIED);
}

#[test]
fn all_conditions_of_a_rule_must_hold_and_rules_are_alternatives() {
    let equal = |index: u32, value: u32| {
        format!("{{\"index\": {index}, \"value\": {value}, \"op\": \"SCMP_CMP_EQ\"}}")
    };
    let rule = |args: &str| {
        format!("{{\"names\": [\"socket\"], \"action\": \"SCMP_ACT_ALLOW\", \"args\": [{args}]}}")
    };
    let both = rule(&format!("{}, {}", equal(0, 1), equal(1, 2)));
    let filter = compiled(&with_rules(&format!("{both}, {}", rule(&equal(0, 7))))).expect("rules");
    for (first, second, verdict) in
        [(1, 2, ALLOWED), (1, 3, DENIED), (2, 2, DENIED), (7, 0, ALLOWED)]
    {
        assert_eq!(evaluate(&filter, "socket", [first, second, 0, 0, 0, 0]), verdict);
    }
    // One argument twice: alternatives, as runc has it.
    let twice = rule(&format!("{}, {}", equal(0, 1), equal(0, 2)));
    let filter = compiled(&with_rules(&twice)).expect("rules");
    for (first, verdict) in [(1, ALLOWED), (2, ALLOWED), (3, DENIED)] {
        assert_eq!(evaluate(&filter, "socket", [first, 0, 0, 0, 0, 0]), verdict);
    }
    // What holds without conditions holds.
    let always = r#"{"names": ["socket"], "action": "SCMP_ACT_ALLOW"}"#;
    let filter = compiled(&with_rules(&format!("{both}, {always}"))).expect("rules");
    assert_eq!(evaluate(&filter, "socket", [9; 6]), ALLOWED);
}

#[test]
fn what_is_not_understood_is_refused() {
    for (text, said) in [
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "unknown variant"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#, "unknown field"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
            "not supported",
        ),
        ("{}", "missing field"),
    ] {
        let error = compiled(text).expect_err(text);
        assert!(error.contains(said), "{error}");
    }
    for (rule, said) in [
        (
            r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}}"#,
            "unknown field",
        ),
        (
            r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#,
            "0 to 5",
        ),
        (
            r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW"}, {"names": ["read"], "action": "SCMP_ACT_TRAP"}"#,
            "different things",
        ),
    ] {
        let error = compiled(&with_rules(rule)).expect_err(rule);
        assert!(error.contains(said), "{error}");
    }
}
