//! `larderd`'s settings.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf};

use serde::Deserialize;
use url::Url;

use super::Settings;
use crate::logic::{
    fill::{Hours, RATE_MIN_BYTES_PER_SECOND},
    governor::{
        Prefix,
        allowance::{self, Asymmetry, DAY_NAMES, Schedule, Share, UTC_OFFSET_MINUTES},
    },
    placement::{Budgets, FLASH_BYTES_PER_DAY_DEFAULT, FLASH_PERCENT_OF_EGRESS_DEFAULT},
    units::{GIB, KIB, MIB},
};

/// One holds a descriptor and some kilobytes of the kernel's memory; beyond these, it is a typing
/// error and no router.
const CONNECTIONS: RangeInclusive<u32> = 1..=100_000;
/// Each is looked at for every new peer; a home has a few.
const LAN_PREFIXES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    pub data_dir: PathBuf,
    pub hub: HubLink,
    pub serve: Serve,
    pub schedule: Week,
    pub caps: Caps,
    pub fill: Fill,
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
    /// Without one, `Auto` if there is no limit either.
    pub mode: Option<Mode>,
    pub egress_bytes_per_second_max: Option<u64>,
    pub wan_interface: String,
    pub connections_max: u32,
    pub connections_per_ip_max: u32,
    pub connections_per_content_max: u32,
    /// Detected, if absent.
    pub lan_prefixes: Option<Vec<String>>,
}

/// Who finds out how much may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Auto,
    /// The owner has said it.
    Fixed,
}

/// What `serve.mode` and the limit come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    pub is_auto: bool,
    pub bytes_per_second_max: u64,
    /// In auto mode, while it cannot measure.
    pub unmeasured_bytes_per_second: u64,
}

/// 10 Mbit/s: the least that a line sold these days is likely to carry.
const UNMEASURED_BYTES_PER_SECOND: u64 = 1_250_000;
/// From here on there is no limit.
const NO_LIMIT_BYTES_PER_SECOND: u64 = 1_250_000_000;

/// The owner's week; each day is 24 characters, one an hour.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Week {
    pub utc_offset_minutes: i32,
    pub monday: String,
    pub tuesday: String,
    pub wednesday: String,
    pub thursday: String,
    pub friday: String,
    pub saturday: String,
    pub sunday: String,
}

/// Zero is no cap.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    pub egress_bytes_per_day_max: u64,
    pub egress_bytes_per_month_max: u64,
    pub egress_to_ingress_max_24_hours: u32,
    pub egress_to_ingress_max_30_days: u32,
    pub line_egress_to_ingress_max_24_hours: u32,
    pub line_egress_to_ingress_max_30_days: u32,
}

/// How content comes in.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fill {
    /// Zero is no limit.
    pub ingress_bytes_per_second_max: u64,
    pub yields_to_household: bool,
    pub windows: Week,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    pub quota_bytes: u64,
    pub reserve_bytes: u64,
    /// Zero is no scrub.
    pub scrub_bytes_per_second: u64,
    /// Zero is no budget, here and below.
    pub fill_bytes_per_day_max: u64,
    pub ingress_bytes_per_month_max: u64,
    pub flash_bytes_per_day_max: u64,
    pub flash_percent_of_egress_max: u32,
}

impl Cache {
    pub fn budgets(&self) -> Budgets {
        let bytes = |max| Some(max).filter(|max| *max > 0);
        Budgets {
            fill_bytes_per_day_max: bytes(self.fill_bytes_per_day_max),
            ingress_bytes_per_month_max: bytes(self.ingress_bytes_per_month_max),
            flash_bytes_per_day_max: bytes(self.flash_bytes_per_day_max),
            flash_percent_of_egress_max: Some(self.flash_percent_of_egress_max).filter(|p| *p > 0),
            quota_bytes: self.quota_bytes,
        }
    }
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
            schedule: Week::default(),
            caps: Caps::default(),
            fill: Fill::default(),
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
            mode: None,
            egress_bytes_per_second_max: None,
            wan_interface: "auto".into(),
            connections_max: 500,
            connections_per_ip_max: 16,
            connections_per_content_max: 400,
            lan_prefixes: None,
        }
    }
}

