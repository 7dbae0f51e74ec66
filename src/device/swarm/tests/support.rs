//! A web seed that misbehaves on demand, a sink in memory, and a real BitTorrent seeder.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use futures_util::StreamExt;
use librqbit::{
    AddTorrent, AddTorrentOptions, ListenerMode, ListenerOptions, Session, SessionOptions,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::watch};

use super::super::*;
use crate::logic::{
    infohash::sha1,
    metainfo::{File, NewLayout, NewMetainfo},
    wire::{Handshake, Message},
};

pub const PIECE: u32 = 64 * 1024;

/// A torrent and its bytes; `files` are path and length, one without a folder is a single file.
pub struct Content {
    pub metainfo: Arc<Metainfo>,
    pub torrent: Bytes,
    pub data: Vec<u8>,
}

pub fn single_file(length: u64) -> Content {
    content(NewLayout::Single { length }, length)
}

pub fn directory(files: &[(&[&str], u64)]) -> Content {
    let path = |p: &[&str]| p.iter().map(|c| (*c).to_owned()).collect();
    let files: Vec<File> =
        files.iter().map(|(p, length)| File { path: path(p), length: *length }).collect();
    let total = files.iter().map(|f| f.length).sum();
    content(NewLayout::Directory { files: &files }, total)
}

fn content(layout: NewLayout<'_>, total: u64) -> Content {
    // Bytes that repeat nowhere near a piece's length, so that misplaced pieces do not verify.
    let data: Vec<u8> = (0..total).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    let pieces: Vec<u8> = data.chunks(PIECE as usize).flat_map(sha1).collect();
    let (torrent, infohash) = NewMetainfo {
        name: "film",
        piece_length: PIECE,
        pieces: &pieces,
        layout,
        private: false,
        tracker_tiers: &[],
        web_seeds: &[],
    }
    .encode();
    let metainfo = Metainfo::parse_expecting(&torrent, infohash).expect("own format");
    Content { metainfo: Arc::new(metainfo), torrent: torrent.into(), data }
}

impl Content {
    pub fn job(&self, sink: &Arc<MemorySink>) -> FillJob {
        FillJob {
            metainfo: self.metainfo.clone(),
            torrent_bytes: self.torrent.clone(),
            web_seeds: vec![],
            peers: vec![],
            have: sink.have(),
            wanted: Bitfield::full(self.metainfo.piece_count()),
            sink: sink.clone(),
        }
    }

    pub fn total(&self) -> u64 {
        self.metainfo.total_bytes
    }
}

/// Nobody listens there: the engine runs, and the web seed has to do all the work.
pub fn dead_peer() -> SocketAddr {
    "127.0.0.1:1".parse().expect("an address")
}

pub struct MemorySink {
    metainfo: Arc<Metainfo>,
    data: Mutex<Vec<u8>>,
    verified: Mutex<BTreeMap<u32, FillSource>>,
    /// How many writes still succeed.
    pub writes_left: AtomicU64,
    pub read_bytes: AtomicU64,
    writes: Mutex<Vec<(u64, u64)>>,
    count: watch::Sender<usize>,
}

