//! A week of a household, scripted, as downloaders with PeerBanHelper see it: a real node decides what
//! to fill and to evict, real sessions tell the peers; the list changes every day, leases end, the
//! device restarts, the address changes. No rule may fire; and the same week with a device that takes
//! from its peers breaks every rule about progress.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use larder::logic::{
    bitfield::Bitfield,
    governor::allowance::{self, Traffic},
    hotlist::{Entry, HotList, Policy},
    infohash::Infohash,
    node::{Command, Event, Node, Placing, Settings, Stored},
    now::{Monotonic, Now, UnixSeconds, WallTime},
    placement::Part,
    units::Micros,
    wire::{
        BlockRequest, Chunk, Handshake, LocalPeer, Message, PeerSession, Servable, Shelf, Timeouts,
        mse::Keyring, peer_id,
    },
};
use proptest::prelude::*;
use rand::{
    SeedableRng,
    rngs::{SmallRng, StdRng},
};

use crate::{
    ban_helper::{BanHelper, Rule, Sighting},
    observer::Observer,
};

const DAY: u64 = 86_400;
const T0: u64 = 1_795_219_200;
/// How often PeerBanHelper looks, and how long a step of the week is. Its default is 5 s.
const STEP: Duration = Duration::from_secs(15);
const PIECE_BYTES: u32 = 1024 * 1024;
/// Larger than what PeerBanHelper leaves alone, and two of three fit.
const PIECES: u32 = 400;
const QUOTA_BYTES: u64 = 2 * PIECES as u64 * PIECE_BYTES as u64 + 1;
/// Of the third content, at noon of day four, while it is held.
const LEASE_END: u64 = 4 * DAY + DAY / 2;
/// Filled per step: a content takes 50 minutes.
const PIECES_A_STEP: u32 = 2;

fn content(n: u8) -> Infohash {
    Infohash([n; 20])
}

/// Each day another of the three is wanted least; see `LEASE_END`.
fn list_of(day: u64) -> HotList {
    let entry = |n: u8| Entry {
        infohash: content(n),
        name: format!("film-{n}.mp4"),
        size_bytes: u64::from(PIECES) * u64::from(PIECE_BYTES),
        score: if day % 3 == u64::from(n) { 1.0 } else { 10.0 },
        lease_end: UnixSeconds(T0 + if n == 2 { LEASE_END } else { 30 * DAY }),
        price_class: "standard".into(),
        replicas: 3,
        private: false,
        metainfo_url: "http://hub.example/x.torrent".parse().expect("a URL"),
        tracker_tiers: vec![vec!["http://hub.example/announce".parse().expect("a URL")]],
        web_seeds: vec![],
        holders: vec![],
    };
    let published_at = UnixSeconds(T0 + day * DAY);
    HotList {
        format: 1,
        epoch: day + 1,
        published_at,
        devices: None,
        entries: (0..3).map(entry).collect(),
    }
}

fn policy() -> Policy {
    Policy {
        format: 1,
        currency: "CNY".into(),
        price_per_gb: [("standard".to_owned(), Micros(100_000))].into(),
        list_interval_seconds: 600,
        report_interval_seconds: 3600,
        statement_keys: vec![],
        reflector: None,
        private_web_seeds: vec![],
    }
}

/// A downloader's connection with the device.
struct Link {
    downloader: usize,
    infohash: Infohash,
    session: PeerSession,
    observer: Observer,
    next_block: u32,
}

/// What happened, so that the test can tell whether the week was worth its name.
#[derive(Debug, Default, PartialEq)]
struct Events {
    evictions: u32,
    fills_begun: BTreeMap<Infohash, u32>,
    restarts: u32,
    connections: u32,
}

struct Household {
    node: Node<SmallRng>,
    now: Now,
    us: LocalPeer,
    shelf: Shelf,
    keyring: Keyring,
    address: IpAddr,
    /// What is on the disk.
    stored: BTreeMap<Infohash, Bitfield>,
    filling: Option<Infohash>,
    links: Vec<Link>,
    events: Events,
}

/// BEP 6 and 10, neither, and only BEP 10: HAVE ALL or a bitfield, with and without a name.
const DOWNLOADERS: [(bool, bool); 3] = [(true, true), (false, false), (false, true)];

