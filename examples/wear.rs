//! Keeps a ledger as a busy larderd does, in real time: `wear FOLDER CONTENTS SECONDS`. For benches/flash,
//! which watches what reaches the disk. Serves nobody.

use std::{
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use larder::{
    api::signed::SigningKey,
    device::store::Store,
    logic::{
        infohash::Infohash,
        ledger::dating::{BootMoment, Stamp},
        now::UnixSeconds,
        usage::{PeerClass, Usage, UsageDelta},
    },
};

/// As in `device/bookkeeping.rs`, and the policy's default.
const ROUND: Duration = Duration::from_millis(900);
const ROUNDS_A_SYNC: u32 = 5;
const REPORT_INTERVAL: Duration = Duration::from_secs(900);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("wear FOLDER CONTENTS SECONDS");
    let (folder, contents, seconds) = (next(), next(), next());
    let contents: u16 = contents.parse().expect("a number of contents");
    let until = Instant::now() + Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let store = Store::open(folder.as_ref()).expect("opens");
    let key = SigningKey::generate();
    let mut report_at = Instant::now() + REPORT_INTERVAL;
    for round in 1.. {
        sleep(ROUND);
        let now = UnixSeconds(
            SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs(),
        );
        let stamp = Stamp { moment: BootMoment::default(), hour: Some(now.hour()) };
        store.add_usage(stamp, &(0..contents).map(served).collect::<Vec<_>>()).expect("adds");
        if round % ROUNDS_A_SYNC == 0 {
            store.sync_usage().expect("syncs");
        }
        if Instant::now() >= report_at {
            report_at += REPORT_INTERVAL;
            while let Some(number) =
                store.build_report("device", now, &key, &[].into()).expect("builds")
            {
                store.report_accepted(number).expect("accepts");
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
}

fn served(content: u16) -> UsageDelta {
    let mut infohash = [0; 20];
    infohash[..2].copy_from_slice(&content.to_be_bytes());
    let usage = Usage { payload_bytes: 50_000, wire_bytes: 52_000 };
    UsageDelta { infohash: Infohash(infohash), class: PeerClass::Wan, usage }
}
