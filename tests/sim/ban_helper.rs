//! PeerBanHelper's default rules (its profile of 2026-08, version 40), as far as they judge what a
//! peer does: written anew from reading its source. Left out are lists that are fetched from elsewhere
//! and rules that are off by default. What comes out is the first rule that a sighting breaks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use larder::logic::{infohash::Infohash, now::Monotonic};

/// What a downloader knows of a connected peer each time PeerBanHelper asks it.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub at: Monotonic,
    pub torrent: Infohash,
    pub torrent_bytes: u64,
    /// What the downloader itself has.
    pub completed_bytes: u64,
    pub address: IpAddr,
    pub port: u16,
    pub peer_id: String,
    pub client: String,
    /// The part of the pieces that the peer says it has, 0 to 1.
    pub progress: f64,
    /// Bytes that the downloader sent to this peer on this connection.
    pub uploaded: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    PeerId,
    ClientName,
    Xunlei,
    AddressOrPort,
    /// A default script: the name that a client gives does not go with its peer id.
    NameAndId,
    /// A default script about addresses.
    AddressPattern,
    MultiDialing,
    /// Not a ban yet: it is disconnected for 15 s, to see what it says after that.
    FastTest,
    Excessive,
    Difference,
    Rewind,
}

const PEER_ID_STARTS: [&str; 12] =
    ["-hp", "-xm", "-dt", "-sd", "-xf", "-qd", "-bn", "-dl", "-ts", "-fg", "-tt", "-nx"];
const PEER_ID_CONTAINS: [&str; 2] = ["-rn0.0.0", "cacao"];
const PEER_ID_EQUALS: [&str; 2] = ["unknown", "未知"];
const CLIENT_STARTS: [&str; 12] = [
    "hp/torrent",
    "hp ",
    "dt/torrent",
    "dt ",
    "xm/torrent",
    "xm ",
    "taipei-torrent",
    "xfplay",
    "qbittorrent/3.3.15",
    "github.com/thank423/trafficconsume",
    "unknown [",
    "gopeed bt-exp",
];
const CLIENT_CONTAINS: [&str; 8] = [
    "rain 0.0.0",
    "gopeed dev",
    "stellarplayer",
    "sp ",
    "flashget",
    "tudou",
    "torrentstorm",
    "qqdownload",
];
/// Name, and how its peer id starts.
const NAMES_AND_IDS: [(&str, &str); 19] = [
    ("aria2explorer", "-ae"),
    ("bitcomet", "-bc"),
    ("transmission", "-tr"),
    ("qbittorrent", "-qb"),
    ("bitlord", "-bl"),
    ("bitwombat", "-bw"),
    ("deluge", "-de"),
    ("frostwire", "-fw"),
    ("gospeed", "-gp"),
    ("adm", "-ad"),
    ("bitspirit", "-sp"),
    ("aria2", "a2"),
    ("utorrentmac", "-um"),
    ("utorrent mac", "-um"),
    ("μtorrent", "-ut"),
    ("utorrent", "-ut"),
    ("tixati", "tix"),
    ("gopeed dev", "-gp"),
    ("xunlei", "-xl"),
];

const MINIMUM_BYTES: u64 = 50_000_000;
const MAXIMUM_DIFFERENCE: f64 = 0.1;
const REWIND_MAXIMUM: f64 = 0.07;
const EXCESSIVE: f64 = 1.5;
const MAX_WAIT: Duration = Duration::from_secs(30);
const FAST_TEST_PART: f64 = 0.1;
const DIALING_MEMORY: Duration = Duration::from_secs(86_400);

/// What the progress rules remember of an address, or of a range of them, in one torrent.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    last_uploaded: u64,
    uploaded_in_all: u64,
    last_progress: f64,
    last_completed: u64,
    wait_ends: Option<Monotonic>,
    fast_tested: bool,
}

#[derive(Debug, Default)]
pub struct BanHelper {
    addresses: BTreeMap<(Infohash, IpAddr), Record>,
    ranges: BTreeMap<(Infohash, IpAddr), Record>,
    /// When each address of a subnet was last seen.
    subnets: BTreeMap<(Infohash, IpAddr), BTreeMap<IpAddr, Monotonic>>,
}

