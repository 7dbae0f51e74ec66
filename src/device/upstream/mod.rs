//! Everything that the device says to the operator's side over HTTP: the signed list, enrolment,
//! reports, statements, sources, trackers. Bodies are bounded before they are read, redirects are
//! not followed, and every failure says whose fault it is and whether to try again.

mod announce;
mod exchange;
mod hub;
mod refusal;
mod repo;
mod tuf_files;

use std::time::Duration;

use reqwest::{Client, redirect};
use url::Url;

pub use announce::{AnnounceRequest, announce};
pub use exchange::get_outside;
pub use hub::Hub;
pub use repo::{Answer, FetchedList, ListRepository, Outcome};

use crate::logic::{now::UnixSeconds, reach::Refused};

/// An operator's server that has not begun to answer by then will not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole exchange, whatever `exchange` lets pass: the largest body at the least rate takes less.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2 * 3600);

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
    #[error("{host} is out of reach: {reason}")]
    OutOfReach { host: String, reason: Refused },
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
        let reason = exchange::readable(&reason.to_string());
        UpstreamError::Unreachable { host: exchange::host(url), reason }
    }

    fn bad_answer(url: &Url, problem: impl ToString) -> UpstreamError {
        let problem = exchange::readable(&problem.to_string());
        UpstreamError::BadAnswer { host: exchange::host(url), problem }
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
