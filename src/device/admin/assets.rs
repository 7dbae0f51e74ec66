//! The page's files, compiled in from `web-ui/dist`. A path is looked up in a table and never
//! touches a file system or gets decoded, so there is nothing that `..` could climb.

use std::{collections::BTreeMap, sync::OnceLock};

use aws_lc_rs::digest;
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use include_dir::{Dir, include_dir};

use super::refusal::Refusal;

static DIST: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/web-ui/dist");

/// The build puts a content hash into the name of everything below it.
const HASHED: &str = "/assets/";

struct Asset {
    body: &'static [u8],
    /// Made at build time; absent where it would not be smaller.
    gzip: Option<&'static [u8]>,
    content_type: &'static str,
    etag: HeaderValue,
}

pub async fn serve(request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = match request.uri().path() {
        "/" => "/index.html",
        path => path,
    };
    match assets().get(path) {
        Some(asset) => respond(path, asset, request.headers()),
        None => Refusal::NotFound.into_text(),
    }
}

fn respond(path: &str, asset: &Asset, headers: &HeaderMap) -> Response {
    let cache = match path.starts_with(HASHED) {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let about = [
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
        (header::ETAG, asset.etag.clone()),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
    ];
    if headers.get(header::IF_NONE_MATCH) == Some(&asset.etag) {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, asset.content_type)];
    match asset.gzip.filter(|_| accepts_gzip(headers)) {
        Some(gzip) => {
            (about, content_type, [(header::CONTENT_ENCODING, "gzip")], gzip).into_response()
        }
        None => (about, content_type, asset.body).into_response(),
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let value = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        is_gzip && !parts.any(|p| matches!(p, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn assets() -> &'static BTreeMap<String, Asset> {
    static ASSETS: OnceLock<BTreeMap<String, Asset>> = OnceLock::new();
    ASSETS.get_or_init(|| {
        let mut assets = BTreeMap::new();
        collect(&DIST, &mut assets);
        assets
    })
}

fn collect(dir: &'static Dir<'static>, assets: &mut BTreeMap<String, Asset>) {
    for file in dir.files() {
        let path = file.path().to_str().expect("the build makes plain names");
        let Some(content_type) = content_type(path) else { continue };
        let body = file.contents();
        let digest = digest::digest(&digest::SHA256, body);
        let etag = format!("\"{}\"", HEXLOWER.encode(&digest.as_ref()[..8]));
        let asset = Asset {
            body,
            gzip: DIST.get_file(format!("{path}.gz")).map(|f| f.contents()),
            content_type,
            etag: etag.try_into().expect("hex in quotes"),
        };
        assets.insert(format!("/{path}"), asset);
    }
    dir.dirs().for_each(|inner| collect(inner, assets));
}

/// `None` for what is not served under its own name.
fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The issue's budget; CI fails over 100 KB.
    const GZIP_BYTES_MAX: usize = 60_000;

    #[test]
    fn fits_the_budget_on_the_wire() {
        let size = |a: &Asset| a.gzip.unwrap_or(a.body).len();
        let total: usize = assets().values().map(size).sum();
        assert!(total <= GZIP_BYTES_MAX, "{total} bytes");
        assert!(assets().contains_key("/index.html"));
    }

    #[test]
    fn sends_gzip_only_where_it_is_accepted() {
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            accepts_gzip(&headers)
        };
        assert!(accepts("gzip") && accepts("br, GZIP;q=0.5, *"));
        assert!(!accepts("gzip;q=0") && !accepts("br") && !accepts("gzipped"));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
