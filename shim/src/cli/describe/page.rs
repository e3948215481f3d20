//! A page of what `describe` prints, in kubectl's form.

use std::fmt::Write;

use serde_json::Value;

use crate::cli::events::{interval, kind_of};
use crate::cli::get::seconds;
use crate::cli::table::Columns;
use crate::cli::terminal::printable;
use crate::protocol::Event;

/// Lines of `Key:  value`, indented by depth; whatever a manifest or a program put there, each is one.
#[derive(Default)]
pub struct Page {
    /// As it is printed.
    pub text: String,
}

const KEY_WIDTH: usize = 20;

impl Page {
    /// One of them.
    pub fn line(&mut self, depth: usize, key: &str, value: &str) {
        let indent = "  ".repeat(depth);
        let key = format!("{}: ", printable(key));
        let width = KEY_WIDTH.saturating_sub(indent.len());
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.text,
            "{}",
            format!("{indent}{key:<width$}{}", printable(value)).trim_end()
        );
    }

    /// Several values, one below the other.
    pub fn list(&mut self, depth: usize, key: &str, values: &[String]) {
        let Some((first, rest)) = values.split_first() else {
            return self.line(depth, key, "<none>");
        };
        self.line(depth, key, first);
        for value in rest {
            let _ = writeln!(self.text, "{:KEY_WIDTH$}{}", "", printable(value));
        }
    }

    /// The conditions of an object, in these columns.
    pub fn conditions(&mut self, object: &Value, columns: &[&str]) {
        let conditions = array(object, "/status/conditions");
        if conditions.is_empty() {
            return;
        }
        self.line(0, "Conditions", "");
        let indented = |mut row: Vec<String>| {
            if let Some(first) = row.first_mut() {
                first.insert_str(0, "  ");
            }
            row
        };
        let mut rows = vec![indented(columns.iter().map(|column| (*column).to_owned()).collect())];
        rows.extend(conditions.iter().map(|condition| {
            let cell = |column: &&str| {
                printable(str(condition, &format!("/{}", column.to_lowercase()))).into_owned()
            };
            indented(columns.iter().map(cell).collect())
        }));
        self.text += &Columns::apart(2).lines(&rows);
    }

    /// What happened.
    pub fn events(&mut self, events: &[Event]) {
        if events.is_empty() {
            return self.line(0, "Events", "<none>");
        }
        self.line(0, "Events", "");
        let now = runtime::clock::now().wall;
        let mut rows = vec![
            ["  Type", "Reason", "Age", "From", "Message"].map(String::from).to_vec(),
            ["  ----", "------", "----", "----", "-------"].map(String::from).to_vec(),
        ];
        rows.extend(events.iter().map(|event| {
            let container = event.container.as_deref();
            let from = container.map_or("podshim".into(), |c| format!("podshim, {c}"));
            let message = printable(event.message.trim()).into_owned();
            let kind = format!("  {}", kind_of(event));
            vec![kind, event.reason.clone(), interval(event, now), from, message]
        }));
        self.text += &Columns::apart(2).lines(&rows);
    }
}

/// The text there; empty if there is none.
pub fn str<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The array there; empty if there is none.
pub fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The names and texts of an object.
pub fn pairs(value: &Value, separator: &str) -> Vec<String> {
    let map = value.as_object().into_iter().flatten();
    map.map(|(key, v)| format!("{key}{separator}{}", v.as_str().unwrap_or_default())).collect()
}

/// `2026-11-28T13:52:36Z` as `Sat, 28 Nov 2026 13:52:36 +0000`; what is no time stays as it is.
pub fn rfc1123(time: &str) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let shown = || {
        let since_epoch = seconds(&serde_json::json!({ "at": time }), "/at")?;
        // Day 0 was a Thursday.
        let day = DAYS.get(usize::try_from(since_epoch / 86_400 % 7).ok()?)?;
        let (date, clock) = time.split_once('T')?;
        let mut date = date.split('-');
        let (year, month, day_of_month) = (date.next()?, date.next()?, date.next()?);
        let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
        Some(format!("{day}, {day_of_month} {month} {year} {} +0000", clock.get(..8)?))
    };
    shown().unwrap_or_else(|| time.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_kubectl_describes_them() {
        assert_eq!(rfc1123("2026-11-28T13:52:36Z"), "Sat, 28 Nov 2026 13:52:36 +0000");
        assert_eq!(rfc1123("1970-01-01T00:00:00Z"), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc1123("soon"), "soon");
    }
}
