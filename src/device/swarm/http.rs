//! One ranged GET from a web seed (RFC 9110, section 14): follows a few redirects, holds the answer
//! against what was asked before a byte of it counts, and gives up on bodies that never come. Knows
//! no pieces, and tries nothing twice.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use reqwest::{
    Response, StatusCode,
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED,
        LOCATION, RANGE, RETRY_AFTER,
    },
};
use tokio::time::{Instant, timeout};
use url::Url;

use super::{FillSettings, error::WebSeedProblem};
use crate::device::outbound::{self, Outbound};

/// An answer of a few MiB over the slowest line that a fill makes sense on, with our own limit on top.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(12 * 3600);
/// Less than this in one `read_timeout` of waiting is no delivery.
const TRICKLE_BYTES_MIN: u64 = 64 * 1024;
/// When a server is busy and does not say for how long, or says it as a date: our clock may be wrong.
const BUSY_UNSAID: Duration = Duration::from_secs(20);
/// A server that asks for more than this is asked again all the same.
const BUSY_MAX: Duration = Duration::from_secs(3600);
/// What is kept of a file's validators; a longer one is no use.
const VALIDATOR_BYTES_MAX: usize = 256;

pub(super) struct Ask<'a> {
    pub url: Url,
    pub bytes: Range<u64>,
    /// Of the whole file, by the metainfo.
    pub file_bytes: u64,
    /// Of what has come of the same file so far.
    pub validator: &'a Validator,
}

/// What tells one state of a file from another (RFC 9110, section 8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Validator {
    etag: Option<String>,
    last_modified: Option<String>,
}

pub(super) struct Answer {
    response: Response,
    left_bytes: u64,
    pub validator: Validator,
    read_timeout: Duration,
    /// Time spent waiting since `window_bytes` began to count; what our own limit takes is not in it.
    waited: Duration,
    window_bytes: u64,
}

pub(super) async fn ask(
    outbound: &Outbound,
    settings: &FillSettings,
    ask: Ask<'_>,
) -> Result<Answer, WebSeedProblem> {
    let response = follow(outbound, settings, &ask).await?;
    let left_bytes = check_answer(&response, &ask)?;
    Ok(Answer {
        validator: Validator::of(response.headers()),
        response,
        left_bytes,
        read_timeout: settings.read_timeout,
        waited: Duration::ZERO,
        window_bytes: 0,
    })
}

async fn follow(
    outbound: &Outbound,
    settings: &FillSettings,
    ask: &Ask<'_>,
) -> Result<Response, WebSeedProblem> {
    let range = format!("bytes={}-{}", ask.bytes.start, ask.bytes.end - 1);
    let mut url = ask.url.clone();
    let mut client = outbound.client(&url)?;
    let mut hops = 0;
    loop {
        let mut request = client
            .get(url.clone())
            .header(RANGE, &range)
            .header(ACCEPT_ENCODING, "identity")
            .timeout(EXCHANGE_TIMEOUT);
        if let Some(validator) = ask.validator.for_if_range() {
            request = request.header(IF_RANGE, validator);
        }
        let response = match timeout(settings.read_timeout, request.send()).await {
            Ok(response) => response.map_err(unreachable)?,
            Err(_) => return Err(WebSeedProblem::Unreachable("it does not answer".into())),
        };
        let Some(next) = redirect_target(&url, &response) else { return Ok(response) };
        hops += 1;
        client = outbound.redirected(&url, &next, hops)?;
        url = next;
    }
}

fn redirect_target(from: &Url, response: &Response) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    from.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()
}

impl Answer {
    /// The next bytes of the range that was asked for; `None` after the last one.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, WebSeedProblem> {
        if self.left_bytes == 0 {
            // What an endless body sends after that is not read: the connection is closed.
            return Ok(None);
        }
        let asked_at = Instant::now();
        let mut chunk = match timeout(self.read_timeout, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None) | Err(_)) => return Err(WebSeedProblem::Truncated),
            Err(_) => return Err(WebSeedProblem::Trickles),
        };
        self.waited += asked_at.elapsed();
        self.window_bytes += chunk.len() as u64;
        if self.window_bytes >= TRICKLE_BYTES_MIN {
            (self.waited, self.window_bytes) = (Duration::ZERO, 0);
        } else if self.waited >= self.read_timeout {
            return Err(WebSeedProblem::Trickles);
        }
        chunk.truncate(usize::try_from(self.left_bytes).unwrap_or(usize::MAX));
        self.left_bytes -= chunk.len() as u64;
        Ok(Some(chunk))
    }
}

impl Validator {
    fn of(headers: &HeaderMap) -> Validator {
        let text = |name| {
            let value = headers.get(name)?.to_str().ok()?;
            (value.len() <= VALIDATOR_BYTES_MAX).then(|| value.to_owned())
        };
        Validator { etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
    }

    /// Only a strong validator may stand there (RFC 9110, section 13.1.5).
    fn for_if_range(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.or(self.last_modified.as_deref().filter(|_| self.etag.is_none()))
    }

    /// Whether the two are known to be of different files; what one of them lacks tells nothing.
    pub fn differs_from(&self, other: &Validator) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => Some(a != b),
            _ => None,
        };
        differ(&self.etag, &other.etag)
            .or_else(|| differ(&self.last_modified, &other.last_modified))
            .unwrap_or(false)
    }

    pub fn is_empty(&self) -> bool {
        *self == Validator::default()
    }
}