impl BanHelper {
    pub fn check(&mut self, seen: &Sighting) -> Option<Rule> {
        by_name(seen).or_else(|| self.multi_dialing(seen)).or_else(|| self.progress(seen))
    }

    fn multi_dialing(&mut self, seen: &Sighting) -> Option<Rule> {
        let (subnet, tolerated) = match seen.address {
            IpAddr::V4(_) => (prefix(seen.address, 24), 2),
            IpAddr::V6(_) => (prefix(seen.address, 56), 5),
        };
        let members = self.subnets.entry((seen.torrent, subnet)).or_default();
        members.insert(seen.address, seen.at);
        members.retain(|_, at| seen.at.saturating_since(*at) < DIALING_MEMORY);
        (members.len() > tolerated).then_some(Rule::MultiDialing)
    }

    fn progress(&mut self, seen: &Sighting) -> Option<Rule> {
        let length = if seen.address.is_ipv4() { 32 } else { 56 };
        let address_key = (seen.torrent, seen.address);
        let range_key = (seen.torrent, prefix(seen.address, length));
        let mut address = self.addresses.get(&address_key).copied().unwrap_or_default();
        let mut range = self.ranges.get(&range_key).copied().unwrap_or_default();
        let new = seen.uploaded.checked_sub(address.last_uploaded).unwrap_or(seen.uploaded);
        address.uploaded_in_all += new;
        range.uploaded_in_all += new;
        let verdict = judge_progress(seen, &mut address, &mut range);
        for record in [&mut address, &mut range] {
            record.last_uploaded = seen.uploaded;
            if seen.progress != 0.0 {
                record.last_progress = seen.progress;
            }
            record.last_completed = record.last_completed.max(seen.completed_bytes);
        }
        self.addresses.insert(address_key, address);
        self.ranges.insert(range_key, range);
        verdict
    }
}

/// All that can be said without having seen the peer before.
fn by_name(seen: &Sighting) -> Option<Rule> {
    let id = seen.peer_id.to_lowercase();
    let name = seen.client.to_lowercase();
    if PEER_ID_STARTS.iter().any(|start| id.starts_with(start))
        || PEER_ID_CONTAINS.iter().any(|part| id.contains(part))
        || PEER_ID_EQUALS.contains(&id.as_str())
    {
        return Some(Rule::PeerId);
    }
    if CLIENT_STARTS.iter().any(|start| name.starts_with(start))
        || CLIENT_CONTAINS.iter().any(|part| name.contains(part))
        || name.starts_with("ޭ__")
    {
        return Some(Rule::ClientName);
    }
    if id.starts_with("-xl") || name.starts_with("xunlei") {
        return Some(Rule::Xunlei);
    }
    if seen.port == 0 || seen.address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        return Some(Rule::AddressOrPort);
    }
    let expected = NAMES_AND_IDS.iter().find(|(start, _)| name.starts_with(start));
    if expected.is_some_and(|(_, start)| !id.starts_with(start)) {
        return Some(Rule::NameAndId);
    }
    let address = seen.address.to_string();
    let transmission = seen.client.contains("Transmission 2.94") && address.ends_with("::1");
    (transmission || address.contains(":2e0:61ff:fe")).then_some(Rule::AddressPattern)
}

