//! Everything that the device says to the operator's side over HTTP: the signed list, enrolment,
//! reports, statements, sources, trackers. Bodies are bounded before they are read, redirects are
//! not followed, and every failure says whose fault it is and whether to try again.

mod announce;
mod hub;
mod repo;

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, redirect};
use url::Url;

pub use announce::{AnnounceRequest, Announced, announce};
pub use hub::Hub;
pub use repo::{FetchedList, ListRepository};

use crate::logic::now::UnixSeconds;

/// An operator's server that has not begun to answer by then will not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole exchange; the largest body here is a `.torrent` of 32 MiB.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Whose problem a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Local,
    Network,
    Operator,
}

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("cannot reach {host}: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("{host} answered {status}: {message}")]
    Refused { host: String, status: u16, code: String, message: String, expected: Option<u64> },
    #[error("{host} sent something unexpected: {problem}")]
    BadAnswer { host: String, problem: String },
    #[error("the hot list was not accepted: {0}")]
    List(String),
    #[error("the operator's statement was not accepted: {0}")]
    Statement(String),
    #[error("{0}")]
    Local(String),
}

impl UpstreamError {
    pub fn fault(&self) -> Fault {
        match self {
            UpstreamError::Unreachable { .. } => Fault::Network,
            UpstreamError::Local(_) => Fault::Local,
            _ => Fault::Operator,
        }
    }

    /// The hub's time, where it refused a request because ours is wrong.
    pub fn server_time(&self) -> Option<UnixSeconds> {
        match self {
            UpstreamError::Refused { code, expected, .. } if code == "clock_skew" => {
                expected.map(UnixSeconds)
            }
            _ => None,
        }
    }

    /// The hub's code for a refusal (`report_gap`, `unknown_claim_code`, …).
    pub fn code(&self) -> Option<&str> {
        match self {
            UpstreamError::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    fn unreachable(url: &Url, error: &reqwest::Error) -> UpstreamError {
        let mut reason = error as &dyn std::error::Error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        UpstreamError::Unreachable { host: host(url), reason: reason.to_string() }
    }

    fn bad_answer(url: &Url, problem: impl ToString) -> UpstreamError {
        UpstreamError::BadAnswer { host: host(url), problem: problem.to_string() }
    }
}

/// One client for all: one connection pool, one TLS configuration.
pub fn client(version: &str) -> Result<Client, UpstreamError> {
    Client::builder()
        .user_agent(format!("larderd/{version}"))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(EXCHANGE_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|e| {
            UpstreamError::Local(format!(
                "cannot set up TLS ({e}): install the system's CA certificates or set SSL_CERT_FILE"
            ))
        })
}

fn host(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => url.to_string(),
    }
}

/// Reads a body of at most `limit` bytes; an endless one costs no more than that.
async fn body(url: &Url, mut response: Response, limit: u64) -> Result<Vec<u8>, UpstreamError> {
    let too_large = || UpstreamError::bad_answer(url, format!("more than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|e| UpstreamError::unreachable(url, &e))?
    {
        if bytes.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// GETs a bounded body; anything but 200 is an error.
pub async fn get(client: &Client, url: &Url, limit: u64) -> Result<Vec<u8>, UpstreamError> {
    let response =
        client.get(url.clone()).send().await.map_err(|e| UpstreamError::unreachable(url, &e))?;
    if response.status() != StatusCode::OK {
        return Err(UpstreamError::Refused {
            host: host(url),
            status: response.status().as_u16(),
            code: String::new(),
            message: url.path().to_owned(),
            expected: None,
        });
    }
    body(url, response, limit).await
}
