//! A wire with a length, where the kernel has no netem: carries IP packets between two TUN devices
//! with a fixed delay each way, in order and without loss, and writes down each packet as it arrives.
//! It queues nothing else and shapes nothing; `benches/household` runs it.
//!
//!     delay_relay DELAY_MICROSECONDS LOG_UP LOG_DOWN <>HOUSEHOLD_TUN >&WAN_TUN
//!
//! Standard input is the household's device, standard output the WAN's, both open for reading and
//! writing. The records in the logs are those of [`Record`]. It ends when a device goes away.

use std::{
    error::Error,
    fs::File,
    io::{BufWriter, Read, Write},
    os::fd::AsFd,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Ethernet's, as the devices have it, with room to notice more.
const PACKET_BYTES_MAX: usize = 2048;
/// What a gigabit carries in 100 ms; more on the way means that the machine is far behind.
const PACKETS_ON_THE_WAY_MAX: usize = 8192;
/// So that the log can be read while the relay runs.
const LOG_FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// In the upper half of an IP header's first byte.
const IPV4: u8 = 4;
/// Offsets in an IPv4 header.
const PROTOCOL_AT: usize = 9;
const SOURCE_AT: usize = 12;
const DESTINATION_AT: usize = 16;

struct Packet {
    due: Instant,
    bytes: Box<[u8]>,
}

/// 16 bytes, little endian: nanoseconds since 1970 (8), IPv4 address on the household's side as the
/// packet has it (4), bytes with the IP header (2), IP protocol (1), zero (1).
struct Record([u8; 16]);

impl Record {
    /// None for what is not IPv4: the lab has nothing else.
    fn of(packet: &[u8], household_at: usize) -> Option<Record> {
        packet.first().filter(|first| **first >> 4 == IPV4)?;
        let address = packet.get(household_at..household_at + 4)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let mut record = [0; 16];
        record[..8].copy_from_slice(&u64::try_from(since_1970.as_nanos()).ok()?.to_le_bytes());
        record[8..12].copy_from_slice(address);
        record[12..14].copy_from_slice(&u16::try_from(packet.len()).ok()?.to_le_bytes());
        record[14] = packet[PROTOCOL_AT];
        Some(Record(record))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [delay, log_up, log_down] = args.as_slice() else {
        return Err("usage: delay_relay DELAY_MICROSECONDS LOG_UP LOG_DOWN <>TUN >&TUN".into());
    };
    let delay = Duration::from_micros(delay.parse()?);
    let household = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let wan = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let up = carry(household.try_clone()?, wan.try_clone()?, delay, log_up.as_ref(), SOURCE_AT)?;
    let down = carry(wan, household, delay, log_down.as_ref(), DESTINATION_AT)?;
    for thread in up.into_iter().chain(down) {
        thread.join().map_err(|_| "a thread of the relay panicked")?;
    }
    Ok(())
}

/// Two threads, so that neither reading nor the clock waits for the other. A thread sleeps to the
/// microsecond; epoll would round up to the millisecond.
fn carry(
    from: File,
    to: File,
    delay: Duration,
    log: &Path,
    household_at: usize,
) -> Result<[thread::JoinHandle<()>; 2], std::io::Error> {
    let log = BufWriter::with_capacity(1 << 16, File::create(log)?);
    let (sender, receiver) = sync_channel(PACKETS_ON_THE_WAY_MAX);
    Ok([
        thread::spawn(move || take_in(from, delay, &sender)),
        thread::spawn(move || {
            // A full disk must not pass for a quiet line.
            hand_over(to, log, household_at, &receiver).expect("the log can be written");
        }),
    ])
}

fn take_in(mut from: File, delay: Duration, sender: &SyncSender<Packet>) {
    let mut buffer = [0; PACKET_BYTES_MAX];
    // An error is a device that is gone, or not up yet: then there is nothing to wait for either.
    while let Ok(length) = from.read(&mut buffer) {
        let packet = Packet { due: Instant::now() + delay, bytes: buffer[..length].into() };
        if sender.send(packet).is_err() {
            return;
        }
    }
}

fn hand_over(
    mut to: File,
    mut log: BufWriter<File>,
    household_at: usize,
    receiver: &Receiver<Packet>,
) -> Result<(), std::io::Error> {
    let mut flushed_at = Instant::now();
    loop {
        match receiver.recv_timeout(LOG_FLUSH_INTERVAL) {
            Ok(packet) => {
                thread::sleep(packet.due.saturating_duration_since(Instant::now()));
                // An interface that is down drops packets; so does this.
                let _ = to.write(&packet.bytes);
                if let Some(record) = Record::of(&packet.bytes, household_at) {
                    log.write_all(&record.0)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return log.flush(),
        }
        if flushed_at.elapsed() >= LOG_FLUSH_INTERVAL {
            log.flush()?;
            flushed_at = Instant::now();
        }
    }
}
