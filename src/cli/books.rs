//! `larder books` and `larder origin-usage`: what the hub has on record.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    hub::{CliError, HubArgs, HubClient},
    output,
};
use crate::{
    api::hub::{Books, OriginUsage},
    logic::now::UnixSeconds,
};

#[derive(clap::Args)]
pub struct BooksArgs {
    /// Such as 2026-11, in UTC; without it, this month.
    #[arg(long)]
    month: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

pub async fn run(args: BooksArgs) -> Result<(), CliError> {
    let month = args.month.unwrap_or_else(this_month);
    let books: Books = HubClient::new(&args.hub)?.get(&format!("books?month={month}")).await?;
    if args.hub.json {
        output::json(&books);
        return Ok(());
    }
    let currency = output::printable(&books.currency);
    let head = ["DEVICE", "INFOHASH", "PAYLOAD BYTES", "WIRE BYTES", &currency];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(books.lines.iter().map(|line| {
        vec![
            output::printable(&line.device),
            line.infohash.to_string(),
            line.payload_bytes.to_string(),
            line.wire_bytes.to_string(),
            line.amount.to_string(),
        ]
    }));
    output::table(&rows);
    Ok(())
}

pub async fn origin_usage(args: HubArgs) -> Result<(), CliError> {
    let usage: OriginUsage = HubClient::new(&args)?.get("origin-usage").await?;
    if args.json {
        output::json(&usage);
        return Ok(());
    }
    let mut rows = vec![["INFOHASH", "EGRESS BYTES"].map(str::to_owned).to_vec()];
    let line = |l: &crate::api::hub::OriginUsageLine| {
        vec![l.infohash.to_string(), l.egress_bytes.to_string()]
    };
    rows.extend(usage.lines.iter().map(line));
    output::table(&rows);
    Ok(())
}

/// In UTC, as the hub keeps its books.
pub fn this_month() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds(now.as_secs()).hour().day().month().to_string()
}
