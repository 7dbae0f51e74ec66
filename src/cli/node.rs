//! `larder node`: the devices of the fleet.

use clap::Subcommand;

use super::{
    hub::{CliError, HubArgs, HubClient, QUICK},
    output,
};
use crate::{
    api::hub::{ClaimCodesRequest, ClaimCodesResponse, DeviceRow},
    logic::now::UnixSeconds,
};

#[derive(Subcommand)]
pub enum NodeCommand {
    /// Make one-time codes with which new devices enrol.
    Claim {
        /// How many.
        #[arg(long, default_value_t = 1)]
        count: u32,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Show the devices that have enrolled.
    List {
        #[command(flatten)]
        hub: HubArgs,
    },
}

pub async fn run(command: NodeCommand) -> Result<(), CliError> {
    match command {
        NodeCommand::Claim { count, hub } => claim(count, &hub).await,
        NodeCommand::List { hub } => list(&hub).await,
    }
}

async fn claim(count: u32, args: &HubArgs) -> Result<(), CliError> {
    let request = ClaimCodesRequest { count };
    let codes: ClaimCodesResponse =
        HubClient::new(args)?.post("claim-codes", &request, QUICK).await?;
    match args.json {
        true => output::json(&codes),
        false => codes.claim_codes.iter().for_each(|code| println!("{code}")),
    }
    Ok(())
}

async fn list(args: &HubArgs) -> Result<(), CliError> {
    let devices: Vec<DeviceRow> = HubClient::new(args)?.get("devices").await?;
    if args.json {
        output::json(&devices);
        return Ok(());
    }
    let day = |at: UnixSeconds| at.hour().day().to_string();
    let mut rows =
        vec![["DEVICE", "ENROLLED", "REPORTS", "LAST REPORT"].map(str::to_owned).to_vec()];
    rows.extend(devices.iter().map(|device| {
        vec![
            output::printable(&device.device),
            day(device.enrolled_at),
            device.reports.to_string(),
            device.last_report_at.map_or("never".to_owned(), day),
        ]
    }));
    match devices.is_empty() {
        true => println!("no device has enrolled yet; make a code with `larder node claim`"),
        false => output::table(&rows),
    }
    Ok(())
}
