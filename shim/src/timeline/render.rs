//! A timeline as a picture (SVG), as lines of a terminal, and as a trace (Chrome's JSON format, which
//! Perfetto and chrome://tracing read).

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Doing, Timeline};

const ALL: [Doing; 5] =
    [Doing::Image, Doing::Created, Doing::Starting, Doing::Running, Doing::Stopping];

fn colour(doing: Doing) -> &'static str {
    match doing {
        Doing::Image => "#e2e8f0",
        Doing::Created => "#cbd5e1",
        Doing::Starting => "#fde68a",
        Doing::Running => "#34d399",
        Doing::Stopping => "#fca5a5",
    }
}

/// A hook's bar, below its container's.
const HOOK: &str = "#8b5cf6";
/// A hook or an attempt of a probe that failed.
const FAILED: &str = "#b91c1c";
/// An attempt of a probe that succeeded: a dot above the container's bar.
const SUCCEEDED: &str = "#047857";

fn letter(doing: Doing) -> char {
    match doing {
        Doing::Image => '·',
        Doing::Created => '░',
        Doing::Starting => '▒',
        Doing::Running => '█',
        Doing::Stopping => '▓',
    }
}

/// A length of time as people read it.
fn time(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1000.0) }
}

/// A step between marks of a scale that gives about six of them.
fn step(length_ms: f64) -> f64 {
    let rough = (length_ms / 6.0).max(0.001);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|s| *s >= rough).unwrap_or(rough)
}

/// A stand-alone picture.
pub fn svg(timeline: &Timeline) -> String {
    const LEFT: f64 = 190.0;
    const WIDTH: f64 = 700.0;
    const ROW: f64 = 34.0;
    const TOP: f64 = 40.0;
    let length = timeline.length_ms.max(0.001);
    let x = |ms: f64| LEFT + ms / length * WIDTH;
    let bottom = TOP + ROW * timeline.rows.len() as f64;
    let (width, height) = (LEFT + WIDTH + 40.0, bottom + 60.0);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n<title>{0}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"22\" font-weight=\"bold\">{0}</text>",
        escaped(&format!("pod {}: {}", timeline.pod, time(timeline.length_ms)))
    );
    let step = step(length);
    let mut mark = 0.0;
    while mark <= length {
        let at = x(mark);
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#e5e7eb\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" fill=\"#6b7280\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            time(mark)
        );
        mark += step;
    }
    for (i, row) in timeline.rows.iter().enumerate() {
        let y = TOP + ROW * i as f64;
        let name = escaped(&format!("{} ({})", row.container, row.kind));
        let _ = writeln!(out, "<text x=\"10\" y=\"{:.1}\">{name}</text>", y + 21.0);
        for span in &row.spans {
            let exit = span.exit_code.map(|c| format!(", exit code {c}")).unwrap_or_default();
            let inc = span.inc.map(|n| format!("#{n} ")).unwrap_or_default();
            let took = time(span.to_ms - span.from_ms);
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"20\" fill=\"{}\">\
                 <title>{inc}{} for {took}{exit}</title></rect>",
                x(span.from_ms),
                y + 7.0,
                (x(span.to_ms) - x(span.from_ms)).max(0.5),
                colour(span.doing),
                span.doing.word()
            );
            if span.exit_code.is_some_and(|code| code != 0) {
                let at = x(span.to_ms);
                let _ = writeln!(
                    out,
                    "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\" \
                     stroke=\"#b91c1c\" stroke-width=\"2\"/>",
                    y + 4.0,
                    y + 30.0
                );
            }
        }
        for hook in &row.hooks {
            let colour = if hook.failed { FAILED } else { HOOK };
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"4\" fill=\"{colour}\">\
                 <title>#{} {} hook for {}</title></rect>",
                x(hook.from_ms),
                y + 28.0,
                (x(hook.to_ms) - x(hook.from_ms)).max(1.0),
                hook.inc,
                escaped(&hook.hook),
                time(hook.to_ms - hook.from_ms),
            );
        }
        for mark in &row.probes {
            let (colour, how) =
                if mark.success { (SUCCEEDED, "succeeded") } else { (FAILED, "failed") };
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\" fill=\"{colour}\">\
                 <title>{} probe {how} at {}</title></circle>",
                x(mark.at_ms),
                y + 4.0,
                escaped(&mark.probe),
                time(mark.at_ms),
            );
        }
    }
    let mut at = LEFT;
    for doing in ALL {
        let _ = writeln!(
            out,
            "<rect x=\"{at}\" y=\"{0}\" width=\"12\" height=\"12\" fill=\"{1}\"/>\
             <text x=\"{2}\" y=\"{3}\">{4}</text>",
            bottom + 32.0,
            colour(doing),
            at + 17.0,
            bottom + 43.0,
            doing.word()
        );
        at += 40.0 + 8.0 * doing.word().len() as f64;
    }
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Lines of `width` characters.
pub fn text(timeline: &Timeline, width: usize) -> String {
    let names: Vec<String> =
        timeline.rows.iter().map(|row| format!("{} ({})", row.container, row.kind)).collect();
    let left = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let columns = width.saturating_sub(left + 3).max(20);
    let length = timeline.length_ms.max(0.001);
    let column = |ms: f64| ((ms / length * columns as f64) as usize).min(columns - 1);
    let mut out = String::new();
    for (row, name) in timeline.rows.iter().zip(&names) {
        let mut line = vec![' '; columns];
        for span in &row.spans {
            for cell in &mut line[column(span.from_ms)..=column(span.to_ms)] {
                *cell = letter(span.doing);
            }
        }
        let bars: String = line.into_iter().collect();
        let _ = writeln!(out, "{name:<left$} │{bars}│");
        for span in row.spans.iter().filter(|span| span.exit_code.is_some_and(|code| code != 0)) {
            let code = span.exit_code.unwrap_or_default();
            let at = column(span.to_ms);
            let _ =
                writeln!(out, "{:left$} │{:at$}╵ exit code {code}, {}", "", "", time(span.to_ms));
        }
    }
    let end = time(timeline.length_ms);
    let _ = writeln!(out, "{:left$} 0{end:>columns$}", "");
    let legend: Vec<String> =
        ALL.iter().map(|doing| format!("{} {}", letter(*doing), doing.word())).collect();
    let _ = writeln!(out, "{}", legend.join("   "));
    out
}