impl Household {
    fn new() -> Household {
        let wall = WallTime::Synced(UnixSeconds(T0));
        let now = Now { monotonic: Monotonic::START, wall };
        Household {
            node: node(&BTreeMap::new(), 0, now),
            now,
            us: LocalPeer {
                peer_id: peer_id(b"a hash of a key!"),
                client_name: "Larder 0.1.0".into(),
                listen_port: 6881,
                timeouts: Timeouts::default(),
            },
            shelf: Shelf::default(),
            keyring: Keyring::new(StdRng::seed_from_u64(1)),
            address: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20)),
            stored: BTreeMap::new(),
            filling: None,
            links: vec![],
            events: Events::default(),
        }
    }

    fn day(&self) -> u64 {
        self.now.monotonic.0.as_secs() / DAY
    }

    /// What all downloaders see of us in the week, step by step.
    fn live(mut self) -> (Vec<Sighting>, Events) {
        let mut seen = vec![];
        while self.day() < 7 {
            self.now.monotonic = self.now.monotonic + STEP;
            self.now.wall = WallTime::Synced(UnixSeconds(T0 + self.now.monotonic.0.as_secs()));
            self.strike();
            self.fill();
            if self.node.poll_timeout(self.now).is_some_and(|at| at <= self.now.monotonic) {
                self.node.handle_timeout(self.now);
            }
            self.carry_out();
            self.connect();
            self.links_go_on();
            seen.extend(self.links.iter().filter_map(|link| self.sight(link)));
        }
        (seen, self.events)
    }

    /// Every night at three the device restarts; at four on day two and five it also gets another
    /// address. On day three the power fails in the middle of a fill.
    fn strike(&mut self) {
        let second = self.now.monotonic.0.as_secs();
        let power_cut = second == 3 * DAY + 20 * 60;
        if second % DAY == 3 * 3600 || power_cut {
            self.restart();
        }
        if second == 2 * DAY + 4 * 3600 || second == 5 * DAY + 4 * 3600 {
            self.links.clear();
            self.address = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20 + self.day() as u8));
        }
    }

    fn restart(&mut self) {
        self.links.clear();
        self.shelf = Shelf::default();
        self.filling = None;
        self.node = node(&self.stored, self.day(), self.now);
        self.events.restarts += 1;
    }

    fn fill(&mut self) {
        let Some(infohash) = self.filling else { return };
        let Some(have) = self.stored.get_mut(&infohash) else { return };
        let new: Vec<u32> = have.iter_missing().take(PIECES_A_STEP as usize).collect();
        for piece in new {
            have.set(piece);
            self.shelf.have(infohash, piece);
        }
        if have.is_complete() {
            self.filling = None;
            self.node.handle_event(Event::FillCompleted(infohash), self.now);
        }
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.node.poll_command() {
            let answer = match command {
                Command::Fill { entry, .. } => {
                    *self.events.fills_begun.entry(entry.infohash).or_default() += 1;
                    self.stored.entry(entry.infohash).or_insert_with(|| Bitfield::empty(PIECES));
                    self.filling = Some(entry.infohash);
                    self.put_up(entry.infohash);
                    continue;
                }
                Command::Serve(infohash) => {
                    self.put_up(infohash);
                    continue;
                }
                Command::Evict(infohash) => {
                    self.events.evictions += 1;
                    self.filling.take_if(|filling| *filling == infohash);
                    self.links.retain(|link| link.infohash != infohash);
                    self.shelf.remove(infohash);
                    self.stored.remove(&infohash);
                    Event::Evicted(infohash)
                }
                Command::FetchList => {
                    let valid_until = UnixSeconds(T0 + (self.day() + 2) * DAY);
                    Event::ListVerified { list: list_of(self.day()), policy: policy(), valid_until }
                }
                Command::Announce { entry, .. } => Event::Announced {
                    infohash: entry.infohash,
                    interval: Duration::from_secs(1800),
                },
                Command::Report => Event::ReportsDelivered,
                Command::Enrol => Event::Enrolled,
                Command::SetAllowance(_) => continue,
            };
            self.node.handle_event(answer, self.now);
        }
    }

    fn put_up(&mut self, infohash: Infohash) {
        let servable = Servable {
            infohash,
            piece_length: PIECE_BYTES,
            total_bytes: u64::from(PIECES) * u64::from(PIECE_BYTES),
            info_bytes: vec![b'i'; 9_000].into(),
            have: self.stored[&infohash].clone(),
        };
        self.shelf.add(servable).expect("fits");
    }

    /// Every downloader wants everything, and comes back to whatever is served.
    fn connect(&mut self) {
        for n in 0..3 {
            let infohash = content(n);
            for (downloader, (fast, extensions)) in DOWNLOADERS.into_iter().enumerate() {
                let is_mine = |l: &Link| (l.downloader, l.infohash) == (downloader, infohash);
                if self.shelf.find(infohash).is_none() || self.links.iter().any(is_mine) {
                    continue;
                }
                let now = self.now.monotonic;
                let from = IpAddr::V4(Ipv4Addr::new(203, 0, 113, downloader as u8));
                let mut link = Link {
                    downloader,
                    infohash,
                    session: PeerSession::new(from, now),
                    observer: Observer::default(),
                    next_block: 0,
                };
                if fast && self.stored[&infohash].is_complete() {
                    // HAVE ALL names no pieces.
                    link.observer = Observer::expecting(0..PIECES);
                }
                let peer_id = [b'd'; 20];
                let mut says = Handshake { infohash, peer_id, fast, extensions }.encode().to_vec();
                Message::Interested.encode(&mut says);
                self.events.connections += 1;
                self.tell(&mut link, says);
                self.links.push(link);
            }
        }
    }

    /// Each asks for a block now and then, and reads what there is.
    fn links_go_on(&mut self) {
        for mut link in std::mem::take(&mut self.links) {
            let timeouts = self.us.timeouts;
            link.session
                .handle_timeout(&timeouts, false, self.now.monotonic)
                .expect("nobody is silent for so long");
            link.session.unchoke(self.now.monotonic);
            self.read(&mut link);
            if self.now.monotonic.0.as_secs().is_multiple_of(60)
                && let Some(piece) = link.observer.shown.iter().nth(link.next_block as usize)
            {
                let block = BlockRequest { piece: *piece, begin: 0, length: 16_384 };
                link.next_block += 1;
                link.observer.owed.push(block);
                let mut says = vec![];
                Message::Request(block).encode(&mut says);
                self.tell(&mut link, says);
                self.read(&mut link);
            } else {
                self.tell(&mut link, vec![0; 4]);
            }
            self.links.push(link);
        }
    }

    fn tell(&mut self, link: &mut Link, mut says: Vec<u8>) {
        let (us, shelf, keyring) = (&self.us, &self.shelf, &mut self.keyring);
        let at = self.now.monotonic;
        link.session.handle_bytes(&mut says, us, shelf, keyring, at).expect("a polite peer");
    }

    /// The observer panics if we ask a downloader for anything.
    fn read(&mut self, link: &mut Link) {
        while let Some(chunk) = link.session.poll_chunk(&self.shelf) {
            let bytes = chunk.stream_bytes();
            match chunk {
                Chunk::Opening(bytes) | Chunk::Control(bytes) => link.observer.hear(bytes),
                Chunk::Block { header, length, .. } => {
                    link.observer.receive(header, 0);
                    link.observer.receive(&[], length);
                }
            }
            link.session.handle_sent(bytes, self.now.monotonic);
        }
    }

    fn sight(&self, link: &Link) -> Option<Sighting> {
        let greeted = link.observer.greeted?;
        let introduced = link.observer.introduced.as_ref().and_then(|i| i.client.clone());
        Some(Sighting {
            at: self.now.monotonic,
            torrent: link.infohash,
            torrent_bytes: u64::from(PIECES) * u64::from(PIECE_BYTES),
            completed_bytes: u64::from(link.next_block) * 16_384,
            // Each downloader runs its own PeerBanHelper: the test keeps them apart by this.
            port: self.us.listen_port + link.downloader as u16,
            address: self.address,
            peer_id: String::from_utf8_lossy(&greeted.peer_id).into_owned(),
            // What clients make of a peer id that they do not know.
            client: introduced.unwrap_or_else(|| "LD 0.1.0.0".into()),
            progress: link.observer.shown.len() as f64 / f64::from(PIECES),
            uploaded: 0,
        })
    }
}

