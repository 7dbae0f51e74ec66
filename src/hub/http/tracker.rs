//! `/announce` and `/scrape` over HTTP. BitTorrent clients expect status 200 with bencoding, also
//! for refusals. The peer's address is the connection's: a header could say anything.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, RawQuery, State},
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use super::device::address;
use crate::hub::{
    channel::{announce_answer, failure, parse_announce, parse_scrape, scrape_answer},
    state::Hub,
};

pub async fn announce(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
) -> Response {
    let request = match parse_announce(query.as_deref().unwrap_or_default()) {
        Ok(request) => request,
        Err(error) => return bencoded(error.answer()),
    };
    let from = address(from);
    let mut swarms = hub.swarms.lock();
    let answer = swarms.announce(&request, from, hub.clock.monotonic(), rand::random());
    bencoded(match answer {
        Some(peers) => announce_answer(&peers, request.compact, from, swarms.interval()),
        None => failure("this tracker does not serve that torrent"),
    })
}

pub async fn scrape(State(hub): State<Arc<Hub>>, RawQuery(query): RawQuery) -> Response {
    let wanted = match parse_scrape(query.as_deref().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(error) => return bencoded(error.answer()),
    };
    let mut swarms = hub.swarms.lock();
    let now = hub.clock.monotonic();
    let found: Vec<_> = wanted
        .into_iter()
        .filter_map(|infohash| Some((infohash, swarms.scrape(infohash, now)?)))
        .collect();
    bencoded(scrape_answer(&found))
}

fn bencoded(body: Vec<u8>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain"), (CACHE_CONTROL, "no-store")];
    (headers, body).into_response()
}
