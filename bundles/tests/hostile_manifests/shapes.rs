//! Shapes that are known to stop parsers: deep, wide, long, many, and multiplied by aliases.

use std::fmt::Write as _;

use super::{Report, report};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n";

/// The text is refused, and one of the complaints says this.
fn refused(text: &str, why: &str) -> Report {
    let report = report(text);
    let messages: Vec<&str> = report.problems.iter().map(|p| p.message()).take(5).collect();
    assert!(report.problems.iter().any(|p| p.message().contains(why)), "{messages:?}");
    report
}

#[test]
fn what_is_nested_without_end_is_refused() {
    let deep = "lists and maps within each other";
    refused(&"[".repeat(10_000), deep);
    refused(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), deep);
    refused(&"{a: ".repeat(10_000), deep);
    refused(&"[{a: ".repeat(10_000), deep);
    refused(&"{\"a\":[".repeat(10_000), deep);
    refused(&format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)), deep);
    refused(&"- ".repeat(10_000), deep);
    refused(&format!("{POD}  x: {}", "[".repeat(10_000)), deep);
    let mut block = String::new();
    for depth in 0..2_000 {
        writeln!(block, "{:depth$}a:", "").unwrap();
    }
    refused(&block, deep);
    // The parser has its own words for these.
    for opening in ["? ", "!!a ", "&a ", "*a ", "{? ", "[? ", "{{", "a: b: ", "- - ? "] {
        assert!(!report(&opening.repeat(10_000)).is_ok(false), "{opening}");
    }
}

/// Each level names the one before several times.
fn bomb(first: &str, level: impl Fn(usize) -> String) -> String {
    let mut text = format!("{POD}  containers: []\nx:\n  a0: &a0 {first}\n");
    for n in 1..30 {
        writeln!(text, "  a{n}: &a{n} {}", level(n - 1)).unwrap();
    }
    text
}

#[test]
fn aliases_of_aliases_do_not_multiply() {
    let times = |n: usize, count: usize| vec![format!("*a{n}"); count].join(", ");
    let large = "values in one file";
    refused(&bomb("[x, x]", |n| format!("[{}]", times(n, 9))), large);
    refused(&bomb("[x, x]", |n| format!("[{}]", times(n, 2))), large);
    refused(&bomb("{k: v}", |n| format!("{{a: *a{n}, b: *a{n}, c: *a{n}}}")), large);
    refused(&bomb("{k: v}", |n| format!("{{<<: [{}]}}", times(n, 3))), large);
    refused(&bomb("{k: v}", |n| format!("{{<<: *a{n}, x{n}: *a{n}}}")), large);
    refused(&bomb("[x]", |n| format!("[*a{n}, *a{n}, [*a{n}]]")), large);
    // An alias of one depth within another.
    refused(&bomb("[x]", |n| format!("[{}*a{n}{}]", "[".repeat(9), "]".repeat(9))), "within each");
}

#[test]
fn a_long_text_is_not_multiplied_by_its_aliases() {
    let long = "x".repeat(100_000);
    let aliases = " *a,".repeat(100_000);
    refused(&format!("{POD}  x: [&a {long},{aliases}]\n"), "MiB of text in one file");
    let short = format!("{POD}  x: [&a x,{aliases}]\n");
    refused(&short, "aliases in one document");
    // Anchors within anchors: each keeps what is below it.
    let anchors: String = (0..60).map(|n| format!("&a{n} [")).collect();
    let text = format!("{POD}  x: {anchors}{}{}", "x".repeat(4 << 20), "]".repeat(60));
    refused(&text, "MiB of text in one file");
    let text = format!("{POD}  x: {anchors}{}{}", "x,".repeat(4_000), "]".repeat(60));
    refused(&text, "values in one file");
}

#[test]
fn many_documents_do_not_multiply_what_one_may_hold() {
    let aliases = " *a,".repeat(900);
    let document = format!("---\nx: [&a {},{aliases}]\n", "x".repeat(8_000));
    refused(&document.repeat(250), "MiB of text in one file");
    let document = format!("---\nx: [&a [{}],{aliases}]\n", "x,".repeat(50));
    refused(&document.repeat(250), "values in one file");
}

#[test]
fn a_hundred_thousand_documents_are_a_file_to_split() {
    refused(&"---\n".repeat(100_000), "documents in one file");
    refused(&"---\na: b\n".repeat(100_000), "documents in one file");
    let pods: String = (0..1_000).map(|n| format!("---\nkind: Pod{n}\n")).collect();
    refused(&pods, "documents in one file");
}

