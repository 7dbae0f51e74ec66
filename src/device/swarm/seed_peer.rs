//! The web seeds as a BitTorrent peer on loopback, for librqbit, which knows no web seeds: it offers
//! the missing pieces once other peers bring too little, and answers requests out of whole verified
//! pieces that it fetches over HTTP.
//! Speaks to our own librqbit session only, told by its peer id, which is a secret of this fill.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{FillError, progress::Progress, web_seed::WebSeeds};
use crate::logic::{
    metainfo::Metainfo,
    wire::{Assembler, BlockRequest, HANDSHAKE_BYTES, Handshake, Message},
};

/// librqbit cuts a peer that says nothing for ten seconds, and a piece may take longer to fetch.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(4);
/// Other devices are enough when they will have brought the rest within this time, or are as fast as
/// a few neighbours' uplinks: content that is hot is wanted soon.
const ENOUGH_WITHIN: Duration = Duration::from_secs(60);
const ENOUGH_BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const PEER_ID: [u8; 20] = *b"-LR0100-our-web-seed";

pub(super) struct SeedPeer {
    pub seeds: Arc<WebSeeds>,
    pub progress: Arc<Progress>,
    /// Of the one session that may connect.
    pub client_peer_id: [u8; 20],
    /// Whether the fill can go on without us.
    pub others: bool,
    /// While the others bring enough in each such time, we stay choked: what a neighbour has costs
    /// the operator nothing.
    pub hold_back: Duration,
}

impl SeedPeer {
    /// Starts to listen; serves until `stop`, or until no web seed is good any more.
    pub async fn start(self, stop: CancellationToken) -> Result<SocketAddr, FillError> {
        let failed = |e: io::Error| FillError::Engine(format!("cannot listen on loopback: {e}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                error = self.accept(listener) => match error {
                    FillError::WebSeed { .. } if self.others => {
                        self.progress.web_seeds_gave_up(error);
                    }
                    error => self.progress.fail(error),
                }
            }
        });
        Ok(address)
    }

    /// What the others must bring while we are held back.
    fn enough_bytes(&self) -> u64 {
        let bytes = |piece| u64::from(self.progress.metainfo.piece_bytes(piece).unwrap_or(0));
        let missing_bytes: u64 = self.progress.missing().iter_held().map(bytes).sum();
        let in_time = missing_bytes / ENOUGH_WITHIN.as_secs();
        // Our own limit slows the others down as well.
        let limit = self.seeds.rate().map_or(u64::MAX, |rate| rate / 2);
        let bytes_per_second = in_time.min(ENOUGH_BYTES_PER_SECOND).min(limit);
        (bytes_per_second as f64 * self.hold_back.as_secs_f64()) as u64
    }

    /// One connection at a time: there is one client. Returns when the web seeds are of no use.
    async fn accept(&self, listener: TcpListener) -> FillError {
        loop {
            let connected = match listener.accept().await {
                Ok((stream, _)) => self.serve(stream).await,
                Err(e) => Err(End::Connection(e)),
            };
            match connected {
                Ok(()) => {}
                Err(End::Connection(e)) => tracing::debug!("loopback web seed: {e}"),
                Err(End::WebSeeds(error)) => return error,
            }
        }
    }

    async fn serve(&self, stream: TcpStream) -> Result<(), End> {
        stream.set_nodelay(true)?;
        let (mut read, write) = stream.into_split();
        let shake = timeout(HANDSHAKE_TIMEOUT, read_handshake(&mut read))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let infohash = self.progress.metainfo.infohash;
        if shake.infohash != infohash || shake.peer_id != self.client_peer_id {
            return Err(io::Error::other("a stranger connected").into());
        }
        let mut connection = Connection {
            peer: self,
            write,
            wanted: BTreeMap::new(),
            fetches: JoinSet::new(),
            out: Vec::new(),
            choked: true,
        };
        connection.greet().await?;
        connection.run(read).await
    }
}

/// Why a connection ended.
enum End {
    Connection(io::Error),
    WebSeeds(FillError),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Connection(error)
    }
}

async fn read_handshake(read: &mut OwnedReadHalf) -> io::Result<Handshake> {
    let mut bytes = [0; HANDSHAKE_BYTES];
    read.read_exact(&mut bytes).await?;
    match Handshake::parse(&bytes) {
        Ok(Some(shake)) => Ok(shake),
        _ => Err(io::Error::other("not a BitTorrent handshake")),
    }
}

struct Connection<'a> {
    peer: &'a SeedPeer,
    write: OwnedWriteHalf,
    /// Pieces that were asked for and are not sent whole yet.
    wanted: BTreeMap<u32, Wanted>,
    fetches: JoinSet<(u32, Result<Bytes, FillError>)>,
    out: Vec<u8>,
    choked: bool,
}

struct Wanted {
    /// Asked for, and not answered because the piece is still on its way.
    blocks: Vec<BlockRequest>,
    data: Option<Bytes>,
    sent_bytes: u32,
    fetch: AbortHandle,
}

