//! The operator's policy, as it comes out of the signature check.

use larder::logic::hotlist::Policy;

use super::Verdict;

pub fn check(data: &[u8]) -> Verdict {
    let Ok(policy) = Policy::parse(data) else { return Verdict::Refused };
    let kept = serde_json::to_vec(&policy).expect("a policy serialises");
    assert_eq!(Policy::parse(&kept).as_ref(), Ok(&policy));
    for (class, price) in &policy.price_per_gb {
        assert_eq!(policy.price(class), *price);
    }
    assert!(policy.list_interval_seconds > 0 && policy.report_interval_seconds > 0);
    Verdict::Accepted
}
