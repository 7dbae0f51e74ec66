//! A house with few places.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits =
    Limits { connections_max: 8, connections_per_group_max: 3, connections_per_content_max: 5 };

fn at(seconds: u64) -> Monotonic {
    Monotonic(Duration::from_secs(seconds))
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn name(content: u64, id: u8) -> Name {
    Name { content: ContentKey::numbered(content), peer_id: [id; 20] }
}

fn guest(n: u32) -> Guest {
    Guest { key: n, arrival: n, group: address(n as u8) }
}

/// Nobody else has said who it is.
fn named(admission: &mut Admission, guest: Guest, name: Name) -> Welcome {
    admission.handle_named(guest, name, std::iter::empty())
}

fn open(admission: &mut Admission, guest: Guest) {
    assert_eq!(admission.handle_arrival(guest.group, at(0)), Ok(()));
    admission.handle_opened(guest, at(0));
}

#[test]
fn a_quarter_of_the_places_is_for_handshakes_and_the_oldest_goes_first() {
    let mut admission = Admission::new(LIMITS);
    (0..2).for_each(|n| open(&mut admission, guest(n)));
    assert_eq!(admission.room(), Room::Displace(0));
    admission.handle_closed(guest(0), None, false, at(0));
    open(&mut admission, guest(2));
    assert_eq!(admission.room(), Room::Displace(1));
    // Whoever has named its content is out of the way.
    assert_eq!(named(&mut admission, guest(1), name(1, 1)), Welcome::Stay);
    assert_eq!(admission.room(), Room::Enough);
}

fn full_house() -> Admission {
    let mut admission = Admission::new(LIMITS);
    for n in 0..8 {
        open(&mut admission, guest(n));
        assert_eq!(named(&mut admission, guest(n), name(n.into(), n as u8)), Welcome::Stay);
    }
    admission
}

#[test]
fn a_full_house_displaces_whoever_is_idle_for_longest_and_no_one_who_is_not() {
    let mut admission = full_house();
    assert_eq!(admission.room(), Room::Full);
    let standing = |n| match n {
        3 => Standing::Idle { since: at(5) },
        6 => Standing::Idle { since: at(4) },
        _ => Standing::InUse,
    };
    let look = |admission: &mut Admission, now| {
        admission.least_useful(Crowd::House, (0..8).map(|n| (n, standing(n))), at(now))
    };
    assert_eq!(look(&mut admission, 20), Some(6));
    let busy = (0..8).map(|n| (n, Standing::InUse));
    assert_eq!(admission.least_useful(Crowd::House, busy, at(20)), None);
    // The house is not searched for every arrival.
    assert_eq!(look(&mut admission, 20), None);
    let one_content = [(3, standing(3))].into_iter();
    assert_eq!(admission.least_useful(Crowd::Content, one_content, at(20)), Some(3));
    assert_eq!(look(&mut admission, 21), Some(6));
}

#[test]
fn one_content_cannot_take_all_places() {
    let mut admission = Admission::new(LIMITS);
    for n in 0..6 {
        open(&mut admission, guest(n));
        let expected = if n < 5 { Welcome::Stay } else { Welcome::ContentFull };
        assert_eq!(named(&mut admission, guest(n), name(1, n as u8)), expected);
    }
    admission.handle_closed(guest(5), Some(name(1, 5)), false, at(0));
    open(&mut admission, guest(6));
    assert_eq!(named(&mut admission, guest(6), name(2, 6)), Welcome::Stay);
    admission.handle_closed(guest(0), Some(name(1, 0)), false, at(0));
    open(&mut admission, guest(7));
    assert_eq!(named(&mut admission, guest(7), name(1, 7)), Welcome::Stay);
}

#[test]
fn the_same_id_is_the_same_peer_only_from_the_same_address_and_for_the_same_content() {
    let mut admission = Admission::new(LIMITS);
    let same_home = |n| Guest { group: address(1), ..guest(n) };
    [1, 2, 3].into_iter().for_each(|n| open(&mut admission, same_home(n)));
    let here = [(same_home(1), name(1, 9)), (same_home(2), name(2, 9)), (same_home(2), name(1, 8))];
    let say = |admission: &mut Admission, guest, name| {
        admission.handle_named(guest, name, here.iter().copied())
    };
    assert_eq!(say(&mut admission, same_home(3), name(1, 9)), Welcome::SameAs(1));
    assert_eq!(say(&mut admission, same_home(3), name(3, 9)), Welcome::Stay);
    assert_eq!(
        say(&mut admission, same_home(1), name(1, 9)),
        Welcome::Stay,
        "it is that one itself"
    );
    // A stranger who says the same id neither gets in the way nor is turned away for it.
    [6, 7].into_iter().for_each(|n| open(&mut admission, Guest { group: address(6), ..guest(n) }));
    let stranger = Guest { group: address(6), ..guest(6) };
    assert_eq!(say(&mut admission, stranger, name(1, 9)), Welcome::Stay);
}

#[test]
fn offenders_are_banned_and_those_who_were_displaced_are_not() {
    let mut admission = Admission::new(LIMITS);
    for (n, offended) in [(1, false), (2, true)] {
        for _ in 0..2 {
            open(&mut admission, guest(n));
            admission.handle_closed(guest(n), None, offended, at(0));
        }
    }
    assert_eq!(admission.handle_arrival(address(1), at(0)), Ok(()));
    assert_eq!(admission.handle_arrival(address(2), at(0)), Err(Refusal::Banned));
    assert_eq!(admission.handle_arrival(address(2), at(60)), Ok(()));
}

#[test]
fn metadata_takes_a_twentieth_of_the_allowance_however_many_ask() {
    let mut admission = Admission::new(LIMITS);
    admission.set_allowance(Allowance::BytesPerSecond(20 * 16_384 * 3));
    let crowd = |admission: &mut Admission, now| -> u32 {
        (0..100).map(|n| admission.take_metadata(address(n), 10, at(now))).sum()
    };
    assert_eq!(crowd(&mut admission, 0), METADATA_AT_ONCE);
    assert_eq!(crowd(&mut admission, 5), 15);
    admission.set_allowance(Allowance::Unlimited);
    assert_eq!(crowd(&mut admission, 60), 1_000);
}

#[derive(Clone, Debug)]
enum Op {
    Arrive(u8),
    Name { nth: usize, content: u64, id: u8 },
    Leave { nth: usize, offended: bool },
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0u8..6).prop_map(Op::Arrive),
        4 => (0usize..20, 0u64..3, 0u8..3).prop_map(|(nth, content, id)| Op::Name { nth, content, id }),
        2 => (0usize..20, prop::bool::weighted(0.1)).prop_map(|(nth, offended)| Op::Leave { nth, offended }),
        1 => (1u64..100).prop_map(Op::Wait),
    ]
}

