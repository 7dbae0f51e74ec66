//! `larder`, the operator's command line. This file is its grammar and its exit codes: 0 done,
//! 1 failed, 2 not understood (clap's own), 78 a configuration file with an error.

mod books;
mod config_check;
mod demo;
mod hub;
mod list;
mod node;
mod output;
mod publish;
mod simulate;

use std::{future::Future, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::telemetry;
use hub::CliError;

#[derive(Parser)]
#[command(
    name = "larder",
    version,
    about = "Publish hot content to home devices and keep the books"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a hub and a device on this machine and watch them work.
    Demo(demo::DemoArgs),
    /// Publish a file or a directory: upload it and put it on the hot list.
    Publish(publish::PublishArgs),
    /// The hot list: what devices are asked to hold.
    #[command(subcommand)]
    List(list::ListCommand),
    /// The devices.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// A month of the books, by device and content.
    Books(books::BooksArgs),
    /// What the origin itself had to send, by content.
    OriginUsage(hub::HubArgs),
    /// Play demand against a fleet in virtual time, under each policy.
    Simulate(simulate::SimulateArgs),
    /// Configuration files.
    #[command(subcommand)]
    Config(config_check::ConfigCommand),
}

pub fn main() -> ExitCode {
    telemetry::init();
    match Args::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Publish(args) => run(publish::run(args)),
        Command::List(command) => run(list::run(command)),
        Command::Node(command) => run(node::run(command)),
        Command::Books(args) => run(books::run(args)),
        Command::OriginUsage(args) => run(books::origin_usage(args)),
        Command::Simulate(args) => simulate::run(&args),
        Command::Config(command) => config_check::run(&command),
    }
}

fn run(work: impl Future<Output = Result<(), CliError>>) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
        .and_then(|runtime| runtime.block_on(work));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder: {error}");
            ExitCode::from(1)
        }
    }
}
