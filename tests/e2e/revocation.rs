//! What the operator takes back: serving stops everywhere, in the middle of a download.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use larder::logic::{
    infohash::Infohash,
    metainfo::Metainfo,
    wire::{BlockRequest, Handshake, Message},
};

use crate::harness::{Lab, PATIENCE, random_file, wait_for};

const MIB: usize = 1024 * 1024;
const BLOCK_BYTES: u32 = 16_384;
/// In flight, as a good client has them.
const DEPTH: usize = 64;

/// A leecher that asks for block after block for as long as it is let.
struct Leecher {
    received: Arc<AtomicU64>,
    /// When the connection ended.
    ended: JoinHandle<Instant>,
}

impl Leecher {
    fn connect(lab: &Lab, metainfo: &Metainfo) -> Leecher {
        let mut stream = TcpStream::connect(lab.peer()).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("sets");
        let (infohash, peer_id) = (metainfo.infohash, *b"-XX0000-abcdefghijkl");
        let ours = Handshake { infohash, peer_id, fast: true, extensions: false };
        let mut says = ours.encode().to_vec();
        Message::HaveNone.encode(&mut says);
        Message::Interested.encode(&mut says);
        let blocks = (0..metainfo.piece_count()).flat_map({
            let piece_length = metainfo.piece_length;
            move |piece| {
                let begins = (0..piece_length).step_by(BLOCK_BYTES as usize);
                begins.map(move |begin| BlockRequest { piece, begin, length: BLOCK_BYTES })
            }
        });
        let mut blocks = blocks;
        let received = Arc::new(AtomicU64::new(0));
        let counted = received.clone();
        let ended = std::thread::spawn(move || {
            // The device closes; how the connection ends is no matter.
            let _ = leech(&mut stream, says, &mut blocks, &counted);
            Instant::now()
        });
        Leecher { received, ended }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

fn leech(
    stream: &mut TcpStream,
    mut says: Vec<u8>,
    blocks: &mut impl Iterator<Item = BlockRequest>,
    received: &AtomicU64,
) -> std::io::Result<()> {
    stream.write_all(&says)?;
    stream.read_exact(&mut [0; 68])?;
    let mut is_asking = false;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut message)?;
        says.clear();
        match message.first() {
            // unchoke
            Some(1) if !is_asking => {
                is_asking = true;
                blocks.take(DEPTH).for_each(|block| Message::Request(block).encode(&mut says));
            }
            // piece
            Some(7) => {
                received.fetch_add(u64::from(BLOCK_BYTES), Ordering::Relaxed);
                blocks.take(1).for_each(|block| Message::Request(block).encode(&mut says));
            }
            _ => {}
        }
        stream.write_all(&says)?;
    }
}

/// Three households that serve a content, each with a leecher who takes its time.
struct Fleet {
    labs: Vec<Lab>,
    infohash: Infohash,
    leechers: Vec<Leecher>,
}

impl Fleet {
    fn serving(mut first: Lab) -> Fleet {
        first.device_extra = "egress_bytes_per_second_max = 1_000_000".into();
        first.start_hub();
        first.start_device();
        let mut labs = vec![first];
        for _ in 0..2 {
            let mut lab = labs[0].second_lab();
            lab.device_extra.clone_from(&labs[0].device_extra);
            lab.start_device();
            labs.push(lab);
        }
        let source = labs[0].path("film.bin");
        random_file(&source, 64 * MIB, 9);
        let infohash = labs[0].publish(&source).infohash;
        let leechers = labs.iter().map(|lab| {
            lab.wait_until_served(infohash);
            let metainfo = Metainfo::parse(&lab.metainfo(infohash)).expect("our own torrent");
            Leecher::connect(lab, &metainfo)
        });
        let leechers: Vec<Leecher> = leechers.collect();
        for leecher in &leechers {
            wait_for("a download in full flow", || (leecher.received() > MIB as u64).then_some(()));
        }
        Fleet { labs, infohash, leechers }
    }

    /// How long after the revocation the last connection ended.
    fn revoke(self) {
        let infohash = self.infohash.to_string();
        let revoked_at = Instant::now();
        self.labs[0].larder(&["list", "revoke", &infohash, "--reason", "takedown"]);
        for leecher in self.leechers {
            wait_for("the connection to end", || leecher.ended.is_finished().then_some(()));
            let ended = leecher.ended.join().expect("no panic");
            assert!(ended.duration_since(revoked_at).as_secs() < 60);
            let received = leecher.received.load(Ordering::Relaxed);
            assert!(received < 64 * MIB as u64, "it had all of it before");
        }
        for lab in &self.labs {
            wait_for("the content to be gone", || {
                lab.status().filter(|s| s.cache.contents.is_empty() && s.cache.used_bytes == 0)
            });
            let folder = lab.path("device/content").join(&infohash);
            wait_for("its files to be gone", || (!folder.exists()).then_some(()));
        }
    }
}

/// By themselves these devices look at the list once in half an hour at the earliest: what they hear of
/// within a minute, the hub has told them.
#[test]
fn a_revocation_stops_downloads_everywhere_in_the_moment_that_the_hub_knows_of_it() {
    let mut lab = Lab::new();
    lab.list_interval_seconds = 3600;
    Fleet::serving(lab).revoke();
}

#[test]
fn a_revocation_stops_downloads_everywhere_when_nobody_holds_questions() {
    let mut lab = Lab::new();
    lab.hub_extra = "[metadata]\nwaiters_max = 0".into();
    Fleet::serving(lab).revoke();
}