fn node(stored: &BTreeMap<Infohash, Bitfield>, day: u64, now: Now) -> Node<SmallRng> {
    let settings = Settings {
        has_operator: true,
        quota_bytes: QUOTA_BYTES,
        enrolled: true,
        allowance: allowance::Settings::with_limit(2_500_000),
        line_traffic: allowance::Traffic::default(),
        placing: Placing::default(),
    };
    let stored = stored.iter().map(|(infohash, have)| Stored {
        infohash: *infohash,
        size_bytes: u64::from(PIECES) * u64::from(PIECE_BYTES),
        complete: have.is_complete(),
        part: Part::whole(),
        pinned: false,
        linked: false,
    });
    let followed = Some((list_of(day), policy(), UnixSeconds(T0 + (day + 2) * DAY)));
    let rng = SmallRng::seed_from_u64(day);
    Node::new(settings, Traffic::default(), stored.collect(), followed, rng, now)
}

/// What fires when each downloader's PeerBanHelper sees its part of the week.
fn fired(week: &[Sighting]) -> BTreeSet<Rule> {
    let mut helpers: BTreeMap<u16, BanHelper> = BTreeMap::new();
    week.iter().filter_map(|seen| helpers.entry(seen.port).or_default().check(seen)).collect()
}

#[test]
fn no_rule_of_peer_ban_helper_fires_in_a_week() {
    let (week, events) = Household::new().live();
    assert!(events.evictions >= 5, "{events:?}");
    let last_of_third = week.iter().filter(|seen| seen.torrent == content(2)).map(|seen| seen.at);
    assert_eq!(last_of_third.max().map(|at| at.0.as_secs().div_ceil(60) * 60), Some(LEASE_END));
    assert!(events.restarts >= 8, "{events:?}");
    assert!(events.fills_begun.values().all(|fills| *fills >= 2), "refilled: {events:?}");
    let addresses: BTreeSet<IpAddr> = week.iter().map(|seen| seen.address).collect();
    assert_eq!(addresses.len(), 3);
    assert!(week.iter().any(|seen| seen.progress == 1.0 && seen.client == "Larder 0.1.0"));
    assert_eq!(fired(&week), BTreeSet::new());
    each_rule_about_progress_would_fire(&week);
}

