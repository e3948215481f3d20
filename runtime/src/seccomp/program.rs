//! From decisions to a BPF program (seccomp(2), "struct seccomp_data"; classic BPF).

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is carried out.
    Allow,
    /// EPERM.
    Refuse,
    /// ENOSYS, as from a kernel that does not have it.
    Unknown,
}

/// What decides on one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The number alone.
    Always(Decision),
    /// Allowed if the first argument has none of these bits.
    NoneOf(u32),
    /// Allowed if the first argument is one of these.
    OneOf(&'static [u32]),
    /// Allowed if the first argument is none of these.
    Neither(&'static [u32]),
}

/// One instruction of classic BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) if_true: u8,
    pub(super) if_false: u8,
    pub(super) k: u32,
}

impl Instruction {
    pub(super) fn to_kernel(self) -> libc::sock_filter {
        libc::sock_filter { code: self.code, jt: self.if_true, jf: self.if_false, k: self.k }
    }
}

pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_AT_LEAST: u16 = 0x35;
pub(super) const IF_ANY_BIT: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;

pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
/// The lower half of the first argument. The calls that are looked at take an `int` there, so the
/// kernel ignores the upper half, and so does the filter: looking at it would let a caller hide a
/// forbidden value behind bits that do not count.
pub(super) const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

/// AUDIT_ARCH_* of the target.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xc000_00b7;
/// x86-64 numbers its 32-bit-pointer calls (x32) from here.
pub(super) const X32: u32 = 0x4000_0000;

pub(super) const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
pub(super) const EPERM: u32 = ERRNO | libc::EPERM.unsigned_abs();
pub(super) const ENOSYS: u32 = ERRNO | libc::ENOSYS.unsigned_abs();

