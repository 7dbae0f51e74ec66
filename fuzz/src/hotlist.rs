//! The hot list, as it comes out of the signature check.

use larder::logic::hotlist::HotList;

use super::Verdict;

pub fn check(data: &[u8]) -> Verdict {
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
