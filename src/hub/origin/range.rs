//! The `Range` header (RFC 9110, section 14) for one file. Pure.

use std::ops::Range;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No range, one that we may ignore (several ranges, another unit), or one that makes no sense.
    Whole,
    /// Not empty, within the file.
    Part(Range<u64>),
    /// 416.
    Unsatisfiable,
}

/// `header` as it came; `length` of the file.
pub fn wanted(header: Option<&str>, length: u64) -> Wanted {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    if last.contains(',') {
        return Wanted::Whole;
    }
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return Wanted::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.is_empty() => first..length,
        (None, Some(suffix)) if first.is_empty() => length.saturating_sub(suffix)..length,
        _ => return Wanted::Whole,
    };
    if range.is_empty() { Wanted::Unsatisfiable } else { Wanted::Part(range) }
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    if !text.bytes().all(|b| b.is_ascii_digit()) || text.is_empty() {
        return None;
    }
    // More digits than a u64 has is still a number, just past every end.
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn understands_single_and_suffix_ranges() {
        let at = |header: &str| wanted(Some(header), 100);
        assert_eq!(wanted(None, 100), Wanted::Whole);
        assert_eq!(at("bytes=0-0"), Wanted::Part(0..1));
        assert_eq!(at("bytes=10-19"), Wanted::Part(10..20));
        assert_eq!(at("bytes=90-"), Wanted::Part(90..100));
        assert_eq!(at("bytes=90-1000"), Wanted::Part(90..100));
        assert_eq!(at("bytes=90-99999999999999999999999"), Wanted::Part(90..100));
        assert_eq!(at("bytes=-10"), Wanted::Part(90..100));
        assert_eq!(at("bytes=-1000"), Wanted::Part(0..100));
        assert_eq!(at("bytes=100-"), Wanted::Unsatisfiable);
        assert_eq!(at("bytes=-0"), Wanted::Unsatisfiable);
        for ignored in
            ["bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,5-6", "items=0-1", "bytes=+1-2"]
        {
            assert_eq!(at(ignored), Wanted::Whole, "{ignored}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_nor_past_the_end(header in "bytes=[0-9]{0,21}-[0-9]{0,21}", length: u64) {
            if let Wanted::Part(range) = wanted(Some(&header), length) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }
    }
}
