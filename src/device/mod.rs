//! Shell of `larderd`: reads its configuration, wires the adapters to the pure node, runs until
//! told to stop. The adapters (`serve`, `gateway`, `store`, `swarm`, `upstream`, `admin`) do not
//! know each other; they meet in `start`, `daemon`, `auto`, `tasks`, `filling`, `keeper` and `owner`.

pub mod admin;
mod announcing;
mod auto;
mod bookkeeping;
mod books;
mod clock;
mod counting;
mod daemon;
mod damage;
mod disk;
mod filling;
pub mod gateway;
mod identity;
mod keeper;
mod lan;
mod line;
mod message;
mod observe;
mod open_files;
mod outbound;
mod owner;
mod placing;
mod preload;
mod quiet;
pub mod serve;
mod start;
mod status;
pub mod store;
pub mod swarm;
mod sys;
mod tasks;
pub mod upstream;
mod weights;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use url::Url;

use crate::config::{self, Settings, device::DeviceConfig};

/// sysexits.h
const EX_SOFTWARE: u8 = 70;
const EX_CONFIG: u8 = 78;

#[derive(Parser)]
#[command(
    name = "larderd",
    version,
    about = "Larder's device daemon: caches and serves hot content"
)]
struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Configuration file (TOML); without it, the defaults hold
    #[arg(long, global = true, env = "LARDER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept
    #[arg(long, global = true, env = "LARDER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The operator's hub
    #[arg(long, env = "LARDER_HUB_URL", value_name = "URL")]
    hub_url: Option<Url>,
    /// The operator's pinned TUF root
    #[arg(long, env = "LARDER_HUB_ROOT_FILE", value_name = "FILE")]
    root_file: Option<PathBuf>,
    /// One-time code that enrols this device
    #[arg(long, env = "LARDER_CLAIM_CODE", value_name = "CODE")]
    claim_code: Option<String>,
    /// Print the commented default configuration and exit
    #[arg(long)]
    print_default_config: bool,
    /// Stop when the process that started this one ends
    #[arg(long)]
    stop_with_parent: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Take content that is on this machine already into the cache: verified, pinned, and without
    /// copying where the filesystem can link. Stop larderd first
    Preload(preload::PreloadArgs),
}

pub fn main() -> ExitCode {
    let mut args = Args::parse();
    if args.print_default_config {
        print!("{}", DeviceConfig::DEFAULT_TOML);
        return ExitCode::SUCCESS;
    }
    sys::give_large_buffers_back();
    crate::telemetry::init();
    if args.stop_with_parent
        && let Err(error) = crate::process::stop_with_parent()
    {
        return fail(EX_SOFTWARE, &error);
    }
    let action = args.action.take();
    let config = match args.settle() {
        Ok(config) => config,
        Err(error) => return fail(EX_CONFIG, &error),
    };
    if let Some(Action::Preload(args)) = action {
        return match preload::run(&config, &args) {
            Ok(code) => code,
            Err(error) => fail(error.exit_code(), &error),
        };
    }
    // The serving engine has a thread of its own; this is for the control plane and for fills.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(start::run(config)),
        Err(error) => return fail(EX_SOFTWARE, &error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error),
    }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("larderd: {error}");
    ExitCode::from(code)
}

impl Args {
    /// Defaults < file < environment < flags (clap has already put flags before environment).
    fn settle(self) -> Result<DeviceConfig, config::ConfigError> {
        let mut settled = match &self.config {
            Some(path) => config::load::<DeviceConfig>(path)?,
            None => DeviceConfig::default(),
        };
        if let Some(data_dir) = self.data_dir {
            settled.data_dir = data_dir;
        }
        if let Some(url) = self.hub_url {
            settled.hub.url = Some(url);
        }
        if let Some(root_file) = self.root_file {
            settled.hub.root_file = root_file;
        }
        if let Some(claim_code) = self.claim_code {
            settled.hub.claim_code = claim_code;
        }
        settled.check().map_err(|message| config::ConfigError::Invalid {
            path: "the settings given by flags and environment".into(),
            message,
        })?;
        Ok(settled)
    }
}
