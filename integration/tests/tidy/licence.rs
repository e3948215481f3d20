//! SPDX licence expressions: may we use a crate that states this one?
//!
//! Knows AND, OR, WITH and parentheses (SPDX specification 2.3, annex D), and the slash that older
//! crates write for OR. Not a full parser: an expression that it cannot read is not acceptable.

/// Licences that ask for no more than a notice.
const ACCEPTED: [&str; 10] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether the expression can be met by licences of the list, or of `also`.
pub fn acceptable(expression: &str, also: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, also) == Some(true) && rest.is_empty()
}

fn either(rest: &mut &[&str], also: &[&str]) -> Option<bool> {
    let mut met = both(rest, also)?;
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        met |= both(rest, also)?;
    }
    Some(met)
}

fn both(rest: &mut &[&str], also: &[&str]) -> Option<bool> {
    let mut met = one(rest, also)?;
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        met &= one(rest, also)?;
    }
    Some(met)
}

fn one(rest: &mut &[&str], also: &[&str]) -> Option<bool> {
    let (&word, tail) = rest.split_first()?;
    *rest = tail;
    if word == "(" {
        let met = either(rest, also)?;
        let (&close, tail) = rest.split_first()?;
        *rest = tail;
        return (close == ")").then_some(met);
    }
    let mut name = word.to_owned();
    if let ["WITH", exception, tail @ ..] = *rest {
        name = format!("{name} WITH {exception}");
        *rest = tail;
    }
    Some(ACCEPTED.contains(&name.as_str()) || also.contains(&name.as_str()))
}

#[test]
fn a_choice_needs_one_acceptable_licence_and_a_sum_needs_all() {
    assert!(acceptable("MIT OR Apache-2.0", &[]));
    assert!(acceptable("MIT/GPL-3.0-only", &[]));
    assert!(acceptable("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only", &[]));
    assert!(acceptable("(GPL-2.0-only OR MIT) AND Unicode-3.0", &[]));
    assert!(!acceptable("MIT AND GPL-3.0-only", &[]));
    assert!(!acceptable("GPL-3.0-or-later", &[]));
    assert!(!acceptable("GPL-2.0-only WITH Classpath-exception-2.0", &[]));
}

#[test]
fn an_exception_for_one_crate_widens_nothing_else() {
    assert!(acceptable("MPL-2.0 OR LGPL-3.0-or-later", &["MPL-2.0"]));
    assert!(!acceptable("MPL-2.0 OR LGPL-3.0-or-later", &[]));
}

#[test]
fn what_cannot_be_read_is_not_acceptable() {
    assert!(!acceptable("", &[]));
    assert!(!acceptable("MIT OR", &[]));
    assert!(!acceptable("(MIT", &[]));
    assert!(!acceptable("MIT MIT", &[]));
}
