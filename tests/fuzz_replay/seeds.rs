//! What the corpora start from: what our own encoders write, and short stories for the targets that
//! play one. Names that start with `ours-` have to be accepted.

use std::net::IpAddr;

use larder::logic::{
    hotlist::{Entry, HotList, Policy},
    infohash::{Infohash, sha1},
    ledger::{
        dating::{BootId, BootMoment, Stamp},
        frame::FRAME_BYTES,
        journal::Writer,
    },
    metainfo::{File, NewLayout, NewMetainfo},
    now::{UnixSeconds, UtcHour},
    units::Micros,
    usage::{PeerClass, Usage, UsageDelta},
    wire::{BlockRequest, Handshake, Message, MetadataMessage, OurExtensionHandshake},
};

pub const OURS: &str = "ours-";

pub struct Seed {
    pub target: &'static str,
    pub name: String,
    pub bytes: Vec<u8>,
}

pub fn all() -> Vec<Seed> {
    let parts =
        [handshakes(), messages(), extensions(), metadata(), documents(), metainfos(), frames()];
    let scripts = [encrypted(), sessions(), answers()];
    let mut seeds: Vec<Seed> = parts.into_iter().chain(scripts).flatten().collect();
    seeds.extend(refused());
    seeds
}

fn ours(target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { target, name: format!("{OURS}{name}"), bytes: bytes.into() }
}

const CONTENT: Infohash = Infohash([7; 20]);

fn handshakes() -> Vec<Seed> {
    let shake = |fast, extensions| {
        let ours =
            Handshake { infohash: CONTENT, peer_id: *b"-LR0100-abcdefghijkl", fast, extensions };
        ours.encode()
    };
    vec![
        ours("handshake", "bare", shake(false, false)),
        ours("handshake", "all-flags", shake(true, true)),
    ]
}

fn messages() -> Vec<Seed> {
    let block = BlockRequest { piece: 1, begin: 16_384, length: 16_384 };
    let kinds: [(&str, Message<'_>); 16] = [
        ("keep-alive", Message::KeepAlive),
        ("choke", Message::Choke),
        ("unchoke", Message::Unchoke),
        ("interested", Message::Interested),
        ("not-interested", Message::NotInterested),
        ("have", Message::Have(7)),
        ("bitfield", Message::Bitfield(&[0xf0, 1])),
        ("request", Message::Request(block)),
        ("cancel", Message::Cancel(block)),
        ("port", Message::Port(6881)),
        ("suggest", Message::SuggestPiece(8)),
        ("have-all", Message::HaveAll),
        ("have-none", Message::HaveNone),
        ("reject", Message::Reject(block)),
        ("allowed-fast", Message::AllowedFast(9)),
        ("extended", Message::Extended { id: 3, payload: b"d1:ai1ee" }),
    ];
    let mut seeds = vec![];
    // In pieces of one byte, of three bytes, and whole.
    let mut stream = vec![3];
    for (name, message) in kinds {
        let mut bytes = vec![1];
        message.encode(&mut bytes);
        stream.extend_from_slice(&bytes[1..]);
        seeds.push(ours("messages", name, bytes));
    }
    seeds.push(ours("messages", "one-of-each", stream));
    let mut large = vec![200];
    Message::Bitfield(&[0xff; 9_000]).encode(&mut large);
    Message::Interested.encode(&mut large);
    seeds.push(ours("messages", "large-bitfield", large));
    seeds
}

fn extensions() -> Vec<Seed> {
    let encode = |client: &str, address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        OurExtensionHandshake::encode(client, 51_413, 40_000, address)
    };
    let theirs: [(&str, &[u8]); 3] = [
        ("nothing", b"de"),
        ("switched-off", b"d1:md11:ut_metadatai0eee"),
        ("libtorrent", b"d12:complete_agoi1e1:md11:lt_donthavei7e10:share_modei8e11:upload_onlyi3e12:ut_holepunchi4e11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei31235e4:reqqi500e11:upload_onlyi1e1:v17:libtorrent/2.0.8.06:yourip4:\x7f\0\0\x01e"),
    ];
    let mut seeds = vec![
        ours("extension", "ipv4", encode("Larder 0.1.0", "192.0.2.1")),
        ours("extension", "ipv6", encode("Larder 0.1.0", "2001:db8::1")),
    ];
    seeds.extend(theirs.map(|(name, bytes)| ours("extension", name, bytes)));
    seeds
}

