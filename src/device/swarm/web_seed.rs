//! Fetches whole pieces from the operator's web seeds (BEP 19) with HTTP range requests, and checks
//! each against its hash before anyone else sees it. A web seed that is wrong is not used again in
//! this fill; one that is merely in trouble is asked again, from where it broke off.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE},
};
use url::Url;

use super::{FillError, FillSettings, error::WebSeedProblem, progress::Progress};
use crate::logic::{
    backoff::Backoff,
    metainfo::{File, Metainfo},
};

/// More is a loop, or somebody's idea of one.
const REDIRECTS_MAX: usize = 5;
const USER_AGENT: &str = concat!("larderd/", env!("CARGO_PKG_VERSION"));

pub(super) struct WebSeeds {
    client: Client,
    settings: FillSettings,
    progress: Arc<Progress>,
    seeds: Vec<Seed>,
}

struct Seed {
    url: Url,
    /// What it was given up for.
    given_up: Mutex<Option<WebSeedProblem>>,
}

/// A part of a piece that lies in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    file: usize,
    bytes: Range<u64>,
    file_bytes: u64,
}

impl WebSeeds {
    pub fn new(
        urls: Vec<Url>,
        settings: FillSettings,
        progress: Arc<Progress>,
    ) -> Result<WebSeeds, FillError> {
        let seeds = urls.into_iter().map(|url| Seed { url, given_up: Mutex::new(None) }).collect();
        Ok(WebSeeds { client: client(&settings)?, settings, progress, seeds })
    }

    pub fn is_empty(&self) -> bool {
        self.seeds.is_empty()
    }

    /// A whole verified piece, from the first web seed that is still good.
    ///
    /// # Errors
    /// When none is good any more: the last one's problem.
    pub async fn fetch(&self, piece: u32) -> Result<Bytes, FillError> {
        let mut last = FillError::NoSource;
        for seed in &self.seeds {
            if let Some(problem) = seed.given_up.lock().clone() {
                last = FillError::WebSeed { url: seed.url.clone(), problem };
                continue;
            }
            match self.fetch_from(seed, piece).await {
                Ok(data) => return Ok(data),
                Err(problem) => {
                    // Pieces are fetched side by side: only the first says so.
                    if seed.given_up.lock().replace(problem.clone()).is_none() {
                        tracing::warn!("web seed {}: {problem}", seed.url);
                    }
                    last = FillError::WebSeed { url: seed.url.clone(), problem };
                }
            }
        }
        Err(last)
    }

    async fn fetch_from(&self, seed: &Seed, piece: u32) -> Result<Bytes, WebSeedProblem> {
        let metainfo = &self.progress.metainfo;
        let length = metainfo.piece_bytes(piece).unwrap_or(0) as usize;
        let mut data = BytesMut::with_capacity(length);
        for span in spans(metainfo, piece) {
            let url = file_url(&seed.url, metainfo, span.file);
            self.fetch_span(url, &span, &mut data).await?;
        }
        let data = data.freeze();
        let (checked, metainfo) = (data.clone(), metainfo.clone());
        let verified = tokio::task::spawn_blocking(move || metainfo.verifies(piece, &checked));
        match verified.await {
            Ok(true) => Ok(data),
            Ok(false) => Err(WebSeedProblem::Poisoned { piece }),
            Err(_) => Err(WebSeedProblem::Unreachable("larderd is stopping".into())),
        }
    }

