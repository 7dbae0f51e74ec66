//! `larder demo --check`: a downloader takes the content from the device, and the books of device,
//! downloader and hub are compared to the byte.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{DemoError, POLL, stage::Stage};
use crate::{
    api::hub::BookLine,
    client,
    logic::units::{HumanBytes, Micros},
};

/// The downloader gives up when nothing comes for this long.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(60);
/// Reports go every few seconds in the demo.
const BOOKS_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Outcome {
    content_bytes: u64,
    filled_bytes: u64,
    fill_source: FillSource,
    egress_bytes: u64,
    downloaded_bytes: u64,
    reported_bytes: u64,
    earned: Earned,
    admin_url: String,
    hub_url: String,
    seconds: f64,
}

#[derive(Serialize)]
struct FillSource {
    web_seed: u64,
    peers: u64,
}

#[derive(Serialize)]
struct Earned {
    /// Decimal, six places.
    amount: String,
    currency: String,
}

/// What device and hub wrote before this run (with `--data`).
struct Before {
    egress: u64,
    reported: u64,
    amount: Micros,
}

pub async fn check(stage: &mut Stage, json: bool) -> Result<(), DemoError> {
    let before = before(stage).await?;
    let mut downloaded_bytes = 0;
    for item in stage.published().to_vec() {
        let folder = stage.folder("download").join(item.infohash.to_string());
        let torrent = std::fs::read(&item.torrent).map_err(DemoError::failed)?;
        let fetched = client::fetch(torrent.into(), vec![stage.peer()], &folder, DOWNLOAD_PATIENCE)
            .await
            .map_err(DemoError::failed)?;
        item.verify(&folder)?;
        downloaded_bytes += fetched.received_bytes;
        stage.check_alive()?;
    }
    let (egress_bytes, lines) = settle(stage, &before, downloaded_bytes).await?;
    let reported_bytes = payload(&lines) - before.reported;
    let amount = lines.iter().map(|l| l.amount).sum::<Micros>().0 - before.amount.0;
    let status = stage.device_status().await?;
    let ours = |infohash| stage.published().iter().any(|p| p.infohash == infohash);
    let contents: Vec<_> = status.cache.contents.iter().filter(|c| ours(c.infohash)).collect();
    let outcome = Outcome {
        content_bytes: stage.published().iter().map(|p| p.size_bytes).sum(),
        filled_bytes: contents.iter().map(|c| c.held_bytes).sum(),
        fill_source: FillSource {
            web_seed: contents.iter().map(|c| c.filled_by_web_seed_bytes).sum(),
            peers: contents.iter().map(|c| c.filled_by_peer_bytes).sum(),
        },
        egress_bytes,
        downloaded_bytes,
        reported_bytes,
        earned: Earned {
            amount: Micros(amount).to_string(),
            currency: status.earnings.currency.clone(),
        },
        admin_url: stage.admin_url().to_owned(),
        hub_url: stage.hub_url().to_owned(),
        seconds: stage.seconds(),
    };
    outcome.agrees()?;
    match json {
        true => println!("{}", serde_json::to_string(&outcome).map_err(DemoError::failed)?),
        false => outcome.print(),
    }
    Ok(())
}

/// Waits until device and hub have booked what was downloaded; whatever they say then is compared.
async fn settle(
    stage: &mut Stage,
    before: &Before,
    downloaded_bytes: u64,
) -> Result<(u64, Vec<BookLine>), DemoError> {
    let deadline = Instant::now() + BOOKS_PATIENCE;
    loop {
        stage.check_alive()?;
        let egress = egress(stage).await? - before.egress;
        let lines = stage.books().await?;
        let reported = payload(&lines) - before.reported;
        let settled = egress >= downloaded_bytes && reported == egress;
        if settled || Instant::now() > deadline {
            return Ok((egress, lines));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn before(stage: &mut Stage) -> Result<Before, DemoError> {
    let lines = stage.books().await?;
    Ok(Before {
        egress: egress(stage).await?,
        reported: payload(&lines),
        amount: lines.iter().map(|l| l.amount).sum(),
    })
}

async fn egress(stage: &Stage) -> Result<u64, DemoError> {
    let status = stage.device_status().await?;
    Ok(status.cache.contents.iter().map(|c| c.egress_bytes).sum())
}

fn payload(lines: &[BookLine]) -> u64 {
    lines.iter().map(|l| l.payload_bytes).sum()
}

impl Outcome {
    fn agrees(&self) -> Result<(), DemoError> {
        let figures = [
            ("the device's fill", self.filled_bytes),
            ("the downloader", self.downloaded_bytes),
            ("the device's ledger", self.egress_bytes),
            ("the hub's books", self.reported_bytes),
        ];
        match figures.iter().find(|(_, bytes)| *bytes != self.content_bytes) {
            None => Ok(()),
            Some((who, bytes)) => Err(DemoError::Failed(format!(
                "{who} has {bytes} bytes, but the content has {} bytes",
                self.content_bytes
            ))),
        }
    }

    fn print(&self) {
        println!("content     {} ({} bytes)", HumanBytes(self.content_bytes), self.content_bytes);
        println!(
            "filled      {} bytes (web seed {}, peers {})",
            self.filled_bytes, self.fill_source.web_seed, self.fill_source.peers
        );
        println!("downloaded  {} bytes, SHA-256 verified", self.downloaded_bytes);
        println!("ledger      {} bytes", self.egress_bytes);
        println!("hub's books {} bytes", self.reported_bytes);
        println!("earned      {} {}", self.earned.amount, self.earned.currency);
        println!("All books agree to the byte, in {:.1} s.", self.seconds);
    }
}