/// ProgressCheatBlocker, test by test in its order.
fn judge_progress(seen: &Sighting, address: &mut Record, range: &mut Record) -> Option<Rule> {
    let (size, now) = (seen.torrent_bytes, seen.at);
    let uploaded = seen.uploaded.max(address.uploaded_in_all).max(range.uploaded_in_all);
    if size == 0 || seen.uploaded == 0 {
        return None;
    }
    let small = size < MINIMUM_BYTES;
    let tested = small || address.fast_tested && range.fast_tested;
    if !tested && uploaded as f64 >= FAST_TEST_PART * size as f64 {
        (address.fast_tested, range.fast_tested) = (true, true);
        return Some(Rule::FastTest);
    }
    let completed = seen.completed_bytes.max(address.last_completed).max(range.last_completed);
    let base = match () {
        () if uploaded > size => Some(size),
        () if seen.completed_bytes > 0 && uploaded > seen.completed_bytes => Some(completed),
        () => None,
    };
    if base.is_some_and(|base| uploaded as f64 > base.max(MINIMUM_BYTES) as f64 * EXCESSIVE) {
        (address.wait_ends, range.wait_ends) = (None, None);
        return Some(Rule::Excessive);
    }
    let computed = uploaded as f64 / size as f64;
    if computed <= seen.progress || small {
        return None;
    }
    let wait = address.wait_ends.or(range.wait_ends);
    let waited = wait.is_some_and(|end| end < now);
    if computed - seen.progress > MAXIMUM_DIFFERENCE {
        if waited {
            (address.wait_ends, range.wait_ends) = (None, None);
            return Some(Rule::Difference);
        }
        let end = Some(wait.unwrap_or(now + MAX_WAIT));
        (address.wait_ends, range.wait_ends) = (end, end);
    }
    if address.last_progress.max(range.last_progress) - seen.progress > REWIND_MAXIMUM {
        if seen.progress > 0.0 || waited {
            (address.wait_ends, range.wait_ends) = (None, None);
            return Some(Rule::Rewind);
        }
        let end = Some(address.wait_ends.unwrap_or(now + MAX_WAIT));
        (address.wait_ends, range.wait_ends) = (end, end);
    }
    None
}

fn prefix(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !u32::MAX.unbounded_shr(bits)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::MAX.unbounded_shr(bits)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Sighting {
        Sighting {
            at: Monotonic::START,
            torrent: Infohash([7; 20]),
            torrent_bytes: 400_000_000,
            completed_bytes: 100_000_000,
            address: "198.51.100.7".parse().expect("an address"),
            port: 6881,
            peer_id: "-LD0100-ABCDEFGHIJKL".into(),
            client: "Larder 0.1.0".into(),
            progress: 1.0,
            uploaded: 0,
        }
    }

    #[test]
    fn names_and_addresses_are_judged_at_first_sight() {
        let judge = |spoil: &dyn Fn(&mut Sighting)| {
            let mut sighting = seen();
            spoil(&mut sighting);
            BanHelper::default().check(&sighting)
        };
        assert_eq!(judge(&|_| {}), None);
        for start in PEER_ID_STARTS {
            let id = format!("{}1234-abcdefghijkl", start.to_uppercase());
            assert_eq!(judge(&|s| s.peer_id.clone_from(&id)), Some(Rule::PeerId), "{id}");
        }
        for id in ["-LD0100-AACACAOAAAAA", "Unknown"] {
            assert_eq!(judge(&|s| s.peer_id = id.into()), Some(Rule::PeerId), "{id}");
        }
        for name in ["Xfplay 9", "Unknown [LD]", "hp 1.0", "WSP player", "Gopeed dev"] {
            assert_eq!(judge(&|s| s.client = name.into()), Some(Rule::ClientName), "{name}");
        }
        assert_eq!(judge(&|s| s.client = "Xunlei 0.0.1.9".into()), Some(Rule::Xunlei));
        assert_eq!(judge(&|s| s.client = "qBittorrent 5.0".into()), Some(Rule::NameAndId));
        assert_eq!(judge(&|s| s.port = 0), Some(Rule::AddressOrPort));
        let pattern = "2001:db8::2e0:61ff:fe00:1".parse().expect("an address");
        assert_eq!(judge(&|s| s.address = pattern), Some(Rule::AddressPattern));
    }

    #[test]
    fn a_third_address_of_a_subnet_within_a_day_is_multi_dialing() {
        let mut helper = BanHelper::default();
        let mut dial = |last: u8, hour: u64| {
            let address = IpAddr::V4(Ipv4Addr::new(198, 51, 100, last));
            helper.check(&Sighting {
                address,
                at: Monotonic(Duration::from_secs(hour * 3600)),
                ..seen()
            })
        };
        assert_eq!([dial(1, 0), dial(2, 1), dial(3, 25), dial(1, 26)], [None; 4]);
        assert_eq!(dial(4, 27), Some(Rule::MultiDialing));
    }
}
