//! The policy: what the operator pays, how often it wants to hear from a device, and whose
//! signature on a statement counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{NESTING_MAX, nests_too_deep};
use crate::logic::{governor::Prefix, units::Micros};

pub const MAX_POLICY_BYTES: u64 = 256 * 1024;

/// Target `policy.json`, UTF-8 JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Version of this shape: 1.
    pub format: u32,
    /// ISO 4217 code, such as `CNY`.
    pub currency: String,
    /// Micros per decimal gigabyte of payload to WAN peers, by price class.
    pub price_per_gb: BTreeMap<String, Micros>,
    /// Seconds between two looks at the list, at most.
    pub list_interval_seconds: u32,
    /// Seconds between two reports.
    pub report_interval_seconds: u32,
    /// Ed25519 public keys (hex) that may sign statements.
    pub statement_keys: Vec<String>,
    /// `host:port` of a reflector (docs/reflector.md), if the operator has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflector: Option<String>,
    /// Networks such as `10.0.0.0/8`, beside the public internet, in which the operator's own servers
    /// may be: web seeds, metainfo, trackers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_web_seeds: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy is {found} bytes, more than the limit of {MAX_POLICY_BYTES}")]
    TooLarge { found: u64 },
    #[error("the policy nests deeper than {NESTING_MAX} levels")]
    TooDeep,
    #[error("the policy is not in the expected form: {0}")]
    Malformed(String),
    #[error("the policy has format {0}; this version of Larder reads format 1")]
    UnknownFormat(u32),
    #[error("the policy's {0} is out of range")]
    OutOfRange(&'static str),
}

impl Policy {
    pub fn parse(bytes: &[u8]) -> Result<Policy, PolicyError> {
        if bytes.len() as u64 > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge { found: bytes.len() as u64 });
        }
        if nests_too_deep(bytes) {
            return Err(PolicyError::TooDeep);
        }
        let policy: Policy =
            serde_json::from_slice(bytes).map_err(|e| PolicyError::Malformed(e.to_string()))?;
        if policy.format != 1 {
            return Err(PolicyError::UnknownFormat(policy.format));
        }
        if policy.currency.len() != 3 || !policy.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(PolicyError::OutOfRange("currency"));
        }
        const HOUR: u32 = 3600;
        if !(1..=24 * HOUR).contains(&policy.list_interval_seconds) {
            return Err(PolicyError::OutOfRange("list_interval_seconds"));
        }
        if !(1..=24 * HOUR).contains(&policy.report_interval_seconds) {
            return Err(PolicyError::OutOfRange("report_interval_seconds"));
        }
        if policy.reflector.as_deref().is_some_and(|reflector| !is_host_and_port(reflector)) {
            return Err(PolicyError::OutOfRange("reflector"));
        }
        let networks = &policy.private_web_seeds;
        if networks.len() > PRIVATE_WEB_SEEDS_MAX
            || networks.iter().any(|network| network.parse::<Prefix>().is_err())
        {
            return Err(PolicyError::OutOfRange("private_web_seeds"));
        }
        Ok(policy)
    }

    pub fn private_web_seed_networks(&self) -> Vec<Prefix> {
        self.private_web_seeds.iter().filter_map(|network| network.parse().ok()).collect()
    }

    /// Unknown classes earn nothing rather than something made up.
    pub fn price(&self, class: &str) -> Micros {
        self.price_per_gb.get(class).copied().unwrap_or_default()
    }
}

/// An operator has a handful of private networks.
const PRIVATE_WEB_SEEDS_MAX: usize = 16;
/// The longest name that DNS knows, a colon and a port.
const HOST_AND_PORT_BYTES_MAX: usize = 253 + 6;

/// `hub.example:7071`, `192.0.2.1:7071` or `[2001:db8::1]:7071`.
pub fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+');
    text.len() <= HOST_AND_PORT_BYTES_MAX && is_port && url::Host::parse(host).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            format: 1,
            currency: "CNY".into(),
            price_per_gb: [("standard".to_owned(), Micros(100_000))].into(),
            list_interval_seconds: 60,
            report_interval_seconds: 900,
            statement_keys: vec![],
            reflector: None,
            private_web_seeds: vec![],
        }
    }

    #[test]
    fn a_policy_without_the_newer_fields_is_read_and_written_as_it_was() {
        let text = serde_json::to_string(&policy()).expect("serialises");
        assert!(!text.contains("reflector") && !text.contains("private"), "{text}");
        assert_eq!(Policy::parse(text.as_bytes()), Ok(policy()));
    }

    #[test]
    fn refuses_values_out_of_range() {
        let parse = |p: &Policy| Policy::parse(&serde_json::to_vec(p).expect("serialises"));
        assert_eq!(parse(&policy()), Ok(policy()));
        for (field, p) in [
            ("currency", Policy { currency: "yuan".into(), ..policy() }),
            ("list_interval_seconds", Policy { list_interval_seconds: 0, ..policy() }),
            ("report_interval_seconds", Policy { report_interval_seconds: 90_000, ..policy() }),
            ("reflector", Policy { reflector: Some("hub.example".into()), ..policy() }),
            ("reflector", Policy { reflector: Some("a b:7".into()), ..policy() }),
            (
                "private_web_seeds",
                Policy { private_web_seeds: vec!["10.0.0.1".into()], ..policy() },
            ),
            (
                "private_web_seeds",
                Policy { private_web_seeds: vec!["0.0.0.0/0".into()], ..policy() },
            ),
        ] {
            assert_eq!(parse(&p), Err(PolicyError::OutOfRange(field)));
        }
    }
}
