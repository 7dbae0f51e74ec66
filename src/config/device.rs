//! `larderd`'s settings.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;
use url::Url;

use super::Settings;
use crate::logic::units::{GIB, MIB};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    pub data_dir: PathBuf,
    pub hub: HubLink,
    pub serve: Serve,
    pub cache: Cache,
    pub admin: Admin,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HubLink {
    /// Without one the device is on its own: it serves what its owner pinned, and needs no root.
    pub url: Option<Url>,
    pub root_file: PathBuf,
    pub claim_code: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    pub listen: Vec<SocketAddr>,
    pub egress_bytes_per_second_max: u64,
    pub connections_max: u32,
    pub connections_per_ip_max: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    pub quota_bytes: u64,
    pub reserve_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    pub listen: SocketAddr,
    pub hosts: Vec<String>,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        DeviceConfig {
            data_dir: "/var/lib/larder".into(),
            hub: HubLink::default(),
            serve: Serve::default(),
            cache: Cache::default(),
            admin: Admin::default(),
        }
    }
}

impl Default for HubLink {
    fn default() -> Self {
        HubLink { url: None, root_file: "/etc/larder/root.json".into(), claim_code: String::new() }
    }
}

impl Default for Serve {
    fn default() -> Self {
        Serve {
            listen: vec![
                "0.0.0.0:6881".parse().expect("a constant"),
                "[::]:6881".parse().expect("a constant"),
            ],
            egress_bytes_per_second_max: 1_250_000,
            connections_max: 500,
            connections_per_ip_max: 16,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Cache { quota_bytes: 16 * GIB, reserve_bytes: 512 * MIB }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            listen: "0.0.0.0:8080".parse().expect("a constant"),
            hosts: vec!["larder.local".into()],
        }
    }
}

impl Settings for DeviceConfig {
    const DEFAULT_TOML: &'static str = include_str!("device.toml");

    fn check(&self) -> Result<(), String> {
        if self.serve.listen.is_empty() {
            return Err(
                "serve.listen is empty: name at least one address, such as \"0.0.0.0:6881\"".into(),
            );
        }
        if self.serve.egress_bytes_per_second_max < 1024 {
            return Err("serve.egress_bytes_per_second_max is under 1024: to stop serving, pause on the admin page".into());
        }
        if self.serve.connections_max == 0 || self.serve.connections_per_ip_max == 0 {
            return Err(
                "serve.connections_max and serve.connections_per_ip_max must be at least 1".into(),
            );
        }
        match &self.hub.url {
            Some(url) if !matches!(url.scheme(), "http" | "https") => {
                Err("hub.url must start with http:// or https://".into())
            }
            None if !self.hub.claim_code.is_empty() => {
                Err("hub.claim_code is set, but hub.url is not: put the operator's hub there"
                    .into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, ConfigError};

    fn parse(text: &str) -> Result<DeviceConfig, ConfigError> {
        config::parse(Path::new("larderd.toml"), text)
    }

    #[test]
    fn default_file_says_what_the_defaults_are() {
        assert_eq!(parse(DeviceConfig::DEFAULT_TOML).expect("parses"), DeviceConfig::default());
        assert_eq!(parse("").expect("parses"), DeviceConfig::default());
    }

    #[test]
    fn refuses_unknown_key_with_file_and_line() {
        let error = parse("data_dir = \"/x\"\n\n[serve]\nlisten_port = 1\n").expect_err("refused");
        let text = error.to_string();
        assert!(text.starts_with("larderd.toml:4: "), "{text}");
        assert!(text.contains("listen_port"), "{text}");
    }

    #[test]
    fn refuses_values_that_cannot_work() {
        for bad in [
            "[serve]\nlisten = []",
            "[serve]\negress_bytes_per_second_max = 3",
            "[hub]\nurl = \"ftp://x/\"",
            "[hub]\nclaim_code = \"abc\"",
        ] {
            assert!(matches!(parse(bad), Err(ConfigError::Invalid { .. })), "{bad}");
        }
    }
}
