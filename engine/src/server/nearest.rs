//! Which known word was probably meant?
//!
//! For "did you mean": flags, configuration keys and query parameters that nobody knows.

/// The nearest known word, within a third of its length in edits, and two at least, so that
/// swapped letters are found; `None` when nothing is near enough to be worth a guess.
pub fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(edits, candidate)| *edits < candidate.len().min((candidate.len() / 3).max(2) + 1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_found_and_a_stranger_is_not() {
        let known = ["bootstrap_expect", "bind_addr", "server", "cas"];
        assert_eq!(nearest("csa", known.into_iter()), Some("cas"));
        assert_eq!(nearest("xyz", known.into_iter()), None);
        assert_eq!(
            nearest("bootstrap_expct", known.into_iter()),
            Some("bootstrap_expect")
        );
        assert_eq!(nearest("sevrer", known.into_iter()), Some("server"));
        assert_eq!(nearest("telemetry", known.into_iter()), None);
    }
}
