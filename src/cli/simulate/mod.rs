//! `larder simulate`: plays demand against a fleet in virtual time, through the very ranking, list and
//! planner code that hub and devices run, and says what each policy would have come to.

mod demand;
mod fleet;
mod generate;
mod model;
mod ours;
mod pull;
mod run;
mod trace;

use std::{path::PathBuf, process::ExitCode, str::FromStr};

use self::{
    demand::{Demand, SimulateError},
    generate::Generated,
    model::Model,
    run::{Outcome, Policy, Scene},
    trace::Trace,
};
use super::output;
use crate::logic::units::HumanBytes;

/// 20 Mbit/s of a home's uplink would be 2500000.
const DEVICES_MAX: u32 = 100_000;

#[derive(clap::Args)]
pub struct SimulateArgs {
    /// Requests to play, one a line, in order of time: `time object size_bytes`.
    #[arg(long, conflicts_with = "demand", required_unless_present = "demand")]
    trace: Option<PathBuf>,
    /// A model of demand to play (TOML; docs/simulate.md).
    #[arg(long)]
    demand: Option<PathBuf>,
    /// What the model's chances come from; the same seed plays the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long)]
    devices: u32,
    /// Of each device; or "3%": so much of the catalogue for the whole fleet.
    #[arg(long)]
    disk_bytes: Disk,
    /// Of each device.
    #[arg(long)]
    uplink_bytes_per_second: u64,
    /// One or more, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    policy: Vec<Policy>,
    /// From one hot list to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    epoch: f64,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Disk {
    Bytes(u64),
    /// Of the catalogue, for all devices together.
    Share(f64),
}

impl FromStr for Disk {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Disk, &'static str> {
        let wrong = "it must be a number of bytes, or a share of the catalogue such as 3%";
        match text.strip_suffix('%') {
            None => text.parse().map(Disk::Bytes).map_err(|_| wrong),
            Some(percent) => {
                let percent = percent.parse::<f64>().map_err(|_| wrong)?;
                (0.0..=1e6).contains(&percent).then_some(Disk::Share(percent / 100.0)).ok_or(wrong)
            }
        }
    }
}

pub fn run(args: &SimulateArgs) -> ExitCode {
    match play(args) {
        Ok(outcomes) if args.json => output::json(&outcomes),
        Ok(outcomes) => table(&outcomes),
        Err(error) => {
            eprintln!("larder: {error}");
            return ExitCode::from(1);
        }
    }
    ExitCode::SUCCESS
}

fn play(args: &SimulateArgs) -> Result<Vec<Outcome>, SimulateError> {
    let option = |problem: String| Err(SimulateError::Option(problem));
    if !(1..=DEVICES_MAX).contains(&args.devices) {
        return option(format!("--devices must be from 1 to {DEVICES_MAX}"));
    }
    if !(args.epoch.is_finite() && args.epoch > 0.0) {
        return option("--epoch must be more than 0 seconds".into());
    }
    let demand: Box<dyn Demand> = match (&args.trace, &args.demand) {
        (Some(trace), _) => Box::new(Trace::open(trace)?),
        (None, Some(model)) => Box::new(Generated::new(Model::read(model)?, args.seed)),
        (None, None) => return option("name a --trace or a --demand model".into()),
    };
    let catalogue_bytes: u64 = demand.catalogue().iter().sum();
    let disk_bytes = match args.disk_bytes {
        Disk::Bytes(bytes) => bytes,
        Disk::Share(share) => (catalogue_bytes as f64 * share / f64::from(args.devices)) as u64,
    };
    let scene = Scene {
        devices: args.devices,
        disk_bytes,
        uplink_bytes_per_second: args.uplink_bytes_per_second,
        epoch_seconds: args.epoch,
    };
    if !args.json {
        println!(
            "{} contents of {}; {} devices with {} each",
            demand.catalogue().len(),
            HumanBytes(catalogue_bytes),
            args.devices,
            HumanBytes(disk_bytes),
        );
    }
    args.policy.iter().map(|policy| run::run(&*demand, scene, *policy)).collect()
}

fn table(outcomes: &[Outcome]) {
    let head = ["POLICY", "OFFLOAD", "NET", "ORIGIN", "FILLS", "FLASH", "EGRESS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(outcomes.iter().map(|o| {
        vec![
            o.policy.to_owned(),
            format!("{:.4}", o.offload_ratio),
            format!("{:.4}", o.net_offload_ratio),
            HumanBytes(o.origin_bytes).to_string(),
            HumanBytes(o.fill_bytes).to_string(),
            HumanBytes(o.flash_bytes_written).to_string(),
            HumanBytes(o.egress_bytes).to_string(),
        ]
    }));
    output::table(&rows);
}

#[cfg(test)]
mod tests;