/// `BPF_ALU | BPF_AND | BPF_K`.
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JGT | BPF_K`.
pub(super) const IF_GREATER: u16 = 0x25;

/// Where the halves of an argument are: the upper and the lower one.
pub(super) fn argument(index: u32) -> (u32, u32) {
    let (first, second) = (16 + 8 * index, 20 + 8 * index);
    if cfg!(target_endian = "little") { (second, first) } else { (first, second) }
}

/// A part of a condition on an argument. *Holds* goes on behind the condition, *fails* behind the
/// clause that it is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Loads a half of an argument.
    Load(u32),
    /// Keeps these bits of it.
    And(u32),
    /// Goes on to the next step if it is equal, else fails.
    EqualElseFail(u32),
    /// Goes on to the next step if it is equal, else holds.
    EqualElseHolds(u32),
    /// Holds if it is greater, fails if it is less, else goes on to the next step.
    Compare(u32),
    /// Fails if it is greater, holds if it is less, else goes on to the next step.
    CompareLess(u32),
    /// The last step: holds if it is equal.
    Equal(u32),
    /// The last step: holds if it is not equal.
    NotEqual(u32),
    /// The last step: holds if it is greater.
    Greater(u32),
    /// The last step: holds if it is greater or equal.
    GreaterOrEqual(u32),
    /// The last step: holds if it is not greater.
    NotGreater(u32),
    /// The last step: holds if it is less.
    NotGreaterOrEqual(u32),
}

/// Where a jump of a [`Step`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Next,
    Holds,
    Fails,
}

impl Step {
    /// Its instructions, each with its targets if it is true and if it is not.
    fn lay_out(self) -> Vec<(u16, u32, Target, Target)> {
        use Target::{Fails, Holds, Next};
        match self {
            Step::Load(at) => vec![(LOAD, at, Next, Next)],
            Step::And(bits) => vec![(AND, bits, Next, Next)],
            Step::EqualElseFail(k) => vec![(IF_EQUAL, k, Next, Fails)],
            Step::EqualElseHolds(k) => vec![(IF_EQUAL, k, Next, Holds)],
            Step::Compare(k) => vec![(IF_GREATER, k, Holds, Next), (IF_EQUAL, k, Next, Fails)],
            Step::CompareLess(k) => vec![(IF_GREATER, k, Fails, Next), (IF_EQUAL, k, Next, Holds)],
            Step::Equal(k) => vec![(IF_EQUAL, k, Holds, Fails)],
            Step::NotEqual(k) => vec![(IF_EQUAL, k, Fails, Holds)],
            Step::Greater(k) => vec![(IF_GREATER, k, Holds, Fails)],
            Step::GreaterOrEqual(k) => vec![(IF_AT_LEAST, k, Holds, Fails)],
            Step::NotGreater(k) => vec![(IF_GREATER, k, Fails, Holds)],
            Step::NotGreaterOrEqual(k) => vec![(IF_AT_LEAST, k, Fails, Holds)],
        }
    }

    fn is_last(self) -> bool {
        use Step::{Equal, Greater, GreaterOrEqual, NotEqual, NotGreater, NotGreaterOrEqual};
        matches!(
            self,
            Equal(_)
                | NotEqual(_)
                | Greater(_)
                | GreaterOrEqual(_)
                | NotGreater(_)
                | NotGreaterOrEqual(_)
        )
    }
}

/// A clause: gives `verdict` if all conditions hold, else goes on behind itself. Each condition ends
/// with a last step. A call has six arguments, so that every jump is short.
pub(super) fn guarded(steps: &[Step], verdict: u32) -> Vec<Instruction> {
    // The instructions, and for each the index behind its condition.
    let mut laid = Vec::new();
    let mut begun = 0;
    let mut ends = Vec::new();
    for step in steps {
        laid.extend(step.lay_out());
        if step.is_last() {
            ends.resize(laid.len(), laid.len());
            begun = laid.len();
        }
    }
    debug_assert_eq!(begun, laid.len(), "a condition without an end");
    let behind = laid.len() + 1;
    let mut program = Vec::with_capacity(behind);
    for (at, (code, k, if_true, if_false)) in laid.iter().enumerate() {
        let distance = |target: &Target| {
            let to = match target {
                Target::Next => at + 1,
                Target::Holds => ends[at],
                Target::Fails => behind,
            };
            u8::try_from(to - at - 1).unwrap_or(u8::MAX)
        };
        program.push(branch(*code, *k, distance(if_true), distance(if_false)));
    }
    program.push(give(verdict));
    program
}

/// Ends the program with this value.
pub(super) fn give(value: u32) -> Instruction {
    statement(RETURN, value)
}

fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, k }
}

fn branch(code: u16, k: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, k }
}

fn verdict(decision: Decision) -> Instruction {
    statement(
        RETURN,
        match decision {
            Decision::Allow => ALLOW,
            Decision::Refuse => EPERM,
            Decision::Unknown => ENOSYS,
        },
    )
}

/// The program for rules that are sorted by number. Numbers without a rule are unknown.
pub(super) fn compile(rules: &[(u32, Rule)]) -> Vec<Instruction> {
    let blocks: Vec<_> = ranges(rules, Rule::Always(Decision::Unknown))
        .into_iter()
        .map(|(from, rule)| (from, decide(rule)))
        .collect();
    with_architecture(&search(&blocks))
}

/// The program for blocks of instructions that are sorted by number; each gives a verdict. Numbers
/// without a block have `default`.
pub(super) fn of_blocks(
    blocks: &[(u32, Vec<Instruction>)],
    default: &[Instruction],
) -> Vec<Instruction> {
    with_architecture(&search(&ranges(blocks, default.to_vec())))
}

/// A foreign architecture (32-bit calls on a 64-bit kernel, x32) is unknown as a whole: its calls
/// would pass by the argument rules.
fn with_architecture(body: &[Instruction]) -> Vec<Instruction> {
    let mut program = vec![
        statement(LOAD, ARCHITECTURE),
        branch(IF_EQUAL, NATIVE, 1, 0),
        verdict(Decision::Unknown),
        statement(LOAD, NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        program.push(branch(IF_AT_LEAST, X32, 0, 1));
        program.push(verdict(Decision::Unknown));
    }
    program.extend(body);
    program
}

/// Neighbouring numbers with the same rule, as the first number of each range; the first range
/// begins at 0.
fn ranges<R: Clone + PartialEq>(rules: &[(u32, R)], default: R) -> Vec<(u32, R)> {
    let mut ranges: Vec<(u32, R)> = vec![(0, default.clone())];
    let mut push = |from: u32, rule: &R| match ranges.last_mut() {
        Some(last) if last.0 == from => last.1 = rule.clone(),
        Some(last) if last.1 == *rule => {}
        _ => ranges.push((from, rule.clone())),
    };
    for (index, (number, rule)) in rules.iter().enumerate() {
        push(*number, rule);
        if rules.get(index + 1).is_none_or(|(next, _)| *next != number + 1) {
            push(number + 1, &default);
        }
    }
    // The first range may have been given a rule equal to its successor's.
    ranges.dedup_by(|next, before| next.1 == before.1);
    ranges
}

/// A tree of comparisons: smaller numbers to the left, the others to the right.
fn search(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    if let [(_, block)] = ranges {
        return block.clone();
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let Some((from, _)) = right.first() else { return Vec::new() };
    let (left, right) = (search(left), search(right));
    let mut program = match u8::try_from(left.len()) {
        Ok(distance) => vec![branch(IF_AT_LEAST, *from, distance, 0)],
        // A conditional jump reaches 255 instructions; an unconditional one any distance.
        Err(_) => vec![
            branch(IF_AT_LEAST, *from, 0, 1),
            statement(JUMP, u32::try_from(left.len()).unwrap_or(u32::MAX)),
        ],
    };
    program.extend(left);
    program.extend(right);
    program
}

fn decide(rule: Rule) -> Vec<Instruction> {
    let (allow, refuse) = (verdict(Decision::Allow), verdict(Decision::Refuse));
    let argument = statement(LOAD, FIRST_ARGUMENT);
    match rule {
        Rule::Always(decision) => vec![verdict(decision)],
        Rule::NoneOf(bits) => vec![argument, branch(IF_ANY_BIT, bits, 0, 1), refuse, allow],
        Rule::OneOf(values) => listed(argument, values, allow, refuse),
        Rule::Neither(values) => listed(argument, values, refuse, allow),
    }
}

/// `hit` if the argument is one of `values`, else `miss`.
fn listed(
    argument: Instruction,
    values: &[u32],
    hit: Instruction,
    miss: Instruction,
) -> Vec<Instruction> {
    let mut program = vec![argument];
    for (index, value) in values.iter().enumerate() {
        // Over the comparisons that are left and over `miss`.
        let distance = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
        program.push(branch(IF_EQUAL, *value, distance, 0));
    }
    program.extend([miss, hit]);
    program
}
