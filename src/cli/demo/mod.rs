//! `larder demo`: the main job on one machine. Starts a real hub and a real device as processes of
//! their own on loopback, publishes content, and shows how the device verifies, fills, announces,
//! serves and earns. `--check` downloads from the device and compares everybody's books.

mod check;
mod stage;
mod view;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{stage::Stage, view::View};
use crate::{
    api::admin::{ContentState, Status},
    logic::units::MIB,
};

/// Made on the spot when no content is given.
const GENERATED_BYTES: u64 = 64 * MIB;
/// From start to serving, without progress.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

#[derive(Args)]
pub struct DemoArgs {
    /// Files or folders to publish; without it, 64 MiB are made on the spot
    #[arg(long, value_name = "PATH", num_args = 1..)]
    content: Vec<PathBuf>,
    /// Keep everything here between runs; without it, nothing is left behind
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print machine-readable JSON: one line when serving, or the result of --check
    #[arg(long)]
    json: bool,
    /// Run the whole chain unattended, compare all books, and exit
    #[arg(long)]
    check: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("{0}")]
    Failed(String),
    #[error("{what} did not happen within {} seconds; see the logs in {}", .waited.as_secs(), .logs.display())]
    TimedOut { what: &'static str, waited: Duration, logs: PathBuf },
    #[error("{program} stopped: {last_words}")]
    Died { program: &'static str, last_words: String },
    #[error("stopped before it was done")]
    Interrupted,
}

impl DemoError {
    fn failed(error: impl std::fmt::Display) -> DemoError {
        DemoError::Failed(error.to_string())
    }
}

pub fn run(args: &DemoArgs) -> ExitCode {
    // One thread, so that "stop with the parent" means this process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(demo(args)),
        Err(error) => Err(DemoError::failed(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &DemoArgs) -> Result<(), DemoError> {
    let mut stop = Stop::new()?;
    let mut stage = Stage::new(args.data.as_deref(), &args.content)?;
    let outcome = tokio::select! {
        biased;
        () = stop.asked() => match args.check {
            true => Err(DemoError::Interrupted),
            false => Ok(()),
        },
        outcome = play(args, &mut stage) => outcome,
    };
    stage.close().await;
    outcome
}

/// Ends by itself only with `--check` or an error.
async fn play(args: &DemoArgs, stage: &mut Stage) -> Result<(), DemoError> {
    let view = View::new(args.json || args.check);
    stage.start_hub().await?;
    view.started_hub(stage);
    stage.start_device().await?;
    view.started_device(stage);
    stage.publish().await?;
    view.published(stage);
    until_serving(stage, &view).await?;
    if args.check {
        return check::check(stage, args.json).await;
    }
    match args.json {
        true => println!("{}", stage.ready_line()),
        false => view.serving(stage),
    }
    loop {
        stage.check_alive()?;
        view.live(&stage.device_status().await?);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn until_serving(stage: &mut Stage, view: &View) -> Result<(), DemoError> {
    let mut progress = (0, tokio::time::Instant::now());
    loop {
        stage.check_alive()?;
        let status = stage.device_status().await?;
        view.live(&status);
        if stage.is_served(&status) {
            return Ok(());
        }
        let held: u64 = status.cache.contents.iter().map(|c| c.held_bytes).sum();
        if held != progress.0 {
            progress = (held, tokio::time::Instant::now());
        }
        if progress.1.elapsed() > PATIENCE {
            let problem = status.problem.map(|p| format!(": {p}")).unwrap_or_default();
            return Err(DemoError::Failed(format!(
                "the device did not get to serving within {} seconds{problem}",
                PATIENCE.as_secs()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether all of `wanted` are complete and on the air.
fn all_served(status: &Status, wanted: &[crate::logic::infohash::Infohash]) -> bool {
    wanted.iter().all(|infohash| {
        status.cache.contents.iter().any(|c| {
            c.infohash == *infohash
                && c.state == ContentState::Serving
                && c.held_bytes == c.size_bytes
        })
    })
}

/// Ctrl-C or SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Stop, DemoError> {
        Ok(Stop {
            interrupt: signal(SignalKind::interrupt()).map_err(DemoError::failed)?,
            terminate: signal(SignalKind::terminate()).map_err(DemoError::failed)?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => (), _ = self.terminate.recv() => () }
    }
}
