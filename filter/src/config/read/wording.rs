//! How the reader words what is wrong.

use std::fmt::Write as _;

/// `"a", "b" or "c"`.
pub fn one_of(names: &[&str]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            text.push_str(if index.saturating_add(1) == names.len() { " or " } else { ", " });
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{name:?}");
    }
    text
}

/// What follows an unknown name: the near one, or all that there are.
pub fn remedy(unknown: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return "nothing is known here".into();
    }
    match nearest(unknown, known) {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("expected {}", one_of(known)),
    }
}

/// The known name that a slip of the finger turns into `unknown`: one edit for every three letters.
fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for name in known {
        let edits = distance(unknown, name);
        let tolerated = unknown.len().max(name.len()).div_ceil(4).min(3);
        if edits <= tolerated && best.is_none_or(|(least, _)| edits < least) {
            best = Some((edits, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap neighbours) between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for letter in a.chars() {
        let mut row = Vec::with_capacity(above.len());
        let mut left = above.first().map_or(0, |edits| edits.saturating_add(1));
        row.push(left);
        for (index, other) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX);
            let next = index.saturating_add(1);
            let replaced = at(&above, index).saturating_add(usize::from(letter != *other));
            let deleted = at(&above, next).saturating_add(1);
            let mut edits = replaced.min(deleted).min(left.saturating_add(1));
            let previous = index.checked_sub(1);
            if let Some(previous) = previous
                && b.get(previous) == Some(&letter)
                && last == Some(*other)
            {
                edits = edits.min(at(&before, previous).saturating_add(1));
            }
            row.push(edits);
            left = edits;
        }
        before = std::mem::replace(&mut above, row);
        last = Some(letter);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let known = ["max_frame", "max_request", "idle_timeout"];
        assert_eq!(nearest("max_fram", &known), Some("max_frame"));
        assert_eq!(nearest("mxa_frame", &known), Some("max_frame"));
        assert_eq!(nearest("idel_timeot", &known), Some("idle_timeout"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("x", &["cluster"]), None);
    }

    #[test]
    fn distances_count_swaps_once() {
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn names_are_listed_as_a_person_would() {
        assert_eq!(one_of(&["a"]), r#""a""#);
        assert_eq!(one_of(&["a", "b", "c"]), r#""a", "b" or "c""#);
    }
}
