//! Holds a fill to its rate: whoever wants to ask a web seed for bytes waits here until they may come,
//! and then takes them as fast as they do. So nothing waits in the kernel, where it would look like the
//! household's download and keep on coming when that needs the line. The arithmetic is `logic::fill`'s.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::logic::{fill::Tokens, now::Monotonic};

/// The rate may rise while somebody waits: look again then.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Operators pay by the request too.
const ASK_BYTES_MIN: u64 = 128 * 1024;

/// Clones share one rate.
#[derive(Clone)]
pub struct Throttle(Arc<Inner>);

struct Inner {
    started: Instant,
    tokens: Mutex<Tokens>,
    rate: watch::Sender<Option<u64>>,
    received_bytes: AtomicU64,
}

impl Throttle {
    /// Bytes a second; `None` is as fast as it comes.
    pub fn new(bytes_per_second: Option<u64>) -> Throttle {
        Throttle(Arc::new(Inner {
            started: Instant::now(),
            tokens: Mutex::new(Tokens::new(bytes_per_second)),
            rate: watch::Sender::new(bytes_per_second),
            received_bytes: AtomicU64::new(0),
        }))
    }

    pub fn set(&self, bytes_per_second: Option<u64>) {
        let now = self.now();
        self.0.tokens.lock().set_rate(bytes_per_second, now);
        self.0
            .rate
            .send_if_modified(|rate| std::mem::replace(rate, bytes_per_second) != bytes_per_second);
    }

    pub(super) fn rate(&self) -> watch::Receiver<Option<u64>> {
        self.0.rate.subscribe()
    }

    /// Payload that fills have received since the start.
    pub fn received_bytes(&self) -> u64 {
        self.0.received_bytes.load(Ordering::Relaxed)
    }

    /// What has come; of what peers bring, librqbit holds the rate.
    pub(super) fn count(&self, bytes: u64) {
        self.0.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How much to ask for at once: what comes, comes at the speed of the line. Half a second's
    /// bytes are a short burst, and still few requests a gigabyte.
    pub(super) fn ask_bytes_max(&self) -> u64 {
        self.0.rate.borrow().map_or(u64::MAX, |rate| (rate / 2).max(ASK_BYTES_MIN))
    }

    /// Returns when these bytes may be asked for.
    pub(super) async fn reserve(&self, bytes: u64) {
        loop {
            let wait = {
                let (now, mut tokens) = (self.now(), self.0.tokens.lock());
                let wait = tokens.wait(now);
                if wait.is_zero() {
                    tokens.spend(bytes, now);
                    return;
                }
                wait
            };
            tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
        }
    }

    /// These were asked for and did not come.
    pub(super) fn refund(&self, bytes: u64) {
        self.0.tokens.lock().refund(bytes);
    }

    /// Whether the rate is now less than half of what it was: what was asked for then is too much.
    pub(super) fn fell_from(&self, before: Option<u64>) -> bool {
        match (before, *self.0.rate.borrow()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(before), Some(now)) => now < before / 2,
        }
    }

    fn now(&self) -> Monotonic {
        Monotonic(self.0.started.elapsed())
    }
}