impl MemorySink {
    pub fn new(content: &Content) -> Arc<MemorySink> {
        Arc::new(MemorySink {
            metainfo: content.metainfo.clone(),
            data: Mutex::new(vec![0; content.data.len()]),
            verified: Mutex::default(),
            writes_left: AtomicU64::new(u64::MAX),
            read_bytes: AtomicU64::new(0),
            writes: Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    /// As an earlier fill left it, with its first pieces verified.
    pub fn holding(content: &Content, pieces: u32) -> Arc<MemorySink> {
        let sink = MemorySink::new(content);
        let bytes = content.metainfo.piece_offset(pieces) as usize;
        sink.data.lock()[..bytes].copy_from_slice(&content.data[..bytes]);
        sink.verified.lock().extend((0..pieces).map(|piece| (piece, FillSource::WebSeed)));
        sink
    }

    pub fn have(&self) -> Bitfield {
        let mut have = Bitfield::empty(self.metainfo.piece_count());
        self.verified.lock().keys().for_each(|piece| {
            have.set(*piece);
        });
        have
    }

    pub fn data(&self) -> Vec<u8> {
        self.data.lock().clone()
    }

    pub fn bytes_from(&self, source: FillSource) -> u64 {
        let verified = self.verified.lock();
        let pieces = verified.iter().filter(|(_, s)| **s == source).map(|(piece, _)| *piece);
        pieces.filter_map(|piece| self.metainfo.piece_bytes(piece)).map(u64::from).sum()
    }

    /// Offset and length of each, in order.
    pub fn writes(&self) -> Vec<(u64, u64)> {
        self.writes.lock().clone()
    }

    pub async fn wait_for_verified(&self, pieces: usize) {
        let mut count = self.count.subscribe();
        count.wait_for(|n| *n >= pieces).await.expect("the sink lives");
    }
}

impl PieceSink for MemorySink {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_bytes.fetch_add(buf.len() as u64, Ordering::SeqCst);
        let from = offset as usize;
        buf.copy_from_slice(&self.data.lock()[from..from + buf.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let left =
            self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_err() {
            return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        }
        self.writes.lock().push((offset, data.len() as u64));
        let from = offset as usize;
        self.data.lock()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn piece_verified(&self, piece: u32, source: FillSource) -> io::Result<()> {
        let from = self.metainfo.piece_offset(piece) as usize;
        let to = from + self.metainfo.piece_bytes(piece).expect("exists") as usize;
        assert!(self.metainfo.verifies(piece, &self.data.lock()[from..to]), "piece {piece}");
        let before = self.verified.lock().insert(piece, source);
        assert_eq!(before, None, "piece {piece} was told twice");
        self.count.send_modify(|n| *n += 1);
        Ok(())
    }
}

/// An HTTP server with the content's files under `/film…`, as BEP 19 wants them.
pub struct Origin {
    pub address: SocketAddr,
    state: Arc<OriginState>,
}

struct OriginState {
    files: BTreeMap<String, Vec<u8>>,
    fault: Mutex<Fault>,
    served_bytes: AtomicU64,
    requests: Mutex<Vec<(u64, u64)>>,
}

#[derive(Clone, Debug)]
pub enum Fault {
    None,
    Status(StatusCode),
    /// Answers 200 with everything.
    IgnoresRanges,
    /// Requests that reach this offset of their file wait for ever.
    HangsFrom(u64),
    /// Bytes at and after this offset of the file are wrong.
    WrongFrom(u64),
    /// The first answer breaks off after this many bytes.
    BreaksOffAfter(usize),
    Redirects,
    /// Says that its file is one byte longer.
    OtherLength,
    /// Says 429 and `Retry-After: 0` so many times before it answers.
    Busy(u32),
    /// Says 503 with this `Retry-After`.
    BusyFor(&'static str),
    Compresses,
    /// Goes on sending after the last byte, for ever.
    Endless,
    /// A byte now and then.
    Trickles,
    /// The answer is of the bytes after those that were asked for.
    OtherRange,
    /// A tenth of what was asked for, and honestly so.
    Less,
    /// After so many answers the file has other bytes and another ETag.
    ChangesAfter(usize),
    /// Each answer has another ETag, as from a farm of servers.
    NewTagEachTime,
    /// Sends everybody elsewhere.
    RedirectsTo(String),
}

impl Origin {
    pub async fn start(content: &Content, fault: Fault) -> Origin {
        let mut files = BTreeMap::new();
        let mut from = 0;
        for file in &content.metainfo.files {
            let to = from + file.length as usize;
            let path = if content.metainfo.directory {
                format!("film/{}", file.path.join("/"))
            } else {
                "film".to_owned()
            };
            files.insert(path, content.data[from..to].to_vec());
            from = to;
        }
        let state = Arc::new(OriginState {
            files,
            fault: Mutex::new(fault),
            served_bytes: AtomicU64::new(0),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let app = Router::new().route("/{*path}", get(serve)).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Origin { address, state }
    }

    /// The folder that the torrent's name is in.
    pub fn url(&self) -> Url {
        format!("http://{}/", self.address).parse().expect("a URL")
    }

    pub fn served_bytes(&self) -> u64 {
        self.state.served_bytes.load(Ordering::SeqCst)
    }

    /// First and last byte of each range asked for, in order of arrival.
    pub fn requests(&self) -> Vec<(u64, u64)> {
        self.state.requests.lock().clone()
    }
}

async fn serve(
    State(state): State<Arc<OriginState>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(file) = state.files.get(&path) else { return StatusCode::NOT_FOUND.into_response() };
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    let (first, last) = range
        .and_then(|r| r.strip_prefix("bytes=")?.split_once('-'))
        .and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)))
        .expect("a fill asks for ranges only");
    state.requests.lock().push((first, last));
    let mut body = file[first as usize..=last as usize].to_vec();
    let mut total = file.len();
    let fault = state.fault.lock().clone();
    match fault {
        Fault::None => {}
        Fault::Status(status) => return status.into_response(),
        Fault::IgnoresRanges => return file.clone().into_response(),
        Fault::HangsFrom(offset) if last >= offset => {
            body.truncate(offset.saturating_sub(first) as usize);
            state.served_bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
            return partial(first, last, total, then(body, futures_util::stream::pending()));
        }
        Fault::HangsFrom(_) => {}
        Fault::WrongFrom(offset) => {
            let wrong = offset.saturating_sub(first).min(body.len() as u64) as usize;
            body[wrong..].iter_mut().for_each(|b| *b ^= 0xff);
        }
        Fault::BreaksOffAfter(bytes) => {
            *state.fault.lock() = Fault::None;
            let start = Bytes::copy_from_slice(&body[..bytes]);
            // The pause lets the server send what it has before it learns of the error.
            let broken =
                futures_util::stream::iter([Ok(start)]).chain(futures_util::stream::once(async {
                    tokio::task::yield_now().await;
                    Err(io::Error::from(io::ErrorKind::ConnectionReset))
                }));
            state.served_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
            return partial(first, last, total, Body::from_stream(broken));
        }
        Fault::Redirects => return Redirect::temporary(&format!("/{path}")).into_response(),
        Fault::OtherLength => total += 1,
        Fault::RedirectsTo(url) => return Redirect::temporary(&url).into_response(),
        fault => return serve_worse(&state, fault, &headers, (first, last), file),
    }
    state.served_bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
    partial(first, last, total, body.into())
}

/// The rest of the faults.
fn serve_worse(
    state: &OriginState,
    fault: Fault,
    headers: &HeaderMap,
    (first, last): (u64, u64),
    file: &[u8],
) -> Response {
    let total = file.len();
    let body = file[first as usize..=last as usize].to_vec();
    let answers = state.requests.lock().len();
    let busy = |status: StatusCode, wait: &'static str| {
        (status, [(header::RETRY_AFTER, wait)]).into_response()
    };
    let tagged = |tag: usize, body: Vec<u8>| {
        let tag = format!("\"v{tag}\"");
        let asked = headers.get(header::IF_RANGE).map(|v| v.to_str().expect("text"));
        if asked.is_some_and(|asked| asked != tag) {
            return ([(header::ETAG, tag)], file.to_vec()).into_response();
        }
        state.served_bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
        let mut answer = partial(first, last, total, body.into());
        answer.headers_mut().insert(header::ETAG, tag.parse().expect("a value"));
        answer
    };
    match fault {
        Fault::Busy(0) => partial(first, last, total, body.into()),
        Fault::Busy(times) => {
            *state.fault.lock() = Fault::Busy(times - 1);
            busy(StatusCode::TOO_MANY_REQUESTS, "0")
        }
        Fault::BusyFor(wait) => busy(StatusCode::SERVICE_UNAVAILABLE, wait),
        Fault::Compresses => {
            let mut answer = partial(first, last, total, body.into());
            answer.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().expect("a value"));
            answer
        }
        Fault::Endless => {
            let more = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096])));
            let mut answer = partial(first, last, total, then(body, more));
            answer.headers_mut().remove(header::CONTENT_LENGTH);
            answer
        }
        Fault::Trickles => {
            let drops = futures_util::stream::unfold(body.into_iter(), |mut rest| async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                rest.next().map(|byte| (Ok(Bytes::from(vec![byte])), rest))
            });
            partial(first, last, total, then(vec![], drops))
        }
        Fault::OtherRange => partial(first + 1, last, total, body[1..].to_vec().into()),
        Fault::Less => {
            let last = (first + (total as u64 / 10).max(64 * 1024)).min(last);
            let body = file[first as usize..=last as usize].to_vec();
            state.served_bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
            partial(first, last, total, body.into())
        }
        Fault::ChangesAfter(times) if answers > times => {
            tagged(2, body.into_iter().map(|b| !b).collect())
        }
        Fault::ChangesAfter(_) => tagged(1, body),
        Fault::NewTagEachTime => tagged(answers, body),
        other => panic!("{other:?} is dealt with elsewhere"),
    }
}