impl Serve {
    /// A limit alone is all that holds, as its owner expects; in auto mode it is the most.
    pub fn egress(&self) -> Egress {
        let limit = self.egress_bytes_per_second_max;
        let is_auto = self.mode.map_or(limit.is_none(), |mode| mode == Mode::Auto);
        let none = if is_auto { NO_LIMIT_BYTES_PER_SECOND } else { UNMEASURED_BYTES_PER_SECOND };
        Egress {
            is_auto,
            bytes_per_second_max: limit.unwrap_or(none),
            unmeasured_bytes_per_second: limit.unwrap_or(UNMEASURED_BYTES_PER_SECOND),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.listen.is_empty() {
            return Err(
                "serve.listen is empty: name at least one address, such as \"0.0.0.0:6881\"".into(),
            );
        }
        if self.egress_bytes_per_second_max.is_some_and(|limit| limit < 1024) {
            return Err("serve.egress_bytes_per_second_max is under 1024: to stop serving, pause on the admin page".into());
        }
        if self.mode == Some(Mode::Fixed) && self.egress_bytes_per_second_max.is_none() {
            return Err("serve.mode is \"fixed\", but there is no limit: set serve.egress_bytes_per_second_max, or take \"auto\"".into());
        }
        let name = &self.wan_interface;
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) || name.starts_with('.')
        {
            return Err(format!(
                "serve.wan_interface is {name:?}: it must be \"auto\", \"none\" or an interface's name, such as \"wan0\""
            ));
        }
        for (name, max) in [
            ("connections_max", self.connections_max),
            ("connections_per_ip_max", self.connections_per_ip_max),
            ("connections_per_content_max", self.connections_per_content_max),
        ] {
            if !CONNECTIONS.contains(&max) {
                return Err(format!(
                    "serve.{name} is {max}: it must be from {} to {}",
                    CONNECTIONS.start(),
                    CONNECTIONS.end()
                ));
            }
        }
        self.settle_lan().map(drop)
    }

    /// The networks that the owner calls the household's, or one sentence on what to change.
    pub fn settle_lan(&self) -> Result<Option<Vec<Prefix>>, String> {
        let Some(texts) = &self.lan_prefixes else { return Ok(None) };
        if texts.len() > LAN_PREFIXES_MAX {
            return Err(format!("serve.lan_prefixes may have {LAN_PREFIXES_MAX} networks at most"));
        }
        let prefixes = texts.iter().map(|text| text.parse::<Prefix>());
        prefixes.collect::<Result<_, _>>().map(Some).map_err(|e| format!("serve.lan_prefixes: {e}"))
    }
}

impl Default for Week {
    fn default() -> Self {
        let full = || "F".repeat(24);
        Week {
            utc_offset_minutes: 0,
            monday: full(),
            tuesday: full(),
            wednesday: full(),
            thursday: full(),
            friday: full(),
            saturday: full(),
            sunday: full(),
        }
    }
}

impl Week {
    /// Or one sentence on what to change in this section of the file.
    pub fn settle(&self, section: &str) -> Result<Schedule, String> {
        if !UTC_OFFSET_MINUTES.contains(&self.utc_offset_minutes) {
            return Err(format!(
                "{section}.utc_offset_minutes is {}: it must be from {} to {}, such as 480 for UTC+8",
                self.utc_offset_minutes,
                UTC_OFFSET_MINUTES.start(),
                UTC_OFFSET_MINUTES.end()
            ));
        }
        let days = [
            &self.monday,
            &self.tuesday,
            &self.wednesday,
            &self.thursday,
            &self.friday,
            &self.saturday,
            &self.sunday,
        ];
        let mut schedule =
            Schedule { utc_offset_minutes: self.utc_offset_minutes, ..Schedule::default() };
        for ((name, text), day) in DAY_NAMES.iter().zip(days).zip(&mut schedule.week) {
            *day = Schedule::parse_day(text).map_err(|e| format!("{section}.{name} {e}"))?;
        }
        Ok(schedule)
    }
}

impl Caps {
    pub fn settle(&self) -> (allowance::Caps, Asymmetry) {
        let bytes = |cap| Some(cap).filter(|cap| *cap > 0);
        let ratio = |max| Some(max).filter(|max| *max > 0);
        let caps = allowance::Caps {
            egress_bytes_per_day_max: bytes(self.egress_bytes_per_day_max),
            egress_bytes_per_month_max: bytes(self.egress_bytes_per_month_max),
        };
        let asymmetry = Asymmetry {
            ratio_max_24_hours: ratio(self.egress_to_ingress_max_24_hours),
            ratio_max_30_days: ratio(self.egress_to_ingress_max_30_days),
        };
        (caps, asymmetry)
    }

    /// Of the whole line.
    pub fn line_asymmetry(&self) -> Asymmetry {
        let ratio = |max| Some(max).filter(|max| *max > 0);
        Asymmetry {
            ratio_max_24_hours: ratio(self.line_egress_to_ingress_max_24_hours),
            ratio_max_30_days: ratio(self.line_egress_to_ingress_max_30_days),
        }
    }
}

impl Default for Fill {
    fn default() -> Self {
        Fill {
            ingress_bytes_per_second_max: 0,
            yields_to_household: true,
            windows: Week::default(),
        }
    }
}

impl Fill {
    /// Or one sentence on what to change.
    pub fn settle(&self) -> Result<Hours, String> {
        let rate = self.ingress_bytes_per_second_max;
        if (1..RATE_MIN_BYTES_PER_SECOND).contains(&rate) {
            return Err(format!(
                "fill.ingress_bytes_per_second_max is {rate}: it must be at least \
                 {RATE_MIN_BYTES_PER_SECOND}, or 0 for no limit; to fill at certain hours only, use \
                 fill.windows"
            ));
        }
        let week = self.windows.settle("fill.windows")?;
        let is_part = |share: &Share| !share.is_off() && *share != Share::FULL;
        if rate == 0 && week.week.iter().flatten().any(is_part) {
            return Err("fill.windows has hours of 1 to 9, which are parts of \
                        fill.ingress_bytes_per_second_max: set that too, or write F or 0"
                .into());
        }
        Ok(Hours { week, bytes_per_second_max: Some(rate).filter(|rate| *rate > 0) })
    }
}

