//! `larder list`: what devices are asked to hold.

use clap::Subcommand;

use super::{
    hub::{CliError, HubArgs, HubClient, QUICK},
    output::{self, printable},
};
use crate::{
    api::hub::{RevokeRequest, Revoked},
    logic::{hotlist::HotList, infohash::Infohash, units::HumanBytes},
};

#[derive(Subcommand)]
pub enum ListCommand {
    /// Show the hot list in force.
    Show {
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Take a content off the list, the origin and the tracker.
    Revoke {
        /// 40 hexadecimal digits.
        infohash: Infohash,
        /// Kept in the hub's books.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hub: HubArgs,
    },
}

pub async fn run(command: ListCommand) -> Result<(), CliError> {
    match command {
        ListCommand::Show { hub } => show(&hub).await,
        ListCommand::Revoke { infohash, reason, hub } => revoke(infohash, reason, &hub).await,
    }
}

async fn show(args: &HubArgs) -> Result<(), CliError> {
    let list: HotList = HubClient::new(args)?.get("list").await?;
    if args.json {
        output::json(&list);
        return Ok(());
    }
    println!("epoch {}, {} contents", list.epoch, list.entries.len());
    let head = ["INFOHASH", "SIZE", "REPLICAS", "PRICE", "LEASE UNTIL (UTC)", "NAME"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(list.entries.iter().map(|entry| {
        vec![
            entry.infohash.to_string(),
            HumanBytes(entry.size_bytes).to_string(),
            entry.replicas.to_string(),
            printable(&entry.price_class),
            entry.lease_end.hour().day().to_string(),
            printable(&entry.name),
        ]
    }));
    if !list.entries.is_empty() {
        output::table(&rows);
    }
    Ok(())
}

async fn revoke(infohash: Infohash, reason: String, args: &HubArgs) -> Result<(), CliError> {
    let request = RevokeRequest { infohash, reason };
    let revoked: Revoked = HubClient::new(args)?.post("list/revoke", &request, QUICK).await?;
    match args.json {
        true => output::json(&revoked),
        false => println!("{infohash} is off the list from epoch {} on", revoked.epoch),
    }
    Ok(())
}