/// A caller that obeys.
struct House {
    admission: Admission,
    here: BTreeMap<u32, (Guest, Option<Name>)>,
    arrivals: u32,
    now: Monotonic,
}

impl House {
    fn arrive(&mut self, from: u8) {
        let group = address(from);
        if self.admission.handle_arrival(group, self.now).is_err() {
            return;
        }
        match self.admission.room() {
            Room::Enough => {}
            Room::Displace(oldest) => {
                assert!(self.here[&oldest].1.is_none(), "only handshakes are displaced unasked");
                let younger = |(g, said): &(Guest, Option<Name>)| said.is_some() || g.key >= oldest;
                assert!(self.here.values().all(younger));
                self.leave(oldest, false);
            }
            Room::Full => return assert_eq!(self.here.len(), 8),
        }
        self.arrivals += 1;
        let guest = Guest { key: self.arrivals, arrival: self.arrivals, group };
        self.admission.handle_opened(guest, self.now);
        self.here.insert(self.arrivals, (guest, None));
    }

    fn name(&mut self, key: u32, said: Name) {
        let (guest, None) = self.here[&key] else { return };
        self.here.insert(key, (guest, Some(said)));
        let others: Vec<_> = self.here.values().filter_map(|(g, n)| Some((*g, (*n)?))).collect();
        match self.admission.handle_named(guest, said, others.into_iter()) {
            Welcome::Stay => {}
            Welcome::SameAs(first) => {
                assert_eq!(self.here[&first].0.group, guest.group);
                assert_eq!(self.here[&first].1, Some(said));
                if said.peer_id[0] == 0 {
                    self.leave(first, false);
                } else {
                    self.leave(key, false);
                }
            }
            Welcome::ContentFull => self.leave(key, false),
        }
    }

    fn leave(&mut self, key: u32, offended: bool) {
        let (guest, said) = self.here.remove(&key).expect("somebody who is here");
        self.admission.handle_closed(guest, said, offended, self.now);
    }

    fn nth(&self, nth: usize) -> Option<u32> {
        self.here.keys().nth(nth % self.here.len().max(1)).copied()
    }

    fn count(&self, which: impl Fn(&Guest, Option<Name>) -> bool) -> usize {
        self.here.values().filter(|(guest, said)| which(guest, *said)).count()
    }

    fn assert_limits_hold(&self) {
        assert!(self.here.len() <= 8);
        assert_eq!(self.admission.connections() as usize, self.here.len());
        assert!((0..6).all(|n| self.count(|g, _| g.group == address(n)) <= 3));
        let of = |content| move |said: Name| said.content == ContentKey::numbered(content);
        assert!((0..3).all(|c| self.count(|_, said| said.is_some_and(of(c))) <= 5));
        assert!(self.count(|_, said| said.is_none()) <= 2);
    }
}

proptest! {
    #[test]
    fn no_limit_is_ever_passed_and_nothing_is_left_behind(
        ops in prop::collection::vec(op(), 0..300),
    ) {
        let admission = Admission::new(LIMITS);
        let mut house = House { admission, here: BTreeMap::new(), arrivals: 0, now: at(0) };
        for op in ops {
            match op {
                Op::Arrive(from) => house.arrive(from),
                Op::Name { nth, content, id } => {
                    if let Some(key) = house.nth(nth) { house.name(key, name(content, id)) }
                }
                Op::Leave { nth, offended } => {
                    if let Some(key) = house.nth(nth) { house.leave(key, offended) }
                }
                Op::Wait(seconds) => house.now = house.now + Duration::from_secs(seconds),
            }
            house.assert_limits_hold();
        }
        while let Some(key) = house.nth(0) { house.leave(key, false) }
        let left = &house.admission;
        prop_assert!(left.half_open.is_empty() && left.by_content.is_empty());
    }
}
