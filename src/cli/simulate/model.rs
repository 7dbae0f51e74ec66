//! The demand model's settings, as a TOML file says them (docs/simulate.md). Draws nothing:
//! `generate.rs` does.

use std::path::Path;

use serde::Deserialize;

use super::demand::{CONTENTS_MAX, SimulateError};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    pub days: u32,
    pub catalogue: Catalogue,
    pub sizes: Sizes,
    pub decay: Decay,
    pub demand: Rates,
    pub devices: Devices,
    pub jumps: Vec<Jump>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalogue {
    /// At the start; they arrived at the same rate before.
    pub contents: u32,
    pub arrivals_per_day: f64,
    /// The exponent: the content of rank n is asked for n^-zipf as often as the first.
    pub zipf: f64,
}

/// Log-uniform between the least and the most.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sizes {
    pub video_share: f64,
    pub video_bytes_min: u64,
    pub video_bytes_max: u64,
    pub download_bytes_min: u64,
    pub download_bytes_max: u64,
}

/// Popularity halves after a time that is log-uniform between these, down to a floor.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decay {
    pub half_life_hours_min: f64,
    pub half_life_hours_max: f64,
    pub floor: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    pub requests_per_day: f64,
    pub daily_peak_to_trough: f64,
    pub peak_hour: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Devices {
    /// Of the time.
    pub online_share: f64,
    /// The mean time for which a device stays.
    pub session_hours: f64,
}

/// A content of the middle of the catalogue is suddenly wanted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jump {
    pub at_hour: f64,
    pub factor: f64,
    pub lasts_hours: f64,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            days: 14,
            catalogue: Catalogue::default(),
            sizes: Sizes::default(),
            decay: Decay::default(),
            demand: Rates::default(),
            devices: Devices::default(),
            jumps: vec![],
        }
    }
}

impl Default for Catalogue {
    fn default() -> Self {
        Catalogue { contents: 5_000, arrivals_per_day: 100.0, zipf: 0.9 }
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes {
            video_share: 0.7,
            video_bytes_min: 200_000_000,
            video_bytes_max: 4_000_000_000,
            download_bytes_min: 20_000_000,
            download_bytes_max: 2_000_000_000,
        }
    }
}

impl Default for Decay {
    fn default() -> Self {
        Decay { half_life_hours_min: 12.0, half_life_hours_max: 336.0, floor: 0.02 }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Rates { requests_per_day: 20_000.0, daily_peak_to_trough: 5.0, peak_hour: 21.0 }
    }
}

impl Default for Devices {
    fn default() -> Self {
        Devices { online_share: 1.0, session_hours: 72.0 }
    }
}

const DAYS_MAX: u32 = 3_660;
const REQUESTS_PER_DAY_MAX: f64 = 20_000_000.0;
const BYTES_MAX: u64 = 1 << 44;
const JUMPS_MAX: usize = 1_000;

impl Model {
    pub fn read(path: &Path) -> Result<Model, SimulateError> {
        let file_error = |source| SimulateError::File { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(file_error)?;
        Model::parse(&text)
            .map_err(|problem| SimulateError::Model { path: path.to_owned(), problem })
    }

    pub fn parse(text: &str) -> Result<Model, String> {
        let model: Model = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
            format!("line {line}: {}", error.message().replace('\n', "; "))
        })?;
        model.check()?;
        Ok(model)
    }

    fn check(&self) -> Result<(), String> {
        let (c, d, r, o) = (&self.catalogue, &self.decay, &self.demand, &self.devices);
        within("days", f64::from(self.days), 1.0, f64::from(DAYS_MAX))?;
        let contents_max = CONTENTS_MAX as f64;
        within("catalogue.contents", f64::from(c.contents), 1.0, contents_max)?;
        let arrivals = c.arrivals_per_day * f64::from(self.days);
        within("catalogue.arrivals_per_day", c.arrivals_per_day, 0.0, contents_max)?;
        within("catalogue.arrivals_per_day × days", arrivals, 0.0, contents_max)?;
        within("catalogue.zipf", c.zipf, 0.0, 3.0)?;
        within("decay.half_life_hours_min", d.half_life_hours_min, 0.1, d.half_life_hours_max)?;
        within("decay.half_life_hours_max", d.half_life_hours_max, 0.1, 1e6)?;
        within("decay.floor", d.floor, 0.0, 1.0)?;
        within("demand.requests_per_day", r.requests_per_day, 1.0, REQUESTS_PER_DAY_MAX)?;
        within("demand.daily_peak_to_trough", r.daily_peak_to_trough, 1.0, 100.0)?;
        within("demand.peak_hour", r.peak_hour, 0.0, 24.0)?;
        within("devices.online_share", o.online_share, 0.01, 1.0)?;
        within("devices.session_hours", o.session_hours, 0.01, 1e6)?;
        self.sizes.check()?;
        if self.jumps.len() > JUMPS_MAX {
            return Err(format!("there may be {JUMPS_MAX} jumps at most"));
        }
        for jump in &self.jumps {
            within("jumps.at_hour", jump.at_hour, 0.0, f64::from(self.days) * 24.0)?;
            within("jumps.factor", jump.factor, 1.0, 1e6)?;
            within("jumps.lasts_hours", jump.lasts_hours, 0.01, 1e4)?;
        }
        Ok(())
    }
}

impl Sizes {
    fn check(&self) -> Result<(), String> {
        within("sizes.video_share", self.video_share, 0.0, 1.0)?;
        for (name, min, max) in [
            ("sizes.video_bytes", self.video_bytes_min, self.video_bytes_max),
            ("sizes.download_bytes", self.download_bytes_min, self.download_bytes_max),
        ] {
            if min < 1 || min > max || max > BYTES_MAX {
                return Err(format!("{name}_min and _max must be from 1 to {BYTES_MAX}, in order"));
            }
        }
        Ok(())
    }
}

fn within(name: &str, value: f64, min: f64, max: f64) -> Result<(), String> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(format!("{name} is {value}: it must be from {min} to {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_model() {
        assert_eq!(Model::parse(""), Ok(Model::default()));
    }

    #[test]
    fn says_which_value_is_wrong_and_what_it_may_be() {
        for (text, expected) in [
            ("[catalogue]\nzipf = 7.0", "catalogue.zipf is 7: it must be from 0 to 3"),
            ("days = 0", "days is 0: it must be from 1 to 3660"),
            ("[sizes]\nvideo_bytes_min = 0", "sizes.video_bytes_min and _max must be from 1"),
            ("[catalogue]\nzipff = 1", "line 2: unknown field `zipff`"),
            ("[decay]\nhalf_life_hours_min = 500.0", "decay.half_life_hours_min is 500: "),
        ] {
            let problem = Model::parse(text).expect_err("refused");
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