    /// Appends the span to `data`; after a break, asks only for what is still missing.
    async fn fetch_span(
        &self,
        url: Url,
        span: &Span,
        data: &mut BytesMut,
    ) -> Result<(), WebSeedProblem> {
        let end = data.len() + (span.bytes.end - span.bytes.start) as usize;
        let mut backoff = Backoff::new(self.settings.retry_first, self.settings.retry_longest);
        loop {
            let start = span.bytes.end - (end - data.len()) as u64;
            let before = data.len();
            let rest = Span { bytes: start..span.bytes.end, ..span.clone() };
            let problem = match self.fetch_once(url.clone(), &rest, data).await {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            if data.len() > before {
                backoff.succeeded();
            }
            if !problem.is_transient() || backoff.failures() + 1 >= self.settings.attempts_max {
                return Err(problem);
            }
            let wait = backoff.failed(&mut rand::rng());
            tracing::debug!("{url}: {problem}; again in {wait:?}");
            tokio::time::sleep(wait).await;
        }
    }

    async fn fetch_once(
        &self,
        url: Url,
        span: &Span,
        data: &mut BytesMut,
    ) -> Result<(), WebSeedProblem> {
        let range = format!("bytes={}-{}", span.bytes.start, span.bytes.end - 1);
        let request = self.client.get(url).header(RANGE, range).header(ACCEPT_ENCODING, "identity");
        let mut response = request.send().await.map_err(unreachable)?;
        check_answer(&response, span)?;
        let end = data.len() + (span.bytes.end - span.bytes.start) as usize;
        while let Some(chunk) = response.chunk().await.map_err(|_| WebSeedProblem::Truncated)? {
            if data.len() + chunk.len() > end {
                return Err(WebSeedProblem::WrongRange);
            }
            self.progress.count_fetched(chunk.len() as u64);
            data.extend_from_slice(&chunk);
        }
        if data.len() < end { Err(WebSeedProblem::Truncated) } else { Ok(()) }
    }
}

/// How many pieces to fetch at a time: enough to hide the round trip, few enough that their buffers
/// fit a router's memory.
pub(super) fn pieces_at_once(metainfo: &Metainfo) -> usize {
    const BUFFER_BYTES: u32 = 8 * 1024 * 1024;
    (BUFFER_BYTES / metainfo.piece_length).clamp(2, 8) as usize
}

fn client(settings: &FillSettings) -> Result<Client, FillError> {
    let builder = || {
        Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.read_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX))
    };
    // Without a CA bundle on the system the first attempt fails. Plain HTTP must work all the same
    // (every byte is checked by hash); HTTPS will then say that it trusts nobody.
    builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build())
        .map_err(|e| FillError::Engine(format!("the HTTP client cannot start: {e}")))
}

fn check_answer(response: &Response, span: &Span) -> Result<(), WebSeedProblem> {
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let header = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
            let Some((first, total)) = header.and_then(parse_content_range) else {
                return Err(WebSeedProblem::WrongRange);
            };
            match total {
                Some(found) if found != span.file_bytes => {
                    Err(WebSeedProblem::WrongLength { expected: span.file_bytes, found })
                }
                _ if first != span.bytes.start => Err(WebSeedProblem::WrongRange),
                _ => Ok(()),
            }
        }
        // The whole file, which is fine if that is what was wanted.
        StatusCode::OK if span.bytes == (0..span.file_bytes) => Ok(()),
        StatusCode::OK => Err(WebSeedProblem::NoRanges),
        status => Err(WebSeedProblem::Status(status.as_u16())),
    }
}

/// `bytes 0-499/1234` (RFC 9110, section 14.4): first byte and total, which may be unknown (`*`).
fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = match total {
        "*" => None,
        digits => Some(digits.parse().ok()?),
    };
    Some((first.parse().ok()?, total))
}

fn unreachable(error: reqwest::Error) -> WebSeedProblem {
    // reqwest's own text stops at "error sending request"; the cause is further in.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    WebSeedProblem::Unreachable(cause.to_string())
}

/// Where the bytes of a piece lie in the torrent's files. Empty files take part in nothing.
fn spans(metainfo: &Metainfo, piece: u32) -> Vec<Span> {
    let start = metainfo.piece_offset(piece);
    let end = start + u64::from(metainfo.piece_bytes(piece).unwrap_or(0));
    let mut spans = Vec::new();
    let mut file_start = 0;
    for (file, File { length, .. }) in metainfo.files.iter().enumerate() {
        let file_end = file_start + length;
        let (from, to) = (start.max(file_start), end.min(file_end));
        if from < to {
            let bytes = from - file_start..to - file_start;
            spans.push(Span { file, bytes, file_bytes: *length });
        }
        if file_end >= end {
            break;
        }
        file_start = file_end;
    }
    spans
}