/// The control: the same week, but the device takes bytes from its peers.
fn each_rule_about_progress_would_fire(week: &[Sighting]) {
    let taking =
        |take: fn(Sighting) -> Sighting| fired(&week.iter().cloned().map(take).collect::<Vec<_>>());
    // A refill begins: what was complete yesterday is empty today.
    let a_little = taking(|seen| Sighting { uploaded: seen.torrent_bytes / 20, ..seen });
    assert!(a_little.contains(&Rule::Rewind), "{a_little:?}");
    let half = taking(|seen| Sighting {
        uploaded: seen.torrent_bytes / 2,
        completed_bytes: seen.torrent_bytes,
        ..seen
    });
    assert!(half.contains(&Rule::FastTest) && half.contains(&Rule::Difference), "{half:?}");
    let thrice = taking(|seen| Sighting { uploaded: seen.torrent_bytes * 3, ..seen });
    assert!(thrice.contains(&Rule::Excessive), "{thrice:?}");
}

proptest! {
    /// A million devices draw a million ids.
    #[test]
    fn no_device_has_a_peer_id_that_is_banned(hash: [u8; 16]) {
        let seen = Sighting {
            at: Monotonic::START,
            torrent: content(1),
            torrent_bytes: 1,
            completed_bytes: 0,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 6881,
            peer_id: String::from_utf8_lossy(&peer_id(&hash)).into_owned(),
            client: "Larder 0.1.0".into(),
            progress: 0.0,
            uploaded: 0,
        };
        prop_assert_eq!(BanHelper::default().check(&seen), None);
        // The one rule that random letters could break.
        prop_assert!(!seen.peer_id[8..].contains('O'));
    }
}
