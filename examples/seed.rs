//! Serves finished downloads with the serving engine alone: no hub, no ledger. For trying real
//! clients against it and for measuring it. Prints what was delivered, once a second when there is
//! news, until it is interrupted.
//!
//!     cargo run --example seed -- [--listen ADDR:PORT] [--limit BYTES_A_SECOND] FILE.torrent DATA …
//!
//! DATA holds the torrent's content as one file.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    thread,
    time::Duration,
};

use larder::{
    device::serve::{Allowance, Engine, OpenContent, Servable, ServeCommand, ServeSettings},
    logic::{bitfield::Bitfield, infohash::Infohash, metainfo::Metainfo, usage::Usage},
};

struct Files(BTreeMap<Infohash, PathBuf>);

impl OpenContent for Files {
    fn open(&self, infohash: Infohash) -> io::Result<File> {
        File::open(self.0.get(&infohash).ok_or(io::ErrorKind::NotFound)?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut listen: SocketAddr = "127.0.0.1:6881".parse()?;
    let mut allowance = Allowance::Unlimited;
    let mut contents = vec![];
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value after it"));
        match arg.as_str() {
            "--listen" => listen = value()?.parse()?,
            "--limit" => allowance = Allowance::BytesPerSecond(value()?.parse()?),
            torrent => contents.push((Metainfo::parse(&std::fs::read(torrent)?)?, value()?)),
        }
    }
    let files = contents.iter().map(|(meta, data)| (meta.infohash, PathBuf::from(data))).collect();
    let settings = ServeSettings {
        listeners: vec![TcpListener::bind(listen)?],
        peer_id: *b"-LA0001-example-seed",
        client_name: concat!("Larder/", env!("CARGO_PKG_VERSION")).into(),
        connections_max: 2_000,
        connections_per_ip_max: 2_000,
        connections_per_content_max: 2_000,
        listen_port: listen.port(),
        lan_prefixes: None,
        on_first_peer: Box::new(|| ()),
    };
    let engine = Engine::start(settings, Box::new(Files(files)))?;
    engine.send(ServeCommand::SetAllowance(allowance));
    for (meta, _) in contents {
        println!("serving {} as {}", meta.name, meta.infohash);
        engine.send(ServeCommand::Add(Servable {
            infohash: meta.infohash,
            piece_length: meta.piece_length,
            total_bytes: meta.total_bytes,
            have: Bitfield::full(meta.piece_count()),
            info_bytes: meta.info_bytes.into(),
        }));
    }
    loop {
        thread::sleep(Duration::from_secs(1));
        for delta in engine.take_usage() {
            let Usage { payload_bytes, wire_bytes } = delta.usage;
            println!("{}: payload {payload_bytes} B, wire {wire_bytes} B", delta.infohash);
        }
    }
}
