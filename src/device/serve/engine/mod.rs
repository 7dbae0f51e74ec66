//! The loop of the serving thread: wait, read, decide, send. It holds the connections and carries
//! out what the pure cores decide; every wait has a real deadline or none, so an idle engine sleeps.

mod admission;
mod books;
mod checks;
mod lan;
mod measure;
mod outreach;
mod pacing;
mod sending;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker, event::Event, net::TcpListener};
use rand::{SeedableRng, rngs::StdRng};

use self::{checks::Withholding, measure::Measure, pacing::Shares};
use super::{
    CheckPieces, OpenContent, ServeCommand, ServeSettings, SharedStats,
    connection::{Connection, ReadEnd, SCRATCH_BYTES},
    deadlines::{Deadlines, Who},
    files::OpenFiles,
    lan::LanWatch,
    pipe::BlockPipe,
};
use crate::logic::{
    admission::{Admission, Limits},
    choke::{Choker, slots_for},
    governor::{Allowance, Pacer, Tempo, Turns},
    infohash::Infohash,
    now::Monotonic,
    outreach::Outreach,
    usage::{PeerClass, Usage, UsageDelta},
    wire::{Close, ContentKey, LocalPeer, Shelf, mse::Keyring},
};

const WAKER: Token = Token(usize::MAX);
/// Listeners have the tokens below this, connections the rest.
const FIRST_CONNECTION: usize = 64;
const EVENTS_AT_ONCE: usize = 256;
/// All connections read into one buffer: 500 requests of 17 bytes are 8.5 KB.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// After a round with little to do, the loop rests before it looks at the sockets again, as a network
/// card does with its interrupts: what comes in meanwhile shares a wake-up, which on a small machine
/// costs more than a block. Short against any WAN's round trip.
const REST: Duration = Duration::from_millis(4);
/// Under a limit the sockets hold what leaves meanwhile, and the kernel paces it. With shares they hold
/// that much; with turns one of them holds one block.
const REST_SHARES: Duration = Duration::from_millis(25);
const REST_TURNS: Duration = Duration::from_millis(1);
/// Nobody who has just come should wait for longer.
const REST_TURNS_MAX: Duration = Duration::from_millis(10);
/// A round that sent this many chunks is busy enough.
const BUSY_CHUNKS: usize = 16;
/// How long a stop waits for what is in the sockets to be acknowledged.
const STOP_DRAIN: Duration = Duration::from_millis(500);
const STOP_DRAIN_STEP: Duration = Duration::from_millis(5);

pub(super) enum Request {
    Command(ServeCommand),
    TakeUsage(SyncSender<Vec<UsageDelta>>),
    Stop(SyncSender<Vec<UsageDelta>>),
}

pub(super) struct Loop {
    poll: Poll,
    inbox: Receiver<Request>,
    started: Instant,
    us: LocalPeer,
    on_first_peer: Box<dyn Fn() + Send>,

    listeners: Vec<TcpListener>,
    /// Listeners that may have more to accept: edges are told once.
    to_accept: Vec<usize>,
    accept_retry_at: Option<Monotonic>,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    admission: Admission,
    generation: u32,
    /// Connections that may have more to read.
    to_read: Vec<u32>,
    read_buffer: Box<[u8]>,
    keyring: Keyring,
    /// All connections encrypt in one buffer.
    scratch: Box<[u8]>,
    /// Several blocks of one connection gather in it.
    pipe: BlockPipe,

    shelf: Shelf,
    files: OpenFiles,
    checker: Option<Box<dyn CheckPieces>>,
    /// Checks that are under way.
    asked: Vec<(ContentKey, u32)>,
    withholding: Vec<Withholding>,
    choker: Choker,
    pacer: Pacer,
    turns: Turns<u32>,
    /// Of the household's own peers, whose bytes never see the uplink.
    lan: LanWatch,
    lan_pacer: Pacer,
    lan_turns: Turns<u32>,
    lan_sent_at: Option<Monotonic>,
    outreach: Outreach,
    /// In this round.
    chunks_sent: usize,
    /// The pacer's word to all in `turns`.
    send_at: Option<Monotonic>,
    shares: Shares,
    deadlines: Deadlines,
    usage: BTreeMap<(Infohash, PeerClass), Usage>,
    stats: Arc<SharedStats>,
    /// Since auto mode has asked for it.
    measure: Option<Measure>,
}

