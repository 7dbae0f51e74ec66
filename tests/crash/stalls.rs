//! Notices when the machine has no time for a thread, so that tests need not blame the program for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Notices when the machine has no time for a thread.
pub struct Stalls {
    longest: Arc<[AtomicU64; 600]>,
    began: Instant,
    stop: Arc<AtomicBool>,
}

impl Stalls {
    pub fn watch() -> Stalls {
        let longest: Arc<[AtomicU64; 600]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let (cells, stopped) = (Arc::clone(&longest), Arc::clone(&stop));
        thread::spawn(move || {
            let wait = Duration::from_millis(5);
            while !stopped.load(Ordering::Relaxed) {
                let before = Instant::now();
                thread::sleep(wait);
                let over = before.elapsed().saturating_sub(wait).as_micros() as u64;
                let cell = began.elapsed().as_secs() as usize % cells.len();
                cells[cell].fetch_max(over, Ordering::Relaxed);
            }
        });
        Stalls { longest, began, stop }
    }

    pub fn longest_since(&self, then: Instant) -> Duration {
        let from = (then - self.began).as_secs().saturating_sub(2);
        let cells =
            (from..=self.began.elapsed().as_secs()).map(|s| &self.longest[s as usize % 600]);
        Duration::from_micros(cells.map(|c| c.load(Ordering::Relaxed)).max().unwrap_or(0))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
