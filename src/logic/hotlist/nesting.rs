//! How deep a JSON text nests, told from its brackets alone: asked before a parser is let loose on it.
//! Says nothing about whether it is JSON.

/// The deepest document of ours, a TUF root, has five levels; operators may add some of their own.
pub const NESTING_MAX: usize = 16;

/// Whether objects and arrays lie in each other more than [`NESTING_MAX`] deep.
pub fn nests_too_deep(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_brackets_but_not_those_in_strings() {
        let nested = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(!nests_too_deep(&nested(NESTING_MAX)) && nests_too_deep(&nested(NESTING_MAX + 1)));
        assert!(!nests_too_deep(&nested(2).repeat(1000)), "beside each other, not in each other");
        let quoted = format!(r#"{{"a":"\"{}","b":"\\"}}"#, "[".repeat(100));
        assert!(!nests_too_deep(quoted.as_bytes()));
        let after_a_quote = format!(r#"["\\",{}"#, "{".repeat(100));
        assert!(nests_too_deep(after_a_quote.as_bytes()));
    }
}