fn metadata() -> Vec<Seed> {
    let info = [b'i'; 300];
    vec![
        ours("metadata", "request", MetadataMessage::Request { piece: 1 }.encode()),
        ours("metadata", "data", MetadataMessage::answer(&info, 0).encode()),
        ours("metadata", "reject", MetadataMessage::Reject { piece: 2 }.encode()),
        ours("metadata", "unknown", &b"d8:msg_typei9e5:piecei0ee"[..]),
    ]
}

fn documents() -> Vec<Seed> {
    let url = |text: &str| text.parse().expect("a URL");
    let entry = Entry {
        infohash: CONTENT,
        name: "film.mp4".into(),
        size_bytes: 1_000_000,
        // A number that JSON does not bring back as it was.
        score: 8.924506963505708e-8,
        lease_end: UnixSeconds(2_000_000_000),
        price_class: "standard".into(),
        replicas: 3,
        private: false,
        metainfo_url: url("http://hub.example/metainfo/x.torrent"),
        tracker_tiers: vec![vec![url("udp://tracker.example:6969/announce")]],
        web_seeds: vec![url("https://cdn.example/film.mp4")],
        holders: vec![vec![7, 9], vec![11]],
    };
    let other = Entry { infohash: Infohash([8; 20]), private: true, ..entry.clone() };
    let list = HotList {
        format: 1,
        epoch: 12,
        published_at: UnixSeconds(1_795_000_000),
        devices: Some(5_000),
        entries: vec![entry, other],
    };
    let policy = Policy {
        format: 1,
        currency: "CNY".into(),
        price_per_gb: [("standard".to_owned(), Micros(100_000))].into(),
        list_interval_seconds: 60,
        report_interval_seconds: 900,
        statement_keys: vec!["ab".repeat(32)],
        reflector: None,
        private_web_seeds: vec![],
    };
    let empty = HotList { entries: vec![], ..list.clone() };
    let json = |value: &HotList| serde_json::to_vec(value).expect("a list serialises");
    vec![
        ours("hotlist", "two", json(&list)),
        ours("hotlist", "empty", json(&empty)),
        ours("policy", "one", serde_json::to_vec(&policy).expect("a policy serialises")),
    ]
}

/// As our own tracker writes them, and others.
fn answers() -> Vec<Seed> {
    let answer = |peers: &[u8], peers6: &[u8]| {
        let length = peers.len();
        let head = format!("d8:completei1e10:incompletei3e8:intervali1800e5:peers{length}:");
        let mut bytes = head.into_bytes();
        bytes.extend(peers);
        bytes.extend(format!("6:peers6{}:", peers6.len()).into_bytes());
        bytes.extend(peers6);
        bytes.push(b'e');
        bytes
    };
    let v4 = [203, 0, 113, 7, 0xc8, 0xd5].repeat(3);
    let v6 = [[0x20, 1, 0xd, 0xb8].as_slice(), &[0; 11], &[1, 0x1a, 0xe1]].concat();
    vec![
        ours("tracker", "nobody", answer(&[], &[])),
        ours("tracker", "both-families", answer(&v4, &v6)),
        ours("tracker", "too-many", answer(&v4.repeat(40), &v6.repeat(60))),
        ours("tracker", "not-compact", *b"d8:intervali60e5:peersld2:ip7:1.2.3.44:porti1eeee"),
    ]
}

fn metainfos() -> Vec<Seed> {
    let hashes = sha1(b"a piece").repeat(2);
    let files = [
        File { path: vec!["a.txt".into()], length: 65_536 },
        File { path: vec!["b".into(), "c.txt".into()], length: 100 },
    ];
    let encode = |layout, private| {
        let new = NewMetainfo {
            name: "film",
            piece_length: 65_536,
            pieces: &hashes,
            layout,
            private,
            tracker_tiers: &[vec!["http://hub.example/announce".parse().expect("a URL")]],
            web_seeds: &["http://hub.example/film".parse().expect("a URL")],
        };
        new.encode().0
    };
    vec![
        ours("metainfo", "single", encode(NewLayout::Single { length: 65_636 }, false)),
        ours("metainfo", "directory", encode(NewLayout::Directory { files: &files }, true)),
    ]
}

