//! `larder-hub`, the operator's service: publishes signed hot lists, serves the origin and the
//! tracker, takes reports and settles them. This file is its command line and nothing more.

mod addresses;
mod channel;
mod claim_code;
mod clock;
mod disk;
mod http;
mod init;
mod keys;
mod origin;
mod presence;
mod publisher;
mod reflector;
mod repo;
mod report;
mod run;
mod settle;
mod state;
mod store;
mod upload;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use url::Url;

use crate::{
    config::{self, ConfigError, Settings, hub::HubConfig},
    telemetry,
};

#[derive(Parser)]
#[command(name = "larder-hub", version, about = "The operator's service of Larder")]
struct Args {
    /// Print the commented default configuration and exit.
    #[arg(long)]
    print_default_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make keys, the first signed repository, the database and the operator's token.
    Init(Common),
    /// Serve until told to stop.
    Run(RunArgs),
}

#[derive(clap::Args)]
struct Common {
    /// Configuration file (TOML); without it, the defaults.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where everything is kept; overrides the file.
    #[arg(long, env = "LARDER_HUB_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(clap::Args)]
struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// Address to listen on; overrides the file. Port 0 takes any free one.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// How the hub is reached; overrides the file. Port 0 stands for the port it listens on.
    #[arg(long)]
    public_url: Option<Url>,
    /// Stop when the process that started this one ends.
    #[arg(long)]
    stop_with_parent: bool,
}

/// Exit codes of sysexits.h.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(
        "nothing to do: name a command, such as `larder-hub run`; `larder-hub --help` lists them"
    )]
    Usage,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Setup(String),
    #[error(transparent)]
    Init(#[from] init::InitError),
    #[error(transparent)]
    Run(#[from] run::RunError),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage => 64,
            Failure::Config(_) | Failure::Setup(_) => 78,
            Failure::Init(error) => error.exit_code(),
            Failure::Run(error) => error.exit_code(),
            Failure::Runtime(_) => 71,
        }
    }
}

pub fn main() -> ExitCode {
    telemetry::init();
    match start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("larder-hub: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn start(args: Args) -> Result<(), Failure> {
    if args.print_default_config {
        print!("{}", HubConfig::DEFAULT_TOML);
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Runtime)?;
    match args.command.ok_or(Failure::Usage)? {
        Command::Init(common) => Ok(runtime.block_on(init::init(&settings(&common)?))?),
        Command::Run(run) => {
            if run.stop_with_parent {
                crate::process::stop_with_parent().map_err(Failure::Runtime)?;
            }
            let mut config = settings(&run.common)?;
            config.listen = run.listen.unwrap_or(config.listen);
            config.public_url = run.public_url.unwrap_or(config.public_url);
            config.check().map_err(Failure::Setup)?;
            let outcome = runtime.block_on(run::run(config));
            // An upload that is still being hashed is complete; publishing it again finds it.
            runtime.shutdown_background();
            Ok(outcome?)
        }
    }
}

fn settings(common: &Common) -> Result<HubConfig, Failure> {
    let mut config = match &common.config {
        Some(path) => config::load(path)?,
        None => HubConfig::default(),
    };
    if let Some(dir) = &common.data_dir {
        config.data_dir.clone_from(dir);
    }
    Ok(config)
}
