//! Larder's own serving engine: hands blocks to BitTorrent peers under the governor's allowance and
//! counts what they received. It runs on one thread of its own with one epoll, and only serves: it
//! asks nobody for a block and writes no files. Connections that it opens, to leechers that a tracker
//! has named, are for serving too.
//!
//! It speaks TCP only, and keeps UDP on its ports closed: a client that tries µTP (BEP 29) first
//! learns that at once from ICMP. Answering with a µTP reset was tried and is worse: Transmission 3
//! takes it for a lost connection, drops its TCP attempt, and tries µTP again the next time.

mod blocks;
mod connection;
mod deadlines;
mod engine;
mod files;
mod interfaces;
mod lan;
mod memory;
mod pipe;
mod remote;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use parking_lot::Mutex;

use self::engine::Request;
pub use self::remote::Remote;
pub use crate::logic::{
    governor::{Allowance, Prefix},
    wire::Servable,
};
use crate::logic::{
    infohash::Infohash,
    outreach,
    usage::UsageDelta,
    wire::{LocalPeer, Timeouts},
};

pub struct ServeSettings {
    /// Where peers connect; may be several, IPv4 and IPv6.
    pub listeners: Vec<TcpListener>,
    /// Our own id (BEP 20), the same for the life of the device.
    pub peer_id: [u8; 20],
    /// `v` of the extension handshake (BEP 10).
    pub client_name: String,
    pub connections_max: u32,
    /// By IPv4 address or IPv6 /64.
    pub connections_per_ip_max: u32,
    /// So that no content's peers take all places.
    pub connections_per_content_max: u32,
    /// `p` of the extension handshake (BEP 10): the port that the world can reach.
    pub listen_port: u16,
    /// Called on the engine's thread when there are peers and there were none.
    pub on_first_peer: Box<dyn Fn() + Send>,
    /// The household's networks; `None` to go by the device's own interfaces.
    pub lan_prefixes: Option<Vec<Prefix>>,
}

/// How the engine gets at content: one file with all pieces in order. Called lazily; the engine
/// keeps a few files open.
pub trait OpenContent: Send {
    fn open(&self, infohash: Infohash) -> io::Result<std::fs::File>;
}

/// Whoever checks pieces on disk before they leave. Called on the engine's thread; must not block.
pub trait CheckPieces: Send {
    /// A peer waits for this piece. Answered with `Proven` or `Withdraw`, some time.
    fn check(&self, infohash: Infohash, piece: u32);

    /// The answer to `Withhold`.
    fn withheld(&self, infohash: Infohash);
}

pub enum ServeCommand {
    /// Serves a content, as far as it is held. For one that is served already, adds its new pieces.
    Add(Servable),
    /// A piece has been verified and may be served; peers are told.
    Have { infohash: Infohash, piece: u32 },
    /// A piece was checked and may leave: from its file, as long as nobody can write to that, else from
    /// these bytes. What peers asked of it goes on.
    Proven { infohash: Infohash, piece: u32, bytes: Option<Arc<[u8]>> },
    /// Pieces that turned out bad: not served any more, until `Have`.
    Withdraw { infohash: Infohash, pieces: Vec<u32> },
    /// Somebody may write to the file from now on: what was proven of it has to be checked again.
    Distrust { infohash: Infohash },
    /// Somebody wants to write to the file and is kept waiting: as `Distrust`, and answered through
    /// `CheckPieces` as soon as nothing on its way to peers refers to the file any more.
    Withhold { infohash: Infohash },
    /// A content's share of the slots while they are short, 1 to `WEIGHT_MAX`; 1 until told. Unknown
    /// contents are ignored, so it comes after `Add`.
    SetWeight { infohash: Infohash, weight: u32 },
    /// Closes its connections and its file.
    Remove { infohash: Infohash },
    /// What may leave to the WAN. Acts at once.
    SetAllowance(Allowance),
    /// Who takes a content, by a tracker's word; some of them will be called.
    Named { infohash: Infohash, leechers: Vec<SocketAddr> },
    /// The household's own peers get nothing, or as much as they can take: no limit but this one
    /// concerns them.
    PauseLan(bool),
    /// From now on publishes how serving goes, 50 times a second while somebody is served. `alarm` is
    /// called on the engine's thread when serving begins; it must not block.
    Measure { alarm: Box<dyn Fn() + Send> },
}

/// How serving to the WAN goes; totals since it was first asked for.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub at: Instant,
    /// By the kernel, for the first time: without what it repeats.
    pub sent_wire_bytes_total: u64,
    pub acknowledged_wire_bytes_total: u64,
    pub peers_want_more: bool,
    pub peers_unchoked: u32,
    /// One that is served.
    pub peer: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServeStats {
    pub peers_connected: u32,
    /// Of the WAN.
    pub peers_unchoked: u32,
    /// Peers of the WAN that have something to get and did not get it yet, when usage was last taken.
    pub peers_waiting: u32,
    /// Everything that was handed to the kernel for the WAN, with the estimate for TCP/IP headers.
    pub egress_wire_bytes_total: u64,
    /// The same for the LAN.
    pub lan_egress_wire_bytes_total: u64,
    /// Metadata requests (BEP 9) taken up, since the start.
    pub metadata_requests_total: u64,
    /// Connections turned away because a limit was reached or serving was paused, since the start.
    pub connections_refused_total: u64,
}

