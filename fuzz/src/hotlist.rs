//! The hot list, as it comes out of the signature check; and the look at how deep a text nests, which
//! all signed documents get before.

use larder::logic::hotlist::{HotList, NESTING_MAX, nests_too_deep};
use serde_json::Value;

use super::Verdict;

pub fn check(data: &[u8]) -> Verdict {
    if let Ok(value) = serde_json::from_slice(data) {
        // The text may nest deeper than the value, which has only the last of two equal keys.
        assert!(nests_too_deep(data) || depth(&value) <= NESTING_MAX);
    }
    let Ok(list) = HotList::parse(data) else { return Verdict::Refused };
    // The device keeps the list over a restart, and must then know it again.
    let kept = serde_json::to_vec(&list).expect("a list serialises");
    let kept = HotList::parse(&kept).expect("what was accepted before");
    assert_eq!(list.may_replace(&kept), Ok(()));
    assert_eq!(kept.may_replace(&list), Ok(()));
    for entry in &list.entries {
        assert_eq!(list.entry(entry.infohash), Some(entry));
    }
    Verdict::Accepted
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(values) => 1 + values.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
