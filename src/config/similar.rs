//! "Did you mean": the nearest of a few known words to one that was mistyped.

/// The candidate nearest to `word`, if it is near enough to be what was meant: at most a third of the word's characters
/// (at least one) inserted, left out, replaced or swapped with a neighbour. Case does not count. Of equally near ones the
/// one with the longest common beginning: beginnings are seldom mistyped.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // Nobody mistypes a word this long, and the distance costs time in the product of the lengths.
    if word.chars().count() > 64 {
        return None;
    }
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase(), allowed), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, candidate)| {
            let common = word.chars().zip(candidate.to_lowercase().chars()).take_while(|(a, b)| a == b).count();
            (*distance, std::cmp::Reverse(common))
        })
        .map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance (Levenshtein's, with swaps of neighbours): the rows of the usual table, of which
/// three are kept. Words whose lengths differ by more than `allowed` are not compared.
fn distance(a: &str, b: &str, allowed: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > allowed {
        return usize::MAX;
    }
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let known = ["cooldown", "window", "hold", "hits", "on", "off"];
        for (word, expected) in [
            ("coldown", Some("cooldown")),
            ("cool_down", Some("cooldown")),
            ("Window", Some("window")),
            ("hodl", Some("hold")),
            ("hit", Some("hits")),
            ("of", Some("off")),
            ("temperature", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
