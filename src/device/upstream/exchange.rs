//! One HTTP exchange with a server that may be anybody: bounded in bytes, in silence and in slowness, and
//! never sent elsewhere. Knows nothing of what is said.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{super::outbound::Outbound, UpstreamError};

/// A server that says nothing for so long has nothing to say.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// What a body must keep up on average, after [`SILENCE_MAX`]: a line that is slower is broken, and a
/// server that lets a byte fall now and then wants to hold us up.
const BYTES_PER_SECOND_MIN: u64 = 16 * 1024;
/// Of a sentence that somebody else wrote.
const FOREIGN_TEXT_CHARS: usize = 200;

/// Sends a request and waits for the head of the answer: `longer` than usual if it may take longer.
pub async fn send(
    url: &Url,
    request: RequestBuilder,
    longer: Duration,
) -> Result<Response, UpstreamError> {
    let patience = SILENCE_MAX + longer;
    match tokio::time::timeout(patience, request.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(UpstreamError::unreachable(url, &error)),
        Err(_) => Err(silent(url, patience)),
    }
}

/// Reads a body of at most `limit` bytes; an endless one costs no more than that, and one that trickles
/// no more than `limit` at the least rate.
pub async fn body(url: &Url, mut response: Response, limit: u64) -> Result<Vec<u8>, UpstreamError> {
    let too_large = || UpstreamError::bad_answer(url, format!("more than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let began = Instant::now();
    let mut bytes = Vec::new();
    loop {
        let received = bytes.len() as u64;
        let keeping_up = began + Duration::from_secs(received / BYTES_PER_SECOND_MIN);
        let deadline = keeping_up.min(Instant::now()) + SILENCE_MAX;
        let chunk = match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(bytes),
            Ok(Err(error)) => return Err(UpstreamError::unreachable(url, &error)),
            Err(_) if received == 0 => return Err(silent(url, SILENCE_MAX)),
            Err(_) => {
                let problem = format!("it sends too slowly ({received} bytes so far)");
                return Err(UpstreamError::Unreachable { host: host(url), reason: problem });
            }
        };
        if received + chunk.len() as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// The same as `get`, for a URL out of the operator's documents.
pub async fn get_outside(
    outbound: &Outbound,
    url: &Url,
    limit: u64,
) -> Result<Vec<u8>, UpstreamError> {
    let out_of_reach = |reason| UpstreamError::OutOfReach { host: host(url), reason };
    get(outbound.client(url).map_err(out_of_reach)?, url, limit).await
}

/// GETs a bounded body; anything but 200 is an error.
pub async fn get(client: &Client, url: &Url, limit: u64) -> Result<Vec<u8>, UpstreamError> {
    let response = send(url, client.get(url.clone()), Duration::ZERO).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(url, response.status()));
    }
    body(url, response, limit).await
}

/// An answer that is neither what was asked for nor a sentence of the hub's own.
pub fn refused(url: &Url, status: StatusCode) -> UpstreamError {
    let message = match status.is_redirection() {
        true => format!("{} is elsewhere, and larderd follows no redirects", url.path()),
        false => url.path().to_owned(),
    };
    UpstreamError::Refused {
        host: host(url),
        status: status.as_u16(),
        code: String::new(),
        message: readable(&message),
        expected: None,
    }
}

fn silent(url: &Url, patience: Duration) -> UpstreamError {
    let reason = format!("no answer within {} seconds", patience.as_secs());
    UpstreamError::Unreachable { host: host(url), reason }
}

pub fn host(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => url.to_string(),
    }
}

/// Somebody else's words as one short line, for the log and the page.
pub fn readable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.chars().take(FOREIGN_TEXT_CHARS).map(shown).collect();
    if text.chars().nth(FOREIGN_TEXT_CHARS).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_one_short_line_of_what_others_say() {
        assert_eq!(readable("gone\n2026 ERROR forged\x1b[31m"), "gone 2026 ERROR forged [31m");
        assert_eq!(readable(&"é".repeat(300)).chars().count(), FOREIGN_TEXT_CHARS + 1);
    }
}