/// For a target whose first bytes choose what an initiator does: mode, size of the pieces, PadA,
/// knows the content, VC, crypto_provide, PadC, length of IA, payload.
fn encrypted() -> Vec<Seed> {
    let story = |pad: [u8; 2], provide: u8, initial: u8| {
        let mut bytes = vec![1, 7, pad[0], pad[1], 1, 1, 0, provide, 0, 20, 0, initial];
        bytes.extend(b"what the peer says, partly in IA");
        bytes
    };
    vec![
        ours("mse", "plaintext", story([0, 0], 1, 10)),
        ours("mse", "rc4", story([1, 0], 2, 10)),
        ours("mse", "both", story([2, 0], 3, 0)),
        ours("mse", "all-in-ia", story([0, 9], 2, 200)),
        ours("mse", "plain-handshake", [&[0, 5][..], b"\x13BitTorrent protocol and more"].concat()),
    ]
}

/// Size of the pieces, flags, then steps (`fuzz/src/session.rs`).
fn sessions() -> Vec<Seed> {
    let request = [1, 0, 0, 0];
    let drain = [6, 255, 255];
    let steps = |parts: &[&[u8]]| [&[5, 2][..], &parts.concat()].concat();
    vec![
        ours("session", "serves", steps(&[&[4, 7], &request, &drain, &[13, 0, 0]])),
        ours("session", "slow-reader", steps(&[&[4, 7], &request, &[6, 0, 9], &[9, 60, 0]])),
        ours(
            "session",
            "choked-in-mid-block",
            steps(&[&[4, 7], &request, &[6, 1, 0], &[8], &drain]),
        ),
        ours("session", "cancels", steps(&[&[4, 7], &request, &[3, 0, 0, 0], &drain])),
        ours("session", "full-queue", steps(&[&[7, 2, 255], &drain, &[8], &drain, &drain])),
        ours("session", "metadata", steps(&[&[11, 12, 0, 12, 1, 12, 3], &drain])),
        ours("session", "keeps-alive", steps(&[&[9, 110, 0], &drain])),
        ours("session", "fills-up", [&[3, 3][..], &[10, 0, 10, 4], &drain, &[10, 1]].concat()),
        ours("session", "without-bep-6", [&[3, 8][..], &[4, 7], &request, &[8], &drain].concat()),
    ]
}

/// What must not be accepted, one for each target that has a simple one.
/// Without what `check` puts behind them anyway.
fn frames() -> Vec<Seed> {
    let moment = BootMoment { boot: BootId([2; 16]), seconds: 77 };
    let served = |class, bytes| UsageDelta {
        infohash: CONTENT,
        class,
        usage: Usage { payload_bytes: bytes, wire_bytes: bytes + 66 },
    };
    let deltas = [served(PeerClass::Wan, 5_000_000), served(PeerClass::Lan, 16_384)];
    let frame = |name, hour, again: bool| {
        let mut writer = Writer::new([1; 16], 6);
        let mut frames = writer.add(Stamp { moment, hour }, &deltas);
        if again {
            writer.seal();
            frames = writer.add(Stamp { moment, hour }, &deltas);
        }
        let mut bytes = frames[0].encode().expect("a writer's frames fit");
        bytes.truncate(FRAME_BYTES - 16);
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        ours("journal", name, bytes)
    };
    vec![
        frame("dated", Some(UtcHour(498_672)), false),
        frame("held", None, false),
        frame("without-names", Some(UtcHour(498_672)), true),
    ]
}

fn refused() -> Vec<Seed> {
    let refused =
        |target, bytes: &[u8]| Seed { target, name: "refused".into(), bytes: bytes.into() };
    vec![
        refused("handshake", b"GET / HTTP/1.1\r\n"),
        refused("messages", &[2, 0x80, 0, 0, 0]),
        refused("extension", &[b'l'; 8_000]),
        refused("metadata", b"d8:msg_typei0ee"),
        refused("hotlist", b"{\"format\":1}"),
        refused("policy", b"{\"format\":2}"),
        refused("journal", b"LrJ0 of another kind"),
        refused("metainfo", b"d4:infod4:name1:aee"),
        refused("tracker", b"d14:failure reason8:not heree"),
        refused("mse", &[0; 200]),
        // A request of no bytes.
        refused("session", &[5, 2, 7, 1, 0, 0, 4]),
    ]
}