#[test]
fn a_very_long_scalar_is_read_and_its_complaint_is_short() {
    let long = "x".repeat(5 << 20);
    refused(&long, "not an object");
    refused(&format!("{POD}  restartPolicy: {long}\n"), "Unsupported value");
    refused(&format!("{POD}  restartPolicy: \"{long}\"\n"), "Unsupported value");
    refused(&format!("{POD}  restartPolicy: |\n    {long}\n"), "Unsupported value");
    // A key without `?` has 1024 characters at most.
    refused(&format!("{POD}  {long}: 1\n"), "invalid YAML");
    refused(&format!("{POD}  ? {long}\n  : 1\n"), "unknown field");
    refused(&format!("{POD}  hostNetwork: {}\n", "1".repeat(1 << 20)), "expected true or false");
    refused(&format!("kind: {long}\napiVersion: v1\n"), "podshim does not run a");
    refused(&format!("kind: Pod\napiVersion: {long}\n"), "has no version");
    refused(&format!("{POD}  x: !!int {long}\n"), "is no value of its tag");
    refused(&format!("{POD}  x: !!binary {long}\n"), "not base64");
    refused(&format!("{POD}  x: \"{long}"), "invalid YAML");
    report(&format!("{POD}  x:\n  - {long},\n"));
    report(&format!("#{long}"));
    report(&" ".repeat(5 << 20));
    report(&"\n".repeat(5 << 20));
    report(&format!("{POD}{}x: 1", " ".repeat(5 << 20)));
    report(&format!("{POD}{}x: 1", "\n".repeat(5 << 20)));
}

#[test]
fn lines_without_end_are_shown_in_part() {
    let items = "[],".repeat(200_000);
    refused(&format!("[{items}]"), "values in one file");
    let spaces = " ".repeat(7 << 20);
    refused(&format!("{{kind: Pod, x: [{}], {spaces}}}", "[],".repeat(40_000)), "Required value");
    let report = refused(&format!("{{kind: Podd, {spaces} apiVersion: v1}}"), "run a Podd");
    assert!(report.render(false).len() < 1_000, "{}", report.render(false));
}

#[test]
fn a_hundred_thousand_mistakes_are_told_as_many_as_one_reads() {
    let lines = |line: &dyn Fn(usize) -> String| -> String { (0..100_000).map(line).collect() };
    report(&lines(&|_| "a: 1\n".into()));
    report(&lines(&|n| format!("a{n}: 1\n")));
    report(&lines(&|_| "---\na\n".into()));
    report(&lines(&|_| "\ta\n".into()));
    report(&lines(&|_| "- 'a',\n".into()));
    report(&lines(&|_| "- a,\n".into()));
    report(&lines(&|_| "- .nan\n".into()));
    report(&lines(&|_| "'\n".into()));
    report(&lines(&|_| "- }\n".into()));
}

/// As many of something as a file may hold.
fn many(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect()
}

#[test]
fn a_pod_of_nothing_but_mistakes_is_told_soon() {
    let unknown = many(20_000, |n| format!("  a{n}: 1\n"));
    refused(&format!("{POD}{unknown}"), "unknown field");
    let doubled = many(10_000, |n| format!("  a{n}: 1\n")).repeat(2);
    refused(&format!("{POD}{doubled}"), "already set");
    let labels = many(20_000, |n| format!("    '{n}?': 1\n"));
    refused(&format!("{POD}  nodeSelector:\n{labels}"), "expected a string");
    let mounts = many(5_500, |n| format!("    - {{name: m{n}, mountPath: /{n}}}\n"));
    let volumes = many(5_500, |n| format!("  - name: v{n}\n"));
    let main = "  containers:\n  - name: a\n    image: a\n    volumeMounts:\n";
    let text = format!("{POD}  volumes:\n{volumes}{main}{mounts}");
    refused(&text, "Not found");
    // Complaints about volumes that are damaged themselves.
    let volumes = many(5_500, |n| format!("  - name: [{n}]\n"));
    refused(&format!("{POD}  volumes:\n{volumes}{main}{mounts}"), "expected a string");
    let containers = many(3_500, |n| {
        format!("  - {{name: A{n}, image: a, tty: 3, livenessProbe: {{}}, x: 1}}\n")
    });
    refused(&format!("{POD}  containers:\n{containers}"), "unknown field");
    let unsupported = many(5_000, |n| format!("  - {{name: v{n}, nfs: {{server: a, path: a}}}}\n"));
    refused(&format!("{POD}  volumes:\n{unsupported}"), "not supported yet");
    let annotation = format!(
        "metadata: {{name: a, annotations: {{podshim.dev/standby: '{}'}}}}",
        "a,".repeat(1 << 20)
    );
    let text = POD.replace("metadata: {name: a}", &annotation);
    refused(&format!("{text}  containers: [{{name: main, image: a}}]\n"), "Not found");
    let containers = many(8_000, |n| format!("  - {{name: c{n}, image: a}}\n"));
    refused(&format!("{text}  containers:\n{containers}"), "Not found");
}

