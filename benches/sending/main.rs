//! How should blocks leave? Compares ways to bring blocks of a file in the page cache to many sockets,
//! all in one run and taking turns: CPU of the sending side per GiB and system calls a block. There is
//! no protocol in it and no limit, and nobody asks for blocks, so that only the way differs.
//! docs/adr/0020 has the figures and what we do.
//!
//!     sending [--rounds N] [--seconds S] [--segment-bytes N] [--congestion NAME]
//!             [--ways NAME,…] [--loads NAME,…]
//!
//! Segments are as on Ethernet unless told otherwise (0: as the loopback likes them, 64 KiB).

mod copying;
mod peer;
mod ring;
mod run;
mod splicing;
mod sys;

use std::{error::Error, io, io::Write, time::Duration};

use peer::{Content, Peer};
use run::{Load, Outcome};

type Failure = Box<dyn Error>;

/// A way for blocks to leave.
pub trait Way {
    /// Sends up to `BLOCKS_A_TURN` blocks to each of `ready`, as far as there is room; answers with the
    /// number of system calls that this took.
    fn send(&mut self, content: &Content, peers: &mut [Peer], ready: &[usize]) -> io::Result<u64>;

    /// What epoll has to watch besides the sockets.
    fn descriptor(&self) -> Option<i32> {
        None
    }
}

type Start = fn() -> io::Result<Box<dyn Way>>;

/// Name, what it does, how it begins.
const WAYS: &[(&str, &str, Start)] = &[
    ("sendfile", "send(header, MSG_MORE), sendfile(block)", splicing::sendfile),
    ("corked", "TCP_CORK over the turn, send(header), sendfile(block)", splicing::corked),
    ("splice", "headers and blocks into a pipe, one splice to the socket", splicing::splice),
    ("mixed", "the same through one pipe for all; a single block as `sendfile`", splicing::mixed),
    ("mapped", "one sendmsg of headers and mapped blocks a turn", copying::mapped),
    ("pread", "pread of adjacent blocks into a shared buffer, one sendmsg a turn", copying::pread),
    ("ring", "io_uring: sendmsg of headers and mapped blocks, all peers in one call", ring::mapped),
    ("ring-read", "io_uring: read linked to sendmsg, all peers in one call", ring::reading),
    ("ring-zc", "io_uring: sendmsg_zc of headers and mapped blocks", ring::zero_copy),
];

const LOADS: &[Load] = &[
    Load { name: "1", peers: 1, blocks_per_second: 0 },
    Load { name: "50", peers: 50, blocks_per_second: 0 },
    Load { name: "200", peers: 200, blocks_per_second: 0 },
    Load { name: "200-paced", peers: 200, blocks_per_second: 10 },
];

struct Options {
    rounds: usize,
    seconds: f64,
    segment_bytes: u32,
    congestion: String,
    ways: Vec<String>,
    loads: Vec<String>,
}

impl Options {
    fn from_args() -> Result<Options, Failure> {
        let names = |all: &mut dyn Iterator<Item = &'static str>| all.map(str::to_owned).collect();
        let mut options = Options {
            rounds: 3,
            seconds: 1.5,
            segment_bytes: 1448,
            congestion: "cubic".into(),
            ways: names(&mut WAYS.iter().map(|w| w.0)),
            loads: names(&mut LOADS.iter().map(|l| l.name)),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let value = args.next().ok_or(format!("{arg} needs a value after it"))?;
            let list = || value.split(',').map(str::to_owned).collect();
            match arg.as_str() {
                "--rounds" => options.rounds = value.parse()?,
                "--seconds" => options.seconds = value.parse()?,
                "--segment-bytes" => options.segment_bytes = value.parse()?,
                "--congestion" => options.congestion = value,
                "--ways" => options.ways = list(),
                "--loads" => options.loads = list(),
                _ => return Err(format!("unknown option {arg}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::from_args()?;
    let content = Content::make()?;
    let length = Duration::from_secs_f64(options.seconds);
    let mut ways: Vec<_> = WAYS.iter().filter(|w| options.ways.iter().any(|n| n == w.0)).collect();
    // What the kernel does not have is said once.
    ways.retain(|(name, _, start)| {
        start().inspect_err(|e| eprintln!("{name} is left out: {e}")).is_ok()
    });
    let loads: Vec<_> =
        LOADS.iter().filter(|l| options.loads.iter().any(|n| n == l.name)).collect();
    let mut outcomes = vec![vec![vec![]; loads.len()]; ways.len()];
    for round in 0..options.rounds {
        for (l, load) in loads.iter().enumerate() {
            let forwards: Vec<_> = (0..ways.len()).collect();
            let order: Vec<_> =
                if round % 2 == 0 { forwards } else { forwards.into_iter().rev().collect() };
            for w in order {
                let (name, _, start) = ways[w];
                let peers = run::connect(load.peers, options.segment_bytes, &options.congestion)?;
                let outcome = run::run(load, start()?.as_mut(), &content, peers, length)?;
                eprintln!("{} {} {name}: {outcome}", round + 1, load.name);
                outcomes[w][l].push(outcome);
            }
        }
    }
    print_table(&options, &ways, &loads, &mut outcomes)?;
    Ok(())
}

fn print_table(
    options: &Options,
    ways: &[&(&str, &str, Start)],
    loads: &[&Load],
    outcomes: &mut [Vec<Vec<Outcome>>],
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "CPU-seconds per GiB (times the first way's) / system calls a block; medians of {} round(s) of \
         {} s, segments of {} bytes, {}.\n",
        options.rounds, options.seconds, options.segment_bytes, options.congestion
    )?;
    let names: Vec<_> = loads.iter().map(|l| l.name).collect();
    writeln!(out, "| way | {} | |", names.join(" | "))?;
    writeln!(out, "| --- |{} --- |", " --- |".repeat(loads.len()))?;
    let mut first = vec![];
    for (way, of_way) in ways.iter().zip(outcomes) {
        write!(out, "| {} |", way.0)?;
        for (l, runs) in of_way.iter_mut().enumerate() {
            let cpu = median(runs, |o| o.cpu_seconds_per_gib);
            let calls = median(runs, |o| o.calls_per_block);
            if first.len() == l {
                first.push(cpu);
            }
            write!(out, " {cpu:.3} ({:.2} ×) / {calls:.2} |", cpu / first[l])?;
        }
        writeln!(out, " {} |", way.1)?;
    }
    Ok(())
}

fn median(runs: &mut [Outcome], key: fn(&Outcome) -> f64) -> f64 {
    runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
    runs.get(runs.len() / 2).map_or(f64::NAN, key)
}
