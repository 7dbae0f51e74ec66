//! Holds a device's question for the timestamp until there is news (RFC 7240, `wait`), so that a
//! revocation reaches it in the moment it is published. Only so many wait at once; whoever is one too
//! many, or does not ask to wait, is answered at once. Reads no repository itself.

use std::{sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
};
use tokio::time::{Instant, timeout_at};

use super::{Problem, files};
use crate::hub::state::Hub;

/// Below `REQUEST_LIMIT`, and below what proxies and home routers cut off.
const WAIT_MAX: Duration = Duration::from_secs(25);
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// `timestamp.json`, now or when it changes.
pub async fn timestamp(hub: Arc<Hub>, headers: &HeaderMap) -> Result<Response, Problem> {
    // Before the first look, or a publication between the two would be missed.
    let mut news = hub.news.subscribe();
    let answer = files::timestamp(&hub, headers).await?;
    let Some(wait) = wanted(headers).filter(|_| files::is_unchanged(&answer)) else {
        return Ok(answer);
    };
    let Ok(_place) = hub.waiting_places.try_acquire() else { return Ok(answer) };
    let deadline = Instant::now() + wait;
    loop {
        let woken = tokio::select! {
            // They are all sent away at one moment: they shall not come back at one.
            () = hub.stopping.cancelled() => return Ok(answer),
            woken = timeout_at(deadline, news.changed()) => matches!(woken, Ok(Ok(()))),
        };
        let mut answer = files::timestamp(&hub, headers).await?;
        if !woken || !files::is_unchanged(&answer) {
            // Whoever has waited may ask again at once, and only they.
            let waited = HeaderValue::from_static("wait");
            answer.headers_mut().insert(PREFERENCE_APPLIED, waited);
            return Ok(answer);
        }
    }
}

/// Other preferences, and parameters of this one, are none of ours (RFC 7240 section 2).
fn wanted(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
    let seconds = lines
        .flat_map(|line| line.split(','))
        .filter_map(|preference| preference.split(';').next()?.trim().split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, value)| value.trim().trim_matches('"').parse().ok())?;
    Some(Duration::from_secs(seconds).min(WAIT_MAX)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_long_somebody_would_wait() {
        let wanted = |line: &str| {
            let value = HeaderValue::from_str(line).expect("a header");
            super::wanted(&HeaderMap::from_iter([(PREFER, value)])).map(|wait| wait.as_secs())
        };
        for line in ["wait=10", "respond-async, Wait = 10", "wait=\"10\"; a=b"] {
            assert_eq!(wanted(line), Some(10), "{line}");
        }
        assert_eq!(wanted("wait=99999"), Some(WAIT_MAX.as_secs()));
        for line in ["wait", "wait=", "wait=-1", "wait=0", "wait=1s", "return=minimal"] {
            assert_eq!(wanted(line), None, "{line}");
        }
    }
}