/// How many bytes the body has; all of them were asked for, from the first on.
fn check_answer(response: &Response, ask: &Ask<'_>) -> Result<u64, WebSeedProblem> {
    let headers = response.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let wanted_bytes = ask.bytes.end - ask.bytes.start;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            not_encoded(text(CONTENT_ENCODING))?;
            let range = text(CONTENT_RANGE).and_then(parse_content_range);
            let Some((first, last, total)) = range else { return Err(WebSeedProblem::WrongRange) };
            if let Some(found) = total.filter(|total| *total != ask.file_bytes) {
                return Err(WebSeedProblem::WrongLength { expected: ask.file_bytes, found });
            }
            // Fewer bytes than asked for are allowed; the rest is asked for again.
            let right = first == ask.bytes.start && first <= last && last < ask.bytes.end;
            let left_bytes = if right { last - first + 1 } else { 0 };
            match left_bytes >= wanted_bytes.min(TRICKLE_BYTES_MIN) {
                true => Ok(left_bytes),
                false => Err(WebSeedProblem::WrongRange),
            }
        }
        // The whole file, which is fine if that is what was wanted.
        StatusCode::OK if ask.bytes == (0..ask.file_bytes) => {
            not_encoded(text(CONTENT_ENCODING))?;
            match response.content_length() {
                Some(found) if found != wanted_bytes => {
                    Err(WebSeedProblem::WrongLength { expected: wanted_bytes, found })
                }
                _ => Ok(wanted_bytes),
            }
        }
        StatusCode::OK if ask.validator.for_if_range().is_some() => Err(WebSeedProblem::Changed),
        StatusCode::OK => Err(WebSeedProblem::NoRanges),
        status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            match text(RETRY_AFTER) {
                Some(wait) => Err(WebSeedProblem::Busy(retry_after(wait))),
                None => Err(WebSeedProblem::Status(status.as_u16())),
            }
        }
        status => Err(WebSeedProblem::Status(status.as_u16())),
    }
}

fn not_encoded(encoding: Option<&str>) -> Result<(), WebSeedProblem> {
    match encoding {
        None => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(encoding) => {
            let shown: String = encoding.chars().filter(|c| !c.is_control()).take(32).collect();
            Err(WebSeedProblem::Encoded(shown))
        }
    }
}

fn retry_after(value: &str) -> Duration {
    value.trim().parse().map_or(BUSY_UNSAID, Duration::from_secs).min(BUSY_MAX)
}

/// `bytes 0-499/1234` (RFC 9110, section 14.4): first and last byte, and the total, which may be
/// unknown (`*`).
fn parse_content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = match total {
        "*" => None,
        digits => Some(digits.parse().ok()?),
    };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}

fn unreachable(error: reqwest::Error) -> WebSeedProblem {
    if let Some(refused) = outbound::refusal(&error) {
        return refused.into();
    }
    // reqwest's own text stops at "error sending request"; the cause is further in.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    WebSeedProblem::Unreachable(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_content_range() {
        assert_eq!(parse_content_range("bytes 5-9/100"), Some((5, 9, Some(100))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, 9, None)));
        for bad in
            ["", "bytes */100", "items 5-9/100", "bytes 5/100", "bytes x-9/100", "bytes 5-/9"]
        {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_strong_validators_stand_in_if_range() {
        let validator = |etag: Option<&str>, date: Option<&str>| Validator {
            etag: etag.map(ToOwned::to_owned),
            last_modified: date.map(ToOwned::to_owned),
        };
        let date = Some("Sat, 21 Nov 2026 12:00:00 GMT");
        assert_eq!(validator(Some("\"a\""), date).for_if_range(), Some("\"a\""));
        assert_eq!(validator(Some("W/\"a\""), date).for_if_range(), None);
        assert_eq!(validator(None, date).for_if_range(), date);
        let a = validator(Some("\"a\""), date);
        assert!(a.differs_from(&validator(Some("\"b\""), date)));
        assert!(!a.differs_from(&validator(Some("\"a\""), None)));
        assert!(!a.differs_from(&Validator::default()));
        assert!(a.differs_from(&validator(None, Some("Sun, 22 Nov 2026 12:00:00 GMT"))));
    }

    #[test]
    fn waits_as_long_as_it_is_asked_to_within_reason() {
        assert_eq!(retry_after("7"), Duration::from_secs(7));
        assert_eq!(retry_after(" 99999999 "), BUSY_MAX);
        assert_eq!(retry_after("Sat, 21 Nov 2026 12:00:00 GMT"), BUSY_UNSAID);
        assert_eq!(retry_after("-1"), BUSY_UNSAID);
    }
}
