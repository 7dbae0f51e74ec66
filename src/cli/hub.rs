//! The command line's side of the hub's API: one HTTP client, the token, and errors that say what
//! to do.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Method, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use super::output::printable;
use crate::api::hub::ApiError;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Every call but those that move or hash content.
pub const QUICK: Duration = Duration::from_secs(60);

/// Where the hub is and how to prove that we may.
#[derive(clap::Args)]
pub struct HubArgs {
    /// The hub's address.
    #[arg(long, env = "LARDER_HUB_URL", default_value = "http://127.0.0.1:7070/")]
    pub hub: Url,
    /// File with the operator's token (`operator-token` in the hub's data folder).
    #[arg(long, env = "LARDER_TOKEN_FILE", default_value = "/var/lib/larder-hub/operator-token")]
    pub token_file: PathBuf,
    /// Print one JSON document instead of text.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("{path}: cannot read the operator's token: {source}; name the file with --token-file")]
    Token { path: PathBuf, source: io::Error },
    #[error("{0}: this file holds no token; name the right one with --token-file")]
    NotAToken(PathBuf),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {problem}")]
    Content { path: PathBuf, problem: &'static str },
    #[error("cannot reach the hub at {url}: {cause}; is it running, and is --hub right?")]
    Unreachable { url: Url, cause: String },
    #[error("the hub says: {}", printable(&.0.message))]
    Refused(ApiError),
    #[error(
        "the hub at {url} answered {status} with something else than expected; is --hub right?"
    )]
    NotOurs { url: Url, status: StatusCode },
    #[error("{0} changed while it was being uploaded; run the command again")]
    Changed(PathBuf),
    #[error("--hub must be an http:// or https:// address, not {0}")]
    BadUrl(Url),
}

pub struct HubClient {
    http: reqwest::Client,
    base: Url,
    token: String,
}

impl HubClient {
    pub fn new(args: &HubArgs) -> Result<HubClient, CliError> {
        let token = read_token(&args.token_file)?;
        let mut base = args.hub.clone();
        if !matches!(base.scheme(), "http" | "https") {
            return Err(CliError::BadUrl(base));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .build()
            .map_err(|e| CliError::Unreachable { url: base.clone(), cause: e.to_string() })?;
        Ok(HubClient { http, base, token })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let request = self.request(Method::GET, path).timeout(QUICK);
        self.read(request.send().await).await
    }

    /// Something that the hub shows to everyone, such as a `.torrent`.
    pub async fn download(&self, url: &str) -> Result<Vec<u8>, CliError> {
        let answer = self.http.get(url).timeout(QUICK).send().await;
        let answer = answer.and_then(Response::error_for_status);
        let unreachable =
            |e: reqwest::Error| CliError::Unreachable { url: self.base.clone(), cause: cause(&e) };
        Ok(answer.map_err(unreachable)?.bytes().await.map_err(unreachable)?.to_vec())
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, CliError> {
        let request = self.request(Method::POST, path).timeout(limit).json(body);
        self.read(request.send().await).await
    }

    /// Without a limit in all: the hub gives up on a silent upload, and so does TCP.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        length: u64,
        body: reqwest::Body,
    ) -> Result<T, CliError> {
        let request = self
            .request(Method::PUT, path)
            .header(reqwest::header::CONTENT_LENGTH, length)
            .body(body);
        self.read(request.send().await).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = self.base.join(&format!("api/v1/{path}")).expect("our own paths are valid");
        self.http.request(method, url).bearer_auth(&self.token)
    }

    async fn read<T: DeserializeOwned>(
        &self,
        answer: reqwest::Result<Response>,
    ) -> Result<T, CliError> {
        let unreachable =
            |e: reqwest::Error| CliError::Unreachable { url: self.base.clone(), cause: cause(&e) };
        let answer = answer.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        let not_ours = || CliError::NotOurs { url: self.base.clone(), status };
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| not_ours());
        }
        Err(serde_json::from_slice(&bytes).map_or_else(|_| not_ours(), CliError::Refused))
    }
}

fn read_token(path: &Path) -> Result<String, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| CliError::Token { path: path.to_owned(), source })?;
    let token = text.trim();
    // It goes into a header.
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(CliError::NotAToken(path.to_owned()));
    }
    Ok(token.to_owned())
}

/// The innermost cause: "connection refused" says more than "error sending request".
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
