//! Columns as `kubectl get` prints them.

/// Left-aligned columns, three blanks apart; a column is as wide as its widest cell.
pub fn columns(rows: &[Vec<String>]) -> String {
    Columns::apart(3).lines(rows)
}

/// Columns that are printed bit by bit: each is as wide as its widest cell so far.
#[derive(Debug)]
pub struct Columns {
    gap: usize,
    widths: Vec<usize>,
}

impl Columns {
    /// That many blanks apart.
    pub fn apart(gap: usize) -> Columns {
        Columns { gap, widths: Vec::new() }
    }

    /// The next lines.
    pub fn lines(&mut self, rows: &[Vec<String>]) -> String {
        let count = rows.iter().map(Vec::len).max().unwrap_or(0);
        self.widths.resize(self.widths.len().max(count), 0);
        for (i, width) in self.widths.iter_mut().enumerate() {
            let cells = rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count());
            *width = cells.max().unwrap_or(0).max(*width);
        }
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&self.widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + self.gap - cell.chars().count()));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// How long ago, as kubectl shows it (`k8s.io/apimachinery/pkg/util/duration`): 5s, 2m5s, 15m, 3h,
/// 2d.
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |a: u64, unit_a: &str, b: u64, unit_b: &str| {
        if b == 0 { format!("{a}{unit_a}") } else { format!("{a}{unit_a}{b}{unit_b}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_end_without_blanks() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(
            columns(&[row("NAME", "AGE"), row("longer-name", "5s")]),
            "NAME          AGE\nlonger-name   5s\n"
        );
    }

    #[test]
    fn a_column_never_becomes_narrower() {
        let mut table = Columns::apart(2);
        let row = |a: &str, b: &str| vec![vec![a.to_owned(), b.to_owned()]];
        assert_eq!(table.lines(&row("longer", "5s")), "longer  5s\n");
        assert_eq!(table.lines(&row("a", "5s")), "a       5s\n");
    }

    #[test]
    fn ages_are_kubectls() {
        for (seconds, shown) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (700_000, "8d"),
        ] {
            assert_eq!(age(seconds), shown, "{seconds}");
        }
    }
}