impl Loop {
    pub fn new(
        settings: ServeSettings,
        us: LocalPeer,
        may_call: fn(SocketAddr) -> bool,
        content: Box<dyn OpenContent>,
        checker: Option<Box<dyn CheckPieces>>,
        inbox: Receiver<Request>,
        stats: Arc<SharedStats>,
    ) -> io::Result<(Loop, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        if settings.listeners.len() > FIRST_CONNECTION {
            return Err(io::Error::other("too many addresses to listen on"));
        }
        let limits = Limits {
            connections_max: settings.connections_max,
            connections_per_group_max: settings.connections_per_ip_max,
            connections_per_content_max: settings.connections_per_content_max,
        };
        let mut listeners = vec![];
        for (i, listener) in settings.listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            poll.registry().register(&mut listener, Token(i), Interest::READABLE)?;
            listeners.push(listener);
        }
        let to_accept = (0..listeners.len()).collect();
        let engine = Loop {
            poll,
            inbox,
            started: Instant::now(),
            us,
            on_first_peer: settings.on_first_peer,
            listeners,
            to_accept,
            accept_retry_at: None,
            connections: vec![],
            free: vec![],
            admission: Admission::new(limits),
            generation: 0,
            to_read: vec![],
            read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            keyring: Keyring::new(StdRng::from_rng(&mut rand::rng())),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            pipe: BlockPipe::new()?,
            shelf: if checker.is_some() { Shelf::with_checks() } else { Shelf::default() },
            files: OpenFiles::new(content, checker.is_some()),
            checker,
            asked: vec![],
            withholding: vec![],
            choker: Choker::new(slots_for(Allowance::Paused)),
            pacer: Pacer::new(Allowance::Paused, Monotonic::START),
            turns: Turns::default(),
            lan: LanWatch::new(settings.lan_prefixes),
            lan_pacer: Pacer::new(Allowance::Paused, Monotonic::START),
            lan_turns: Turns::default(),
            lan_sent_at: None,
            outreach: Outreach::new(may_call),
            chunks_sent: 0,
            send_at: None,
            shares: Shares::default(),
            deadlines: Deadlines::default(),
            usage: BTreeMap::new(),
            stats,
            measure: None,
        };
        Ok((engine, waker))
    }

    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_AT_ONCE);
        let mut early = None;
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "serving stops: the system cannot wait for sockets");
                    return;
                }
            }
            let now = self.now();
            let worked = !events.is_empty() || self.send_at.is_some();
            self.chunks_sent = 0;
            for event in &events {
                self.handle_event(event, now);
            }
            // Answers come last, so that whoever asks sees its own earlier commands carried out.
            let mut asked = vec![];
            while let Some(request) = early.take().or_else(|| self.inbox.try_recv().ok()) {
                match request {
                    Request::Command(command) => self.handle_command(command, now),
                    Request::TakeUsage(reply) => asked.push(reply),
                    Request::Stop(reply) => {
                        drop(reply.send(self.stop()));
                        return;
                    }
                }
            }
            self.accept_and_read_on(now);
            self.handle_timeouts(now);
            self.call_leechers(now);
            self.carry_out_choking(now);
            self.share_out(now);
            self.send(now);
            self.send_to_lan(now);
            let answers: Vec<_> =
                asked.into_iter().map(|reply| (reply, self.take_usage())).collect();
            self.publish();
            self.measure(now);
            for (reply, usage) in answers {
                drop(reply.send(usage));
            }
            if worked {
                early = self.rest();
            }
        }
    }

    /// Lets events gather, unless something can be done at once. A request ends it.
    fn rest(&self) -> Option<Request> {
        let unlimited_is_busy = !self.is_limited() && self.chunks_sent >= BUSY_CHUNKS;
        if self.has_work() || self.lan_is_busy() || unlimited_is_busy {
            return None;
        }
        let until_send = self.send_at.map_or(Duration::ZERO, |at| at.saturating_since(self.now()));
        let rest = match self.pacer.allowance() {
            Allowance::BytesPerSecond(rate) => match Tempo::at(rate) {
                Tempo::Turns => until_send.clamp(REST_TURNS, REST_TURNS_MAX),
                Tempo::Shares => until_send.clamp(REST_SHARES, Tempo::Shares.slack()),
            },
            Allowance::Paused => REST_SHARES,
            Allowance::Unlimited => REST,
        };
        self.inbox.recv_timeout(rest).ok()
    }

    fn has_work(&self) -> bool {
        let sends_now = !self.turns.is_empty() && !self.is_limited();
        sends_now || self.lan_has_work() || !self.to_read.is_empty() || !self.to_accept.is_empty()
    }

    fn is_limited(&self) -> bool {
        self.pacer.allowance() != Allowance::Unlimited
    }

    fn publish(&self) {
        self.stats.egress_wire_bytes.store(self.pacer.spent_bytes(), Ordering::Relaxed);
        self.stats.lan_egress_wire_bytes.store(self.lan_pacer.spent_bytes(), Ordering::Relaxed);
        let connected = self.admission.connections();
        let before = self.stats.peers_connected.swap(connected, Ordering::Relaxed);
        if before == 0 && connected > 0 {
            (self.on_first_peer)();
        }
        self.stats.peers_unchoked.store(self.choker.unchoked(), Ordering::Relaxed);
    }

    fn now(&self) -> Monotonic {
        Monotonic(self.started.elapsed())
    }

    /// How long nothing needs to be done unless something happens.
    fn timeout(&self) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let waits = [
            self.send_at,
            self.deadlines.next(),
            self.choker.poll_timeout(),
            self.accept_retry_at,
            self.measure_at(),
            self.call_at(),
            self.withholding_at(),
        ];
        let next = waits.into_iter().flatten().min()?;
        Some(next.saturating_since(self.now()))
    }

    fn handle_event(&mut self, event: &Event, now: Monotonic) {
        match event.token() {
            WAKER => {}
            Token(i) if i < FIRST_CONNECTION => self.to_accept.push(i),
            Token(i) => {
                let index = (i - FIRST_CONNECTION) as u32;
                let Some(connection) = self.connection(index) else { return };
                if event.is_writable() {
                    connection.writable = true;
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(index, now);
                } else {
                    self.join_turns(index);
                }
            }
        }
    }

    fn handle_command(&mut self, command: ServeCommand, now: Monotonic) {
        match command {
            ServeCommand::Add(servable) => match self.shelf.add(servable) {
                Ok(key) => self.join_turns_of(key),
                Err(error) => tracing::error!(%error, "a content was not taken up"),
            },
            ServeCommand::Have { infohash, piece } => {
                if let Some(key) = self.shelf.have(infohash, piece) {
                    self.join_turns_of(key);
                }
            }
            ServeCommand::Remove { infohash } => {
                let Some(key) = self.shelf.find(infohash) else { return };
                for index in self.connections_of(key) {
                    self.close(index, Close::ContentRemoved, now);
                }
                self.shelf.remove(infohash);
                self.asked.retain(|(asked_of, _)| *asked_of != key);
                self.choker.forget(key);
                self.outreach.handle_removed(infohash);
                self.files.remove(key);
            }
            ServeCommand::Proven { infohash, piece, bytes } => {
                self.take_proof(infohash, piece, bytes, now);
            }
            ServeCommand::Withdraw { infohash, pieces } => self.withdraw(infohash, &pieces, now),
            ServeCommand::Distrust { infohash } => self.distrust(infohash),
            ServeCommand::Withhold { infohash } => self.withhold(infohash, now),
            ServeCommand::SetWeight { infohash, weight } => {
                if let Some(key) = self.shelf.find(infohash) {
                    self.choker.set_weight(key, weight);
                }
            }
            ServeCommand::SetAllowance(allowance) => {
                let allowance = allowance.settled();
                self.pacer.set_allowance(allowance, now);
                self.admission.set_allowance(allowance);
                self.set_slots(now);
                self.shares.handle_change();
            }
            ServeCommand::Measure { alarm } => self.begin_to_measure(alarm),
            ServeCommand::Named { infohash, leechers } => self.hear_of(infohash, &leechers, now),
            ServeCommand::PauseLan(paused) => self.pause_lan(paused, now),
        }
    }

    /// Goes on where a bound cut the last round short.
    fn accept_and_read_on(&mut self, now: Monotonic) {
        if self.accept_retry_at.is_some_and(|at| at <= now) {
            self.accept_retry_at = None;
            self.to_accept = (0..self.listeners.len()).collect();
        }
        for i in std::mem::take(&mut self.to_accept) {
            self.accept(i, now);
        }
        for index in std::mem::take(&mut self.to_read) {
            self.read(index, now);
        }
    }

    fn read(&mut self, index: u32, now: Monotonic) {
        let Some(connection) = self.connections.get_mut(index as usize).and_then(Option::as_mut)
        else {
            return;
        };
        let (buffer, keyring) = (&mut self.read_buffer, &mut self.keyring);
        match connection.read(buffer, &self.us, &self.shelf, keyring, now) {
            Ok(ReadEnd::Drained) => {}
            Ok(ReadEnd::More) => self.to_read.push(index),
            Err(why) => return self.close(index, why, now),
        }
        if let Err(why) = connection.note_answer(&mut self.outreach) {
            return self.close(index, why, now);
        }
        self.handle_heard(index, now);
        let Some(connection) = self.connection(index) else { return };
        let interested = connection.session.is_interested();
        if interested != connection.was_interested {
            connection.was_interested = interested;
            if connection.class == PeerClass::Lan {
                self.follow_lan_interest(index, now);
            } else if let Some(content) = connection.session.content().filter(|_| interested) {
                self.choker.handle_interested(index, content, now);
            } else {
                self.choker.handle_not_interested(index, now);
            }
        }
        self.ask_for_checks(index);
        self.join_turns(index);
    }

    fn handle_timeouts(&mut self, now: Monotonic) {
        if self.choker.poll_timeout().is_some_and(|at| at <= now) {
            self.choker.handle_timeout(now);
        }
        while let Some(who) = self.deadlines.pop_due(now) {
            self.handle_deadline(who, now);
        }
        self.look_at_withheld(now);
    }

    fn handle_deadline(&mut self, (index, generation): Who, now: Monotonic) {
        let paused = |class| self.allowance_of(class).is_paused();
        let (wan, lan) = (paused(PeerClass::Wan), paused(PeerClass::Lan));
        let timeouts = self.us.timeouts;
        let Some(connection) = self.connection(index) else { return };
        let paused = if connection.class == PeerClass::Lan { lan } else { wan };
        if connection.generation != generation {
            return;
        }
        if let Err(why) = connection.session.handle_timeout(&timeouts, paused, now) {
            return self.close(index, why, now);
        }
        let next = connection.session.poll_timeout(&timeouts);
        self.deadlines.push(next, (index, generation));
        self.join_turns(index);
    }

    fn connection(&mut self, index: u32) -> Option<&mut Connection> {
        self.connections.get_mut(index as usize)?.as_deref_mut()
    }

    fn stop(&mut self) -> Vec<UsageDelta> {
        let until = Instant::now() + STOP_DRAIN;
        loop {
            let mut in_flight = false;
            for connection in self.connections.iter_mut().flatten() {
                connection.settle();
                in_flight |= connection.session.deliveries().in_flight();
            }
            if !in_flight || Instant::now() >= until {
                break;
            }
            std::thread::sleep(STOP_DRAIN_STEP);
        }
        let now = self.now();
        for index in 0..self.connections.len() as u32 {
            self.close(index, Close::Stopping, now);
        }
        self.take_usage()
    }
}
