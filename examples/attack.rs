//! One of the hostile tests' attacks by itself, against any seeder, for a time: `benches/hostile`
//! measures what honest peers notice of it. Prints what it did as one JSON document.
//!
//!     attack --attack NAME --torrent FILE --target IP:PORT [--seconds S] [--source IP]
//!
//! Connections come from addresses counted up from the source; `--attack list` prints the names.

use std::{
    error::Error,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::Ordering,
    time::Duration,
};

use larder::logic::{
    metainfo::Metainfo,
    wire::{HANDSHAKE_BYTES, Handshake},
};

#[path = "../tests/hostile/attack.rs"]
mod attack;

use attack::{Attack, Attacker, Target};

fn main() -> Result<(), Box<dyn Error>> {
    let mut values = std::collections::BTreeMap::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} needs a value after it"))?;
        values.insert(arg, value);
    }
    let mut take =
        |name: &str, default: &str| values.remove(name).unwrap_or_else(|| default.to_owned());
    let name = take("--attack", "");
    if name == "list" {
        Attack::ALL.iter().for_each(|attack| println!("{}", attack.name()));
        return Ok(());
    }
    let attack = Attack::ALL.into_iter().find(|a| a.name() == name);
    let attack = attack.ok_or("--attack names none of those that `--attack list` prints")?;
    let metainfo = Metainfo::parse(&std::fs::read(take("--torrent", ""))?)?;
    let address: SocketAddr = take("--target", "127.0.0.1:6881").parse()?;
    let target = Target {
        address,
        infohash: metainfo.infohash,
        peer_id: peer_id(address, &metainfo)?,
        piece_bytes: metainfo.piece_length,
        pieces: (metainfo.total_bytes / u64::from(metainfo.piece_length)) as u32,
        // Those of the example `load`.
        honest_ids: (0..8).map(load_id).collect(),
        sources: take("--source", "127.20.0.1").parse::<Ipv4Addr>()?,
    };
    let attacker = Attacker::launch(attack, attack.connections(), target);
    std::thread::sleep(Duration::from_secs_f64(take("--seconds", "10").parse()?));
    let tally = &attacker.tally;
    let said = serde_json::json!({
        "connections": attack.connections(),
        "opened": tally.opened.load(Ordering::Relaxed),
        "closed_by_seeder": tally.closed_by_seeder.load(Ordering::Relaxed),
        "received_bytes": tally.received_bytes.load(Ordering::Relaxed),
    });
    println!("{said}");
    Ok(())
}

fn load_id(n: usize) -> [u8; 20] {
    let mut id = *b"-LB0001-000000000000";
    id[8..].copy_from_slice(format!("{n:012}").as_bytes());
    id
}

/// What the seeder calls itself.
fn peer_id(address: SocketAddr, metainfo: &Metainfo) -> Result<[u8; 20], Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    let infohash = metainfo.infohash;
    let ours =
        Handshake { infohash, peer_id: *b"-XX6660-curious00000", fast: true, extensions: false };
    stream.write_all(&ours.encode())?;
    let mut theirs = [0; HANDSHAKE_BYTES];
    stream.read_exact(&mut theirs)?;
    Ok(Handshake::parse(&theirs)?.ok_or("half a handshake")?.peer_id)
}