impl Default for Cache {
    fn default() -> Self {
        Cache {
            quota_bytes: 16 * GIB,
            reserve_bytes: 512 * MIB,
            scrub_bytes_per_second: 256 * KIB,
            fill_bytes_per_day_max: 0,
            ingress_bytes_per_month_max: 0,
            flash_bytes_per_day_max: FLASH_BYTES_PER_DAY_DEFAULT,
            flash_percent_of_egress_max: FLASH_PERCENT_OF_EGRESS_DEFAULT,
        }
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
        self.serve.check()?;
        self.schedule.settle("schedule")?;
        self.fill.settle()?;
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
            "[serve]\nconnections_max = 0",
            "[serve]\nconnections_per_content_max = 1000000",
            "[serve]\nmode = \"fixed\"",
            "[serve]\nwan_interface = \"../eth0\"",
            "[hub]\nurl = \"ftp://x/\"",
            "[schedule]\nutc_offset_minutes = 900",
            "[schedule]\nfriday = \"FFFF\"",
            "[schedule]\nfriday = \"xFFFFFFFFFFFFFFFFFFFFFFF\"",
            "[fill]\ningress_bytes_per_second_max = 1000",
            "[fill.windows]\nfriday = \"FFFF\"",
            "[fill.windows]\nfriday = \"555555555555555555555555\"",
            "[hub]\nclaim_code = \"abc\"",
            "[serve]\nlan_prefixes = [\"192.168.1.1\"]",
            "[serve]\nlan_prefixes = [\"0.0.0.0/0\"]",
        ] {
            assert!(matches!(parse(bad), Err(ConfigError::Invalid { .. })), "{bad}");
        }
    }

    #[test]
    fn an_unknown_mode_is_refused_with_those_that_there_are() {
        let error = parse("[serve]\nmode = \"fast\"").expect_err("refused").to_string();
        assert!(error.contains("auto") && error.contains("fixed"), "{error}");
    }

    #[test]
    fn a_limit_alone_is_fixed_and_no_limit_is_auto() {
        let egress = |text: &str| parse(text).expect("parses").serve.egress();
        let auto = egress("");
        assert!(auto.is_auto && auto.bytes_per_second_max == NO_LIMIT_BYTES_PER_SECOND);
        assert_eq!(auto.unmeasured_bytes_per_second, UNMEASURED_BYTES_PER_SECOND);
        let fixed = egress("[serve]\negress_bytes_per_second_max = 5000");
        assert_eq!((fixed.is_auto, fixed.bytes_per_second_max), (false, 5000));
        let both = egress("[serve]\nmode = \"auto\"\negress_bytes_per_second_max = 5000");
        assert_eq!((both.is_auto, both.bytes_per_second_max), (true, 5000));
        assert_eq!(both.unmeasured_bytes_per_second, 5000);
    }

    #[test]
    fn says_what_is_wrong_with_a_day() {
        let error = parse("[schedule]\nfriday = \"FFFF\"").expect_err("refused").to_string();
        assert!(error.contains("schedule.friday needs 24 characters"), "{error}");
        assert!(error.ends_with("has 4"), "{error}");
    }

    #[test]
    fn fill_windows_are_a_week_of_their_own() {
        let text = "[fill]\ningress_bytes_per_second_max = 1000000\n\
                    [fill.windows]\nfriday = \"FF5500000000000000000000\"";
        let hours = parse(text).expect("parses").fill.settle().expect("fine");
        assert_eq!(hours.bytes_per_second_max, Some(1_000_000));
        assert_eq!(hours.week.week[4][2], Share::percent(50));
        assert_eq!(parse("").expect("parses").fill.settle(), Ok(Hours::default()));
        let error = parse("[fill.windows]\nfriday = \"F\"").expect_err("refused").to_string();
        assert!(error.contains("fill.windows.friday needs 24 characters"), "{error}");
        assert!(parse("[fill]\nrate = 1").is_err());
    }

    #[test]
    fn an_empty_list_of_networks_is_not_an_absent_one() {
        let lan = |text| parse(text).expect("parses").serve.settle_lan().expect("fine");
        assert_eq!(lan(""), None);
        assert_eq!(lan("[serve]\nlan_prefixes = []"), Some(vec![]));
        let one = lan("[serve]\nlan_prefixes = [\"10.0.0.0/24\"]").expect("given");
        assert_eq!(one[0].to_string(), "10.0.0.0/24");
    }

    #[test]
    fn zero_is_no_cap_and_no_guard() {
        let (caps, asymmetry) = Caps::default().settle();
        assert!(caps.is_trivial() && asymmetry.is_trivial());
        let config = parse("[caps]\negress_bytes_per_day_max = 5").expect("parses");
        assert_eq!(config.caps.settle().0.egress_bytes_per_day_max, Some(5));
    }
}
