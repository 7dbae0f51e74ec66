//! Files over HTTP: the TUF repository, `.torrent` files and the origin's content, with validators
//! and ranges (RFC 9110).

use std::{
    io::SeekFrom,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{Problem, UrlPath, waiting};
use crate::{
    hub::{
        keys::sha256_hex,
        origin::{self, Counter, OriginFile, Wanted},
        repo::{self, Served},
        state::Hub,
        store::Content,
    },
    logic::{infohash::Infohash, now::UnixSeconds},
};

/// Large enough that a read costs little, small enough for many readers at once.
const CHUNK_BYTES: usize = 128 * 1024;
const TIMESTAMP: &str = "timestamp.json";
/// It is how fast news travels; a cache may hold it for a moment.
const CACHE_SHORTLY: &str = "public, max-age=5";
const CACHE_FOR_EVER: &str = "public, max-age=31536000, immutable";
/// The bytes stay, but a revoked content must not live on in caches for long.
const CACHE_CONTENT: &str = "public, max-age=3600";

pub async fn tuf_metadata(
    State(hub): State<Arc<Hub>>,
    UrlPath(name): UrlPath<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    match name == TIMESTAMP {
        true => waiting::timestamp(hub, &headers).await,
        false => tuf(&hub, "metadata", name, &headers).await,
    }
}

/// `timestamp.json` as it is now.
pub async fn timestamp(hub: &Arc<Hub>, headers: &HeaderMap) -> Result<Response, Problem> {
    tuf(hub, "metadata", TIMESTAMP.to_owned(), headers).await
}

pub fn is_unchanged(answer: &Response) -> bool {
    answer.status() == StatusCode::NOT_MODIFIED
}

pub async fn tuf_target(
    State(hub): State<Arc<Hub>>,
    UrlPath(name): UrlPath<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    tuf(&hub, "targets", name, &headers).await
}

async fn tuf(
    hub: &Arc<Hub>,
    folder: &'static str,
    name: String,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let found = hub
        .blocking(move |hub| {
            repo::serve(&hub.tuf_dir, folder, &name).map_err(|e| Problem::internal(&e))
        })
        .await?;
    let Some(Served { bytes, etag, immutable }) = found else {
        return Err(Problem::not_found("the repository has no such file"));
    };
    let cache = if immutable { CACHE_FOR_EVER } else { CACHE_SHORTLY };
    let content_type = "application/json";
    Ok(whole(bytes, &etag, cache, content_type, headers))
}

pub async fn metainfo(
    State(hub): State<Arc<Hub>>,
    UrlPath(file): UrlPath<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let infohash = file.strip_suffix(".torrent").and_then(|hex| hex.parse().ok());
    let content = published(&hub, infohash).await?;
    let bytes =
        hub.blocking(move |hub| hub.metainfo(&content).map_err(|e| Problem::internal(&e))).await?;
    let etag = format!("\"{}\"", sha256_hex(&bytes));
    Ok(whole(bytes, &etag, CACHE_CONTENT, "application/x-bittorrent", &headers))
}

fn whole(
    bytes: Vec<u8>,
    etag: &str,
    cache: &'static str,
    content_type: &'static str,
    headers: &HeaderMap,
) -> Response {
    let validators = [(header::ETAG, etag), (header::CACHE_CONTROL, cache)];
    if none_match(headers, etag) {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    (validators, [(header::CONTENT_TYPE, content_type)], bytes).into_response()
}

pub async fn origin(
    State(hub): State<Arc<Hub>>,
    UrlPath((infohash, path)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let content = published(&hub, infohash.parse().ok()).await?;
    let infohash = content.infohash;
    let layout = hub.blocking(move |hub| hub.store.layout(infohash).map_err(Problem::from)).await?;
    let file = layout
        .and_then(|layout| origin::find(&layout, &path))
        .ok_or_else(|| Problem::not_found("this content has no such file"))?;
    let validators = Validators::of(&content, &file);
    let length = file.range.end - file.range.start;
    if none_match(&headers, &validators.etag) {
        return Ok((StatusCode::NOT_MODIFIED, validators.headers()).into_response());
    }
    let range = text(&headers, header::RANGE).filter(|_| validators.if_range(&headers));
    let (status, part) = match origin::wanted(range, length) {
        Wanted::Whole => (StatusCode::OK, 0..length),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Wanted::Unsatisfiable => {
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "bad_range",
                format!("the file has {length} bytes"),
            );
            return Ok(
                ([(header::CONTENT_RANGE, format!("bytes */{length}"))], problem).into_response()
            );
        }
    };
    let start = file.range.start + part.start;
    let body = stream(&hub, infohash, start, part.end - part.start).await?;
    let mut response = (status, validators.headers(), body).into_response();
    let fields = response.headers_mut();
    let octets = HeaderValue::from_static("application/octet-stream");
    fields.insert(header::CONTENT_TYPE, octets);
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{length}", part.start, part.end - 1);
        let range = HeaderValue::from_str(&range).map_err(|e| Problem::internal(&e))?;
        fields.insert(header::CONTENT_RANGE, range);
    }
    Ok(response)
}

/// Anything published and not revoked; a lease's end is the devices' business, not the origin's.
async fn published(hub: &Arc<Hub>, infohash: Option<Infohash>) -> Result<Content, Problem> {
    let unknown = || Problem::not_found("no such content is published here");
    let infohash = infohash.ok_or_else(unknown)?;
    let content =
        hub.blocking(move |hub| hub.store.content(infohash).map_err(Problem::from)).await?;
    content.filter(|content| !content.revoked).ok_or_else(unknown)
}

async fn stream(
    hub: &Arc<Hub>,
    infohash: Infohash,
    start: u64,
    length: u64,
) -> Result<Body, Problem> {
    let problem = |e: std::io::Error| Problem::internal(&e);
    let mut blob = tokio::fs::File::open(hub.origin.blob(infohash)).await.map_err(problem)?;
    blob.seek(SeekFrom::Start(start)).await.map_err(problem)?;
    blob.set_max_buf_size(CHUNK_BYTES);
    let counter = Counter::new(hub.origin.clone(), infohash);
    let chunks = ReaderStream::with_capacity(blob.take(length), CHUNK_BYTES)
        .inspect_ok(move |chunk| counter.count(chunk.len()));
    Ok(Body::from_stream(chunks))
}

/// The bytes under an infohash never change, so the validator needs only the names.
struct Validators {
    etag: String,
    last_modified: String,
}

impl Validators {
    fn of(content: &Content, file: &OriginFile) -> Validators {
        let UnixSeconds(at) = content.published_at;
        Validators {
            etag: format!("\"{}.{}\"", content.infohash, file.index),
            last_modified: httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at)),
        }
    }

    fn headers(&self) -> [(HeaderName, String); 3] {
        [
            (header::ETAG, self.etag.clone()),
            (header::LAST_MODIFIED, self.last_modified.clone()),
            (header::CACHE_CONTROL, CACHE_CONTENT.to_owned()),
        ]
    }

    /// Whether a range still refers to the same bytes (RFC 9110, section 13.1.5).
    fn if_range(&self, headers: &HeaderMap) -> bool {
        text(headers, header::IF_RANGE)
            .is_none_or(|v| v.trim() == self.etag || v.trim() == self.last_modified)
    }
}

/// RFC 9110, section 13.1.2; comparison is weak, so a cache's `W/` is fine.
fn none_match(headers: &HeaderMap, etag: &str) -> bool {
    text(headers, header::IF_NONE_MATCH).is_some_and(|list| {
        list.split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == etag || tag == "*")
    })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