/// BEP 19: the URL is the file itself, or, if it ends in a slash or the torrent has several files,
/// the folder that the torrent's name is in.
fn file_url(seed: &Url, metainfo: &Metainfo, file: usize) -> Url {
    let mut url = seed.clone();
    if !metainfo.directory && !seed.path().ends_with('/') {
        return url;
    }
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(&metainfo.name);
        if metainfo.directory {
            path.extend(&metainfo.files[file].path);
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::metainfo::{NewLayout, NewMetainfo};

    const PIECE: u32 = 16 * 1024;

    fn metainfo(files: &[(&[&str], u64)]) -> Metainfo {
        let total: u64 = files.iter().map(|(_, length)| length).sum();
        let files: Vec<File> = files
            .iter()
            .map(|(path, length)| File {
                path: path.iter().map(|c| (*c).to_owned()).collect(),
                length: *length,
            })
            .collect();
        let layout = match &files[..] {
            [one] if one.path == ["my film"] => NewLayout::Single { length: one.length },
            _ => NewLayout::Directory { files: &files },
        };
        let (torrent, _) = NewMetainfo {
            name: "my film",
            piece_length: PIECE,
            pieces: &vec![0; total.div_ceil(u64::from(PIECE)) as usize * 20],
            layout,
            private: false,
            tracker_tiers: &[],
            web_seeds: &[],
        }
        .encode();
        Metainfo::parse(&torrent).expect("own format")
    }

    fn url_of(seed: &str, metainfo: &Metainfo, file: usize) -> String {
        file_url(&seed.parse().expect("a URL"), metainfo, file).to_string()
    }

    #[test]
    fn finds_the_file_where_bep_19_puts_it() {
        let single = metainfo(&[(&["my film"], 100)]);
        assert_eq!(url_of("http://cdn.example/x.mp4", &single, 0), "http://cdn.example/x.mp4");
        assert_eq!(url_of("http://cdn.example/d/", &single, 0), "http://cdn.example/d/my%20film");
        let several = metainfo(&[(&["a?b"], 100), (&["sub", "c#d"], 100)]);
        let want = "http://cdn.example/d/my%20film/a%3Fb";
        assert_eq!(url_of("http://cdn.example/d/", &several, 0), want);
        assert_eq!(url_of("http://cdn.example/d", &several, 0), want);
        let want = "http://cdn.example/d/my%20film/sub/c%23d";
        assert_eq!(url_of("http://cdn.example/d", &several, 1), want);
    }

    #[test]
    fn never_leaves_the_folder_of_the_web_seed() {
        let hostile = metainfo(&[(&["..", "..", "etc", "passwd"], 100), (&["a/../../b"], 100)]);
        for file in 0..2 {
            let url = url_of("http://cdn.example/d/", &hostile, file);
            assert!(url.starts_with("http://cdn.example/d/my%20film/"), "{url}");
        }
    }

    #[test]
    fn splits_a_piece_at_the_borders_of_files() {
        let m = metainfo(&[(&["a"], 10_000), (&["empty"], 0), (&["b"], 1_000), (&["c"], 30_000)]);
        let found = spans(&m, 0);
        let span = |file, bytes, file_bytes| Span { file, bytes, file_bytes };
        assert_eq!(
            found,
            [span(0, 0..10_000, 10_000), span(2, 0..1_000, 1_000), span(3, 0..5_384, 30_000)]
        );
        assert_eq!(spans(&m, 1), [span(3, 5_384..21_768, 30_000)]);
        assert_eq!(spans(&m, 2), [span(3, 21_768..30_000, 30_000)]);
        assert_eq!(spans(&m, 3), []);
    }

    #[test]
    fn reads_content_range() {
        assert_eq!(parse_content_range("bytes 5-9/100"), Some((5, Some(100))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */100", "items 5-9/100", "bytes 5/100", "bytes x-9/100"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