/// A handle to the engine. Dropping it stops the engine as `stop` does, and loses the last usage.
pub struct Engine {
    requests: mpsc::Sender<Request>,
    waker: Arc<mio::Waker>,
    stats: Arc<SharedStats>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the engine's thread publishes; read without waking it.
#[derive(Default)]
struct SharedStats {
    peers_connected: AtomicU32,
    peers_unchoked: AtomicU32,
    peers_waiting: AtomicU32,
    egress_wire_bytes: AtomicU64,
    lan_egress_wire_bytes: AtomicU64,
    metadata_requests: AtomicU64,
    connections_refused: AtomicU64,
    measured: Mutex<Option<Measured>>,
}

impl Engine {
    /// Serves nothing and sends nothing until told: it starts without contents, and paused for all.
    pub fn start(settings: ServeSettings, content: Box<dyn OpenContent>) -> io::Result<Engine> {
        let timeouts = Timeouts::default();
        Engine::start_with(settings, timeouts, outreach::may_call, content, None)
    }

    /// The same, with every piece checked before it leaves.
    pub fn start_checking(
        settings: ServeSettings,
        content: Box<dyn OpenContent>,
        checker: Box<dyn CheckPieces>,
    ) -> io::Result<Engine> {
        let timeouts = Timeouts::default();
        Engine::start_with(settings, timeouts, outreach::may_call, content, Some(checker))
    }

    fn start_with(
        settings: ServeSettings,
        timeouts: Timeouts,
        may_call: fn(SocketAddr) -> bool,
        content: Box<dyn OpenContent>,
        checker: Option<Box<dyn CheckPieces>>,
    ) -> io::Result<Engine> {
        let us = LocalPeer {
            peer_id: settings.peer_id,
            client_name: settings.client_name.clone(),
            listen_port: settings.listen_port,
            timeouts,
        };
        let stats = Arc::new(SharedStats::default());
        let (requests, inbox) = mpsc::channel();
        let (engine, waker) =
            engine::Loop::new(settings, us, may_call, content, checker, inbox, stats.clone())?;
        let thread =
            thread::Builder::new().name("larder-serve".into()).spawn(move || engine.run())?;
        Ok(Engine { requests, waker: Arc::new(waker), stats, thread: Some(thread) })
    }

    /// Does not block. Commands act in the order in which they are sent.
    pub fn send(&self, command: ServeCommand) {
        self.request(Request::Command(command));
    }

    /// Bytes delivered since the last call, one line per content and class. Whoever takes them must
    /// write them down: they are not told twice.
    pub fn take_usage(&self) -> Vec<UsageDelta> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.request(Request::TakeUsage(reply));
        answer.recv().unwrap_or_default()
    }

    /// For another thread that has something to say to the engine.
    pub fn remote(&self) -> Remote {
        Remote::new(self.requests.clone(), self.waker.clone(), self.stats.clone())
    }

    pub fn stats(&self) -> ServeStats {
        let s = &self.stats;
        ServeStats {
            peers_connected: s.peers_connected.load(Ordering::Relaxed),
            peers_unchoked: s.peers_unchoked.load(Ordering::Relaxed),
            peers_waiting: s.peers_waiting.load(Ordering::Relaxed),
            egress_wire_bytes_total: s.egress_wire_bytes.load(Ordering::Relaxed),
            lan_egress_wire_bytes_total: s.lan_egress_wire_bytes.load(Ordering::Relaxed),
            metadata_requests_total: s.metadata_requests.load(Ordering::Relaxed),
            connections_refused_total: s.connections_refused.load(Ordering::Relaxed),
        }
    }

    /// Closes all connections and returns the last usage. Waits a moment (half a second at most)
    /// for what is under way to be acknowledged.
    pub fn stop(mut self) -> Vec<UsageDelta> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Vec<UsageDelta> {
        let Some(thread) = self.thread.take() else { return vec![] };
        let (reply, answer) = mpsc::sync_channel(1);
        self.request(Request::Stop(reply));
        let usage = answer.recv().unwrap_or_default();
        if thread.join().is_err() {
            tracing::error!("the serving thread ended with a panic");
        }
        usage
    }

    /// A request to a thread that has ended is answered by the closed channel.
    fn request(&self, request: Request) {
        if self.requests.send(request).is_err() {
            tracing::error!("the serving thread has ended");
        } else if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "the serving thread cannot be woken");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shut_down();
    }
}
