//! The hub's API as a device uses it. Every request is signed by the device's own key.

use std::time::Duration;

use reqwest::Client;
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use super::{UpstreamError, exchange};
use crate::api::{
    hub::{ApiError, EnrolResponse, ReportReceipt, SourcesResponse},
    signed::Signed,
};

/// A month of hourly lines for ten thousand contents stays below this.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
const MAX_ERROR_BYTES: u64 = 64 * 1024;
/// A report or a statement is work for the hub's database; it has 30 seconds itself.
const WORK: Duration = Duration::from_secs(45);

#[derive(Clone)]
pub struct Hub {
    client: Client,
    base: Url,
}

impl Hub {
    /// `base` ends with a slash.
    pub fn new(client: Client, base: Url) -> Hub {
        Hub { client, base }
    }

    pub async fn enrol(&self, request: &Signed) -> Result<EnrolResponse, UpstreamError> {
        self.post("api/v1/enrol", request).await
    }

    pub async fn report(&self, report: &Signed) -> Result<ReportReceipt, UpstreamError> {
        self.post("api/v1/reports", report).await
    }

    /// The answer is a `Signed<Statement>`; its signature is the caller's to check.
    pub async fn statement(&self, request: &Signed) -> Result<Signed, UpstreamError> {
        self.post("api/v1/statement", request).await
    }

    pub async fn sources(&self, request: &Signed) -> Result<SourcesResponse, UpstreamError> {
        self.post("api/v1/sources", request).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, UpstreamError> {
        let url = self.base.join(path).map_err(|e| UpstreamError::Local(e.to_string()))?;
        let request = self.client.post(url.clone()).json(body);
        let response = exchange::send(&url, request, WORK).await?;
        let status = response.status();
        if !status.is_success() {
            let bytes = exchange::body(&url, response, MAX_ERROR_BYTES).await?;
            let error = serde_json::from_slice::<ApiError>(&bytes).unwrap_or_else(|_| ApiError {
                code: String::new(),
                message: path.to_owned(),
                expected: None,
            });
            return Err(UpstreamError::Refused {
                host: exchange::host(&url),
                status: status.as_u16(),
                code: error.code,
                message: exchange::readable(&error.message),
                expected: error.expected,
            });
        }
        let bytes = exchange::body(&url, response, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&bytes).map_err(|e| UpstreamError::bad_answer(&url, e))
    }
}
