//! Keeps a running fill within the owner's hours and rate, and out of the household's way: reads the
//! counters, asks `logic::fill`, sets the throttle. Runs only while a fill does.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, interval, sleep};

use super::{
    clock::Clock,
    gateway::{InterfaceCounters, WanInterface},
    message::Message,
    swarm::Throttle,
    tasks::Context,
};
use crate::logic::{
    fill::{Hours, Received, Verdict, Yielding},
    infohash::Infohash,
    now::Monotonic,
};

/// Quick enough that a download of the household has the line within a second or two.
const STEER_EVERY: Duration = Duration::from_millis(250);
/// What a payload byte is on the wire, in percent: headers of packets of the usual size, and of HTTP.
const WIRE_PERCENT: u64 = 105;

/// What the configuration says of fills.
#[derive(Clone, Debug)]
pub struct Rules {
    pub hours: Hours,
    /// On the home's router, unless the owner does not care.
    pub wan: WanInterface,
}

pub struct Quiet {
    pub rules: Arc<Rules>,
    pub clock: Clock,
    pub throttle: Throttle,
}

impl Quiet {
    /// Returns once the fill may run; tells the daemon meanwhile why it may not, and that it may in
    /// the end.
    pub async fn wait_for_window(&self, context: &Context, infohash: Infohash) {
        let mut told = None;
        loop {
            let wall = self.clock.now().wall;
            let Verdict::Wait { sentence } = self.rules.hours.verdict(wall) else { break };
            if told.as_ref() != Some(&sentence) {
                tracing::info!("the fill {sentence}");
                told = Some(sentence);
                context.tell(Message::FillWaits { infohash, sentence: told.clone() }).await;
            }
            sleep(Duration::from_secs(self.rules.hours.seconds_to_next_look(wall).min(60))).await;
        }
        if told.is_some() {
            context.tell(Message::FillWaits { infohash, sentence: None }).await;
        }
    }

    /// Sets the pace of the fill, until its window closes.
    pub async fn steer(&self) {
        let counters = self.rules.wan.open();
        let mut yielding = Yielding::default();
        let started = Instant::now();
        let mut tick = interval(STEER_EVERY);
        loop {
            let hours = self.rules.hours.verdict(self.clock.now().wall);
            let Verdict::Fill { bytes_per_second } = hours else { return };
            if let Some(received) = counters.as_ref().and_then(|wan| self.received(wan)) {
                yielding.handle_counts(received, Monotonic(started.elapsed()));
            }
            let rates = [bytes_per_second, yielding.bytes_per_second()];
            self.throttle.set(rates.into_iter().flatten().min());
            tick.tick().await;
        }
    }

    fn received(&self, wan: &InterfaceCounters) -> Option<Received> {
        let line_bytes_total = wan.read().ok()?.received;
        let own_bytes_total = self.throttle.received_bytes() / 100 * WIRE_PERCENT;
        Some(Received { line_bytes_total, own_bytes_total })
    }
}
