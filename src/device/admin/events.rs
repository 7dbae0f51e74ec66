//! Live status as server-sent events: on each change, at most once a second, and now and then
//! without a change, so that a page can tell a quiet device from one that is gone.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::{Event, Sse};
use futures_util::stream::{self, Stream};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until, timeout_at},
};

use crate::api::admin::Status;

use super::{account::Account, sessions::Token};

/// For eyes; faster would only cost the router's CPU.
const SHORTEST_GAP: Duration = Duration::from_secs(1);
/// The page calls the connection lost after a few of these; also how soon an ended session shows.
const LONGEST_GAP: Duration = Duration::from_secs(3);

struct Watcher {
    status: watch::Receiver<Status>,
    account: Arc<Account>,
    token: Token,
    last_sent: Option<Instant>,
    /// One of a bounded number of streams.
    _permit: OwnedSemaphorePermit,
}

/// Ends when the session does, and when the device stops.
pub fn stream(
    status: watch::Receiver<Status>,
    account: Arc<Account>,
    token: Token,
    permit: OwnedSemaphorePermit,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let watcher = Watcher { status, account, token, last_sent: None, _permit: permit };
    Sse::new(stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    }))
}

impl Watcher {
    async fn next(&mut self) -> Option<Event> {
        if let Some(last) = self.last_sent {
            let changed = timeout_at(last + LONGEST_GAP, self.status.changed()).await;
            if let Ok(Err(_device_stopped)) = changed {
                return None;
            }
            sleep_until(last + SHORTEST_GAP).await;
        }
        if !self.account.is_logged_in(&self.token) {
            return None;
        }
        self.last_sent = Some(Instant::now());
        let event = Event::default().event("status");
        Some(event.json_data(&*self.status.borrow_and_update()).expect("a status serialises"))
    }
}