/// A body that begins with these bytes.
fn then(
    start: Vec<u8>,
    rest: impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Body {
    Body::from_stream(futures_util::stream::iter([Ok(Bytes::from(start))]).chain(rest))
}

fn partial(first: u64, last: u64, total: usize, body: Body) -> Response {
    let range = format!("bytes {first}-{last}/{total}");
    let length = (last - first + 1).to_string();
    let headers = [(header::CONTENT_RANGE, range), (header::CONTENT_LENGTH, length)];
    (StatusCode::PARTIAL_CONTENT, headers, body).into_response()
}

/// A peer that has nothing itself, but tells of others (BEP 11).
pub async fn gossip(content: &Content, others: [SocketAddr; 2]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let shake = Handshake {
        infohash: content.metainfo.infohash,
        peer_id: *b"-XX0000-gossip-gossi",
        fast: false,
        extensions: true,
    };
    let mut added = b"d5:added12:".to_vec();
    for other in others {
        let SocketAddr::V4(other) = other else { panic!("IPv4 in these tests") };
        added.extend(other.ip().octets());
        added.extend(other.port().to_be_bytes());
    }
    added.push(b'e');
    let mut said = shake.encode().to_vec();
    Message::Extended { id: 0, payload: b"d1:md6:ut_pexi1eee" }.encode(&mut said);
    // The id that librqbit has given ut_pex.
    Message::Extended { id: 1, payload: &added }.encode(&mut said);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        stream.write_all(&said).await.expect("writes");
        // Stays until the other side goes.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    address
}

/// librqbit itself as another device that has the content.
pub struct Seeder {
    pub address: SocketAddr,
    _session: Arc<Session>,
    _folder: TempDir,
}

impl Seeder {
    pub async fn start(content: &Content, spoilt: bool) -> Seeder {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("film");
        std::fs::write(&path, &content.data).expect("writes");
        let session = Session::new_with_opts(
            folder.path().to_owned(),
            SessionOptions {
                dht: None,
                disable_trackers: true,
                disable_local_service_discovery: true,
                listen: Some(ListenerOptions {
                    mode: ListenerMode::TcpOnly,
                    listen_addr: "127.0.0.1:0".parse().expect("an address"),
                    ipv4_only: true,
                    ..ListenerOptions::default()
                }),
                ..SessionOptions::default()
            },
        )
        .await
        .expect("starts");
        let options = AddTorrentOptions {
            overwrite: true,
            output_folder: Some(folder.path().to_string_lossy().into_owned()),
            ..AddTorrentOptions::default()
        };
        let torrent = session
            .add_torrent(AddTorrent::from_bytes(content.torrent.clone()), Some(options))
            .await
            .expect("adds")
            .into_handle()
            .expect("has a handle");
        torrent.wait_until_initialized().await.expect("checks its file");
        assert!(torrent.stats().finished, "the seeder has the whole content");
        if spoilt {
            std::fs::write(&path, vec![0x5a; content.data.len()]).expect("writes");
        }
        let address = session.listen_addr().expect("listens");
        Seeder { address, _session: session, _folder: folder }
    }
}
