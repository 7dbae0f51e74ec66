//! `larder-hub`'s settings.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::Deserialize;
use url::Url;

use super::Settings;
use crate::logic::{governor::Prefix, hotlist::is_host_and_port, units::Micros};

/// Three quarters of the connections that the hub takes.
const WAITERS_MAX: u32 = 3072;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HubConfig {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub public_url: Url,
    pub reflector: Reflector,
    pub tracker: Tracker,
    pub metadata: Metadata,
    pub policy: PolicySettings,
}

/// Off without an address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reflector {
    pub listen: Option<SocketAddr>,
    /// `host:port`, as devices reach it.
    pub public: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracker {
    pub interval_seconds: u32,
    pub peers_per_announce_max: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    pub timestamp_lifetime_seconds: u32,
    pub snapshot_lifetime_seconds: u32,
    pub targets_lifetime_seconds: u32,
    /// Devices whose question for the list is held until there is news.
    pub waiters_max: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    pub currency: String,
    pub price_per_gb: BTreeMap<String, Micros>,
    pub list_interval_seconds: u32,
    pub report_interval_seconds: u32,
    /// Networks, beside the public internet, in which devices may use web seeds.
    pub private_web_seeds: Vec<String>,
}

impl Default for HubConfig {
    fn default() -> Self {
        HubConfig {
            data_dir: "/var/lib/larder-hub".into(),
            listen: "127.0.0.1:7070".parse().expect("a constant"),
            public_url: Url::parse("http://127.0.0.1:7070/").expect("a constant"),
            reflector: Reflector::default(),
            tracker: Tracker::default(),
            metadata: Metadata::default(),
            policy: PolicySettings::default(),
        }
    }
}

impl Reflector {
    /// As it goes into the policy: `host:port`.
    pub fn public_address(&self, public_url: &Url) -> Option<String> {
        let listen = self.listen?;
        let own = || Some(format!("{}:{}", public_url.host()?, listen.port()));
        if self.public.is_empty() { own() } else { Some(self.public.clone()) }
    }

    fn check(&self) -> Result<(), String> {
        if self.listen.is_none() && !self.public.is_empty() {
            return Err("reflector.public is set, but reflector.listen is not: give it an address such as \"0.0.0.0:7071\"".into());
        }
        if self.listen.is_some_and(|listen| listen.port() == 0) {
            return Err(
                "reflector.listen needs a port, such as 7071: it is named in the signed policy"
                    .into(),
            );
        }
        if !self.public.is_empty() && !is_host_and_port(&self.public) {
            return Err(
                "reflector.public must be a host and a port, such as \"hub.example:7071\"".into()
            );
        }
        Ok(())
    }
}

impl Default for Tracker {
    fn default() -> Self {
        Tracker { interval_seconds: 1800, peers_per_announce_max: 50 }
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Metadata {
            timestamp_lifetime_seconds: 86_400,
            snapshot_lifetime_seconds: 604_800,
            targets_lifetime_seconds: 604_800,
            waiters_max: 2048,
        }
    }
}

impl Default for PolicySettings {
    fn default() -> Self {
        PolicySettings {
            currency: "CNY".into(),
            price_per_gb: [("standard".to_owned(), Micros(100_000))].into(),
            list_interval_seconds: 50,
            report_interval_seconds: 900,
            private_web_seeds: vec![],
        }
    }
}

impl Settings for HubConfig {
    const DEFAULT_TOML: &'static str = include_str!("hub.toml");

    fn check(&self) -> Result<(), String> {
        if !matches!(self.public_url.scheme(), "http" | "https")
            || !self.public_url.path().ends_with('/')
        {
            return Err(
                "public_url must start with http:// or https:// and end with a slash".into()
            );
        }
        self.reflector.check()?;
        if self.metadata.timestamp_lifetime_seconds < 60 {
            return Err("metadata.timestamp_lifetime_seconds is under 60: devices would call every list expired".into());
        }
        if self.metadata.waiters_max > WAITERS_MAX {
            return Err(format!(
                "metadata.waiters_max is over {WAITERS_MAX}: others would find no connection free"
            ));
        }
        if self.tracker.interval_seconds == 0 {
            return Err("tracker.interval_seconds must be at least 1".into());
        }
        for network in &self.policy.private_web_seeds {
            network.parse::<Prefix>().map_err(|e| format!("policy.private_web_seeds: {e}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    #[test]
    fn default_file_says_what_the_defaults_are() {
        let parse = |text: &str| config::parse::<HubConfig>(Path::new("hub.toml"), text);
        assert_eq!(parse(HubConfig::DEFAULT_TOML).expect("parses"), HubConfig::default());
        assert_eq!(parse("").expect("parses"), HubConfig::default());
        assert!(parse("public_url = \"http://x\"").is_ok(), "a URL without a path gets one");
        assert!(parse("public_url = \"http://x/y\"").is_err());
        assert!(parse("[metadata]\nwaiters_max = 0").is_ok(), "nobody waits");
        assert!(parse("[metadata]\nwaiters_max = 4000").is_err());
        assert!(parse("[reflector]\npublic = \"x:1\"").is_err(), "nobody listens");
        let public = |public: &str| {
            parse(&format!("[reflector]\nlisten = \"0.0.0.0:7071\"\npublic = {public:?}"))
        };
        assert!(public("hub.example:7071").is_ok() && public("[2001:db8::1]:7071").is_ok());
        assert!(public("hub.example").is_err() && public("hub.example:0").is_err());
    }
}