/// A trace: complete events in microseconds, one thread a container.
pub fn trace(timeline: &Timeline) -> Value {
    let mut events = vec![json!({"ph": "M", "pid": 1, "name": "process_name",
        "args": {"name": format!("pod {}", timeline.pod)}})];
    for (thread, row) in timeline.rows.iter().enumerate() {
        events.push(json!({"ph": "M", "pid": 1, "tid": thread, "name": "thread_name",
            "args": {"name": format!("{} ({})", row.container, row.kind)}}));
        events.extend(row.spans.iter().map(|span| {
            json!({"ph": "X", "pid": 1, "tid": thread, "name": span.doing.word(), "cat": row.kind,
                "ts": span.from_ms * 1000.0, "dur": (span.to_ms - span.from_ms) * 1000.0,
                "args": {"incarnation": span.inc, "exitCode": span.exit_code}})
        }));
        events.extend(row.hooks.iter().map(|hook| {
            json!({"ph": "X", "pid": 1, "tid": thread, "name": hook.hook, "cat": "hook",
                "ts": hook.from_ms * 1000.0, "dur": (hook.to_ms - hook.from_ms) * 1000.0,
                "args": {"incarnation": hook.inc, "failed": hook.failed}})
        }));
        events.extend(row.probes.iter().map(|mark| {
            json!({"ph": "i", "pid": 1, "tid": thread, "name": format!("{} probe", mark.probe),
                "cat": "probe", "s": "t", "ts": mark.at_ms * 1000.0,
                "args": {"success": mark.success}})
        }));
    }
    json!({"traceEvents": events, "displayTimeUnit": "ms"})
}

#[cfg(test)]
mod tests {
    use plan::Mono;

    use super::super::{of, tests};
    use super::*;
    use crate::pod::past::Beginning;

    #[test]
    fn pictures_show_every_container_and_every_failure() {
        let timeline = of(Beginning::of(tests::pod()), &tests::life(), Mono(99_000_000));
        let shown = text(&timeline, 80);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("side (sidecar) │") && lines[0].contains('█'), "{shown}");
        assert!(lines[1].contains("╵ exit code 1, 40 ms"), "{shown}");
        assert!(shown.contains("exit code 143") && shown.contains("70 ms"), "{shown}");
        assert!(lines.iter().all(|line| line.chars().count() <= 120), "{shown}");

        let picture = svg(&timeline);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("exit code 143").count(), 1);
        assert_eq!(picture.matches("<rect").count(), 1 + 8 + 1 + ALL.len());
        assert_eq!(picture.matches("<circle").count(), 2);

        let trace = trace(&timeline);
        let spans = trace["traceEvents"].as_array().expect("events");
        assert_eq!(spans.iter().filter(|e| e["ph"] == "X").count(), 9);
        assert_eq!(spans.iter().filter(|e| e["ph"] == "i").count(), 2);
        assert_eq!(spans[2]["dur"], 9000.0);
    }

    #[test]
    fn marks_are_round_and_a_name_cannot_become_markup() {
        for (length, expected) in [(70.0, 20.0), (600.0, 100.0), (2400.0, 500.0), (0.0, 0.001)] {
            assert!((step(length) - expected).abs() < 1e-9, "{length}: {}", step(length));
        }
        assert_eq!(escaped("<a href=\"x\">&\n"), "&lt;a href=&quot;x&quot;&gt;&amp; ");
    }
}