#[test]
fn merging_many_maps_with_many_keys_ends() {
    let keys = |prefix: &str| many(5_000, |n| format!("{prefix}{n}: 1, "));
    let text = format!("x: &x {{{}}}\ny: {{<<: *x, {}}}\n", keys("a"), keys("b"));
    refused(&text, "Required value");
    let maps = many(800, |n| format!("{{a{n}: 1, b{n}: 1}}, "));
    refused(&format!("x: {{<<: [{maps}]}}\n"), "Required value");
}

#[test]
fn nothing_that_a_terminal_obeys_gets_out_of_a_manifest() {
    let evil = [
        "\u{1b}]0;gotcha\u{7}",
        "\u{1b}[2J",
        "\u{0}",
        "\r",
        "\u{8}",
        "\u{9b}31m",
        "\u{7f}",
        "\u{85}",
        "\t",
    ];
    for evil in evil {
        for text in [
            evil.to_owned(),
            format!("{POD}{evil}: 1\n"),
            format!("{POD}  {evil}: 1\n"),
            format!("{POD}  a{evil}b: 1\n"),
            format!("{POD}  'a{evil}b': 1\n"),
            format!("{POD}  restartPolicy: a{evil}b\n"),
            format!("{POD}  restartPolicy: 'a{evil}b'\n"),
            format!("{POD}  tty: a{evil}b # {evil}\n"),
            format!("{POD}  containers: a{evil}b\n"),
            format!("{POD}  containers: [{{name: a, image: a, args: a{evil}b}}]\n"),
            format!("{POD}  containers: [{{name: a, image: a, args: 'a{evil}b'}}]\n"),
            format!("{POD}  nodeSelector: {{'a{evil}b': 1, 'a{evil}b': 2}}\n"),
            format!("kind: a{evil}b\napiVersion: 'c{evil}d'\n"),
            format!("kind: Pod\napiVersion: 'c{evil}d'\n"),
            format!("{POD}  x: *a{evil}b\n"),
            format!("{POD}  x: !a{evil}b c\n"),
            format!("{POD}  x: &a{evil}b c\n"),
            format!("{POD}  x: 'a{evil}b\n"),
            format!("%{evil}\n---\n{POD}"),
            format!("{POD}  - {evil}"),
        ] {
            assert!(!report(&text).is_ok(false), "{text:?}");
        }
    }
    // YAML has its own notation for them, which brings them past any look at the text.
    for evil in ["\\e]0;gotcha\\a", "\\0", "\\r", "\\n", "\\x9b", "\\u202e", "\\N", "\\L"] {
        for text in [
            format!("{POD}  \"a{evil}b\": 1\n"),
            format!("{POD}  restartPolicy: \"a{evil}b\"\n"),
            format!("{POD}  nodeSelector: {{\"a{evil}b\": 1, \"a{evil}b\": 2}}\n"),
            format!("{POD}  containers: [{{name: \"a{evil}b\", image: \" {evil}\"}}]\n"),
            format!("kind: \"a{evil}b\"\napiVersion: v1\n"),
            format!("kind: Pod\napiVersion: \"a{evil}b\"\n"),
            format!("\"a{evil}b\": 1\n"),
        ] {
            assert!(!report(&text).is_ok(false), "{text:?}");
        }
    }
}

#[test]
fn marks_and_ends_of_lines_are_where_an_editor_sees_them() {
    for text in [
        "\u{feff}",
        "\u{feff}\u{feff}kind: Pod",
        "\u{feff}---\n\u{feff}kind: Pod\n",
        "kind: Pod\rapiVersion: v1\rx: 1\r",
        "kind: Pod\r\napiVersion: v1\r\nx: 1\r\n",
        "\r",
        "\n\r",
        "kind: Pod\n---\r---\r\n---",
        "---",
        "--- ",
        "...",
        "...\n...",
        "--- a\n--- b",
        "%YAML 9.9",
        "%TAG ! tag:a,2000:\n---\n!x y",
        "\u{2028}\u{2029}",
        "kind: \u{feff}Pod",
        "ö: [ä, 'ü',",
        "- 'ö',",
        "kind: Pod\n\0",
        "\0",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "-",
        "?",
        "!",
        "&",
        "*",
        "|",
        ">",
        "'",
        "\"",
        "%",
        "@",
        "`",
        "#",
        "- 'a',",
        "a: *a",
        "&a *a",
        "&a [*a]",
        "<<: a",
        "<<: [a]",
        "{<<}",
        "? [a]\n: b",
        "[a]: b",
        "{}: x",
        "\"\\uD800\": 1",
        "\"\\U00110000\"",
        "|99",
        ">+9-",
    ] {
        report(text);
    }
}
