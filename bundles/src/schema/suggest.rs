//! What somebody probably meant to write.

/// The candidate nearest to a misspelt word, if one is near enough to be it.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A longer word is no field's name, and the comparison is quadratic.
    if word.len() > 64 {
        return None;
    }
    let length = word.chars().count();
    let allowed = (length / 3).clamp(1, 3);
    candidates
        .into_iter()
        // Others are further away than that already by their length.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of letters to insert, delete, replace or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let fields = ["command", "args", "image", "imagePullPolicy", "env", "runAsUser"];
        for (word, meant) in [
            ("comand", "command"),
            ("commnad", "command"),
            ("Image", "image"),
            ("imagepullpolicy", "imagePullPolicy"),
            ("arg", "args"),
            ("runAsUsr", "runAsUser"),
        ] {
            assert_eq!(nearest(word, fields), Some(meant), "{word}");
        }
    }

    #[test]
    fn another_word_is_not_taken_for_one() {
        assert_eq!(nearest("entrypoint", ["command", "args", "env"]), None);
        assert_eq!(nearest("x", ["env"]), None);
    }
}
