//! A second handle to the engine, for another thread than the one that started it. Stopping the engine
//! is not its business; what it says to a stopped one goes nowhere.

use std::sync::{Arc, mpsc};

use super::{Measured, ServeCommand, SharedStats, engine::Request};

#[derive(Clone)]
pub struct Remote {
    requests: mpsc::Sender<Request>,
    waker: Arc<mio::Waker>,
    stats: Arc<SharedStats>,
}

impl Remote {
    pub(super) fn new(
        requests: mpsc::Sender<Request>,
        waker: Arc<mio::Waker>,
        stats: Arc<SharedStats>,
    ) -> Remote {
        Remote { requests, waker, stats }
    }

    /// Does not block.
    pub fn send(&self, command: ServeCommand) {
        if self.requests.send(Request::Command(command)).is_ok()
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "the serving thread cannot be woken");
        }
    }

    /// The last word since [`ServeCommand::Measure`]; `None` before anybody was served.
    pub fn measured(&self) -> Option<Measured> {
        *self.stats.measured.lock()
    }
}