impl Connection<'_> {
    async fn greet(&mut self) -> io::Result<()> {
        let infohash = self.peer.progress.metainfo.infohash;
        let ours = Handshake { infohash, peer_id: PEER_ID, fast: false, extensions: false };
        self.write.write_all(&ours.encode()).await?;
        let offered = self.peer.progress.missing();
        self.say(&[Message::Bitfield(offered.as_bytes())]).await
    }

    async fn run(&mut self, mut read: OwnedReadHalf) -> Result<(), End> {
        let mut assembler = Assembler::default();
        let mut input = BytesMut::with_capacity(4096);
        let mut keep_alive = tokio::time::interval(KEEP_ALIVE_EVERY);
        let mut held_back = tokio::time::interval(self.peer.hold_back);
        // The first tick of an interval comes at once.
        held_back.tick().await;
        let mut before = self.peer.progress.peer_bytes();
        loop {
            tokio::select! {
                received = read.read_buf(&mut input) => {
                    if received? == 0 {
                        return Ok(());
                    }
                    let received = input.split();
                    let mut rest = &received[..];
                    while let Some(message) = assembler.next(&mut rest).map_err(io::Error::other)? {
                        match message {
                            Message::Request(block) => self.requested(block).await?,
                            Message::Cancel(block) => self.cancelled(block),
                            _ => {}
                        }
                    }
                }
                Some(fetched) = self.fetches.join_next() => {
                    // The only failure to join is a fetch that was cancelled.
                    if let Ok((piece, data)) = fetched {
                        self.fetched(piece, data.map_err(End::WebSeeds)?).await?;
                    }
                }
                _ = held_back.tick(), if self.choked => {
                    let brings = self.peer.progress.peer_bytes();
                    let brought = std::mem::replace(&mut before, brings).abs_diff(brings);
                    if brought <= self.peer.enough_bytes() {
                        tracing::debug!("peers bring too little: the web seed steps in");
                        self.choked = false;
                        self.say(&[Message::Unchoke]).await?;
                    }
                }
                _ = keep_alive.tick() => self.say(&[Message::KeepAlive]).await?,
            }
        }
    }

    async fn requested(&mut self, block: BlockRequest) -> io::Result<()> {
        if !lies_within(&self.peer.progress.metainfo, block) {
            return Err(io::Error::other("asked for a block that does not exist"));
        }
        let piece = block.piece;
        let wanted = self.wanted.entry(piece).or_insert_with(|| {
            let seeds = self.peer.seeds.clone();
            let fetch = self.fetches.spawn(async move { (piece, seeds.fetch(piece).await) });
            Wanted { blocks: Vec::new(), data: None, sent_bytes: 0, fetch }
        });
        wanted.blocks.push(block);
        if wanted.data.is_some() { self.send(piece).await } else { Ok(()) }
    }

    /// librqbit cancels when it gives the piece to another peer.
    fn cancelled(&mut self, block: BlockRequest) {
        let Some(wanted) = self.wanted.get_mut(&block.piece) else { return };
        wanted.blocks.retain(|b| *b != block);
        if wanted.blocks.is_empty() {
            wanted.fetch.abort();
            self.wanted.remove(&block.piece);
        }
    }

    async fn fetched(&mut self, piece: u32, data: Bytes) -> io::Result<()> {
        match self.wanted.get_mut(&piece) {
            Some(wanted) => wanted.data = Some(data),
            None => return Ok(()),
        }
        self.send(piece).await
    }

    /// Answers what was asked of a piece that is there; lets go of it after its last byte.
    async fn send(&mut self, piece: u32) -> io::Result<()> {
        let Some(wanted) = self.wanted.get_mut(&piece) else { return Ok(()) };
        let Some(data) = &wanted.data else { return Ok(()) };
        for block in wanted.blocks.drain(..) {
            wanted.sent_bytes += block.length;
            if wanted.sent_bytes as usize >= data.len() {
                self.peer.progress.handed_over_by_web_seed(piece);
            }
            let (from, to) = (block.begin as usize, (block.begin + block.length) as usize);
            self.peer.progress.count_looped(block.length.into());
            self.out.clear();
            self.out.extend_from_slice(&block.piece_header());
            self.out.extend_from_slice(&data[from..to]);
            self.write.write_all(&self.out).await?;
        }
        if wanted.sent_bytes as usize >= data.len() {
            self.wanted.remove(&piece);
        }
        Ok(())
    }

    async fn say(&mut self, messages: &[Message<'_>]) -> io::Result<()> {
        self.out.clear();
        messages.iter().for_each(|m| m.encode(&mut self.out));
        self.write.write_all(&self.out).await
    }
}

fn lies_within(metainfo: &Metainfo, block: BlockRequest) -> bool {
    let end = block.begin.checked_add(block.length);
    block.length > 0
        && metainfo.piece_bytes(block.piece).is_some_and(|bytes| end.is_some_and(|e| e <= bytes))
}
