//! Configuration files: TOML, defaults for everything that can have one, unknown keys refused with
//! file and line. Each program's settings are one struct; its commented default file is checked by
//! a test to be exactly what the struct's defaults say.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

// `larder config check` reads both.
#[cfg(any(feature = "device", feature = "cli"))]
pub mod device;
#[cfg(any(feature = "hub", feature = "cli"))]
pub mod hub;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: cannot read the configuration: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// `message` names line and column.
    #[error("{path}:{line}: {message}")]
    Parse { path: PathBuf, line: usize, message: String },
    #[error("{path}: {message}")]
    Invalid { path: PathBuf, message: String },
}

/// What a settings struct must offer beyond its fields.
pub trait Settings: DeserializeOwned {
    /// The commented default file.
    const DEFAULT_TOML: &'static str;

    /// Checks that serde cannot make; one sentence that says what to do.
    fn check(&self) -> Result<(), String>;
}

/// Reads and checks a file.
pub fn load<S: Settings>(path: &Path) -> Result<S, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// `path` is for messages only.
pub fn parse<S: Settings>(path: &Path, text: &str) -> Result<S, ConfigError> {
    let settings: S = toml::from_str(text).map_err(|e| {
        let start = e.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text[..start].matches('\n').count();
        ConfigError::Parse { path: path.to_owned(), line, message: one_line(&e.message()) }
    })?;
    settings.check().map_err(|message| ConfigError::Invalid { path: path.to_owned(), message })?;
    Ok(settings)
}

fn one_line(message: &impl fmt::Display) -> String {
    message.to_string().lines().collect::<Vec<_>>().join(" ")
}
