//! `larder demo`: a hub and a device on this machine, doing the whole job. Being built.

use std::{path::PathBuf, process::ExitCode};

#[derive(clap::Args)]
pub struct DemoArgs {
    /// Files to publish; without any, 64 MiB made on the spot.
    #[arg(long, num_args = 1..)]
    pub content: Vec<PathBuf>,
    /// Keep everything here between runs; without it, nothing is left behind.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// One line of JSON when the device is serving.
    #[arg(long)]
    pub json: bool,
    /// Run the whole chain once, compare the numbers at every link, and exit.
    #[arg(long)]
    pub check: bool,
}

pub fn run(_args: DemoArgs) -> ExitCode {
    eprintln!("larder: the demo is not part of this build");
    ExitCode::from(1)
}
