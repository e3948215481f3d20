//! `$(NAME)` in commands, arguments and environment values.
//!
//! The grammar of `k8s.io/kubernetes/third_party/forked/golang/expansion`: `$$` is a dollar, `$(`
//! up to the next `)` is a reference, everything else is what it is. Nothing is an error and what
//! was substituted is not looked at again.

/// `text` with its references replaced. A name that `lookup` does not know stays as it is written.
pub fn expand<'v>(text: &str, lookup: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        rest = if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            escaped
        } else if let Some((name, behind)) = reference(after) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[dollar..rest.len() - behind.len()]),
            }
            behind
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    out
}

/// The name in `(NAME)…`, and what follows.
fn reference(after_dollar: &str) -> Option<(&str, &str)> {
    after_dollar.strip_prefix('(')?.split_once(')')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        Some(match name {
            "A" => "1",
            "B" => "two words",
            "EMPTY" => "",
            "REF" => "$(A)",
            "DOLLARS" => "$$",
            _ => return None,
        })
    }

    #[test]
    fn references_and_escapes() {
        for (text, expanded) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)z", "x1ytwo wordsz"),
            ("$(EMPTY)", ""),
            ("$(NOPE)", "$(NOPE)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$(REF)", "$(A)"),
            ("$(DOLLARS)(A)", "$$(A)"),
            ("$A", "$A"),
            ("${A}", "${A}"),
            ("$", "$"),
            ("$$", "$"),
            ("a$", "a$"),
            ("$(", "$("),
            ("$(A", "$(A"),
            ("$(A$(A)", "$(A$(A)"),
            ("$()", "$()"),
            ("$(A))", "1)"),
            ("$é$(A)", "$é1"),
            ("", ""),
        ] {
            assert_eq!(expand(text, lookup), expanded, "{text}");
        }
    }

    /// The same rules once more, read byte by byte as the scanner's description has them.
    fn model(text: &str) -> String {
        let bytes = text.as_bytes();
        let (mut out, mut i) = (Vec::new(), 0);
        while i < bytes.len() {
            match (bytes[i], bytes.get(i + 1)) {
                (b'$', Some(b'$')) => {
                    out.push(b'$');
                    i += 2;
                }
                (b'$', Some(b'(')) => match bytes[i + 2..].iter().position(|b| *b == b')') {
                    Some(length) => {
                        let name = &text[i + 2..i + 2 + length];
                        match lookup(name) {
                            Some(value) => out.extend(value.bytes()),
                            None => out.extend(format!("$({name})").bytes()),
                        }
                        i += length + 3;
                    }
                    None => {
                        out.extend(b"$(");
                        i += 2;
                    }
                },
                (byte, _) => {
                    out.push(byte);
                    i += 1;
                }
            }
        }
        String::from_utf8(out).expect("only whole characters were copied")
    }

    proptest! {
        #[test]
        fn expansion_is_what_the_scanner_does(text in r"([$()ABé]|A\)|\$\(A\)|REF|EMPTY){0,12}") {
            prop_assert_eq!(expand(&text, lookup), model(&text));
        }

        #[test]
        fn text_without_a_dollar_is_untouched(text in "[^$]{0,40}") {
            prop_assert_eq!(expand(&text, lookup), text);
        }
    }
}
