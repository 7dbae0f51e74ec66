//! What the simulator plays: who asks for what, and when devices come and go. Two sources, a trace
//! and a model; this file is what they have in common.

use std::path::PathBuf;

/// Contents in one run: 16 bytes each, and their names if they come from a trace.
pub const CONTENTS_MAX: usize = 20_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Index into the catalogue.
    pub content: u32,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    Request(Request),
    Presence { device: u32, online: bool },
}

/// The same from play to play.
pub trait Demand {
    /// The size of each content that is ever asked for or could be.
    fn catalogue(&self) -> &[u64];

    /// In order of time, which is in seconds.
    fn play(
        &self,
        devices: u32,
        each: &mut dyn FnMut(f64, Event) -> Result<(), SimulateError>,
    ) -> Result<(), SimulateError>;
}

#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: {problem}")]
    Line { path: PathBuf, line: u64, problem: String },
    #[error("{path}: {problem}")]
    Model { path: PathBuf, problem: String },
    #[error("{path} has no requests: each line is `time object size_bytes`")]
    Empty { path: PathBuf },
    #[error(
        "{requests} requests fall into one epoch; choose a shorter --epoch than {epoch_seconds} s"
    )]
    EpochTooLong { requests: usize, epoch_seconds: f64 },
    #[error("{0}")]
    Option(String),
}
