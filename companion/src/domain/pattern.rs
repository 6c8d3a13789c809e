//! Patterns for names: `*` stands for any characters.

/// Whether a name is what the pattern says; `*` stands for any characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    let mut rest = rest;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at.saturating_add(part.len())..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*", "", true),
            ("spiffe://d/ns/*/sa/gateway", "spiffe://d/ns/games/sa/gateway", true),
            ("spiffe://d/ns/*/sa/gateway", "spiffe://d/ns/games/sa/gateway2", false),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXc", false),
            ("ab*b", "ab", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
