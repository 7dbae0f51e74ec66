use proptest::prelude::*;

use super::*;

const FILM: Infohash = Infohash([1; 20]);
const SONG: Infohash = Infohash([2; 20]);

fn at(seconds: u64) -> Monotonic {
    Monotonic(Duration::from_secs(seconds))
}

fn peer(n: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 18, 0, n], port))
}

fn nobody(_: IpAddr) -> bool {
    false
}

fn strangers(_: SocketAddr) -> bool {
    false
}

fn named(leechers: &[SocketAddr]) -> Outreach {
    let mut outreach = Outreach::new(may_call);
    outreach.handle_named(FILM, leechers, strangers, at(0));
    outreach
}

#[test]
fn calls_one_after_another_and_few_at_a_time() {
    let mut outreach = named(&(1..=10).map(|n| peer(n, 6881)).collect::<Vec<_>>());
    assert_eq!(outreach.poll_timeout(), Some(at(0)));
    let first = Call { infohash: FILM, address: peer(1, 6881) };
    assert_eq!(outreach.poll_call(nobody, at(0)), Some(first));
    assert_eq!(outreach.poll_call(nobody, at(0)), None, "not two at once");
    for n in 2..=HALF_OPEN_MAX as u64 {
        assert_eq!(outreach.poll_timeout(), Some(at(n - 1)));
        assert!(outreach.poll_call(nobody, at(n - 1)).is_some());
    }
    assert_eq!((outreach.poll_timeout(), outreach.poll_call(nobody, at(100))), (None, None));
    outreach.handle_answered(peer(2, 6881));
    assert!(outreach.poll_call(nobody, at(100)).is_some());
    outreach.handle_ended(peer(1, 6881), End::Failed, at(101));
    assert!(outreach.poll_call(nobody, at(101)).is_some());
    outreach.handle_ended(peer(2, 6881), End::Visited, at(102));
    assert_eq!(outreach.poll_call(nobody, at(102)), None, "an answered call was not half-open");
}

#[test]
fn asks_nothing_of_time_when_there_is_nobody_to_call() {
    assert_eq!(Outreach::new(may_call).poll_timeout(), None);
    let mut outreach = named(&[peer(1, 6881)]);
    outreach.handle_removed(FILM);
    assert_eq!((outreach.poll_timeout(), outreach.poll_call(nobody, at(0))), (None, None));
}

#[test]
fn comes_back_later_and_later_to_those_who_do_not_answer() {
    let mut outreach = Outreach::new(may_call);
    let mut now = at(0);
    let mut rests = vec![];
    for _ in 0..10 {
        let started = now;
        // Named again and again, as by each announce.
        while outreach.poll_call(nobody, now).is_none() {
            now = now + Duration::from_secs(60);
            outreach.handle_named(FILM, &[peer(1, 6881)], strangers, now);
        }
        rests.push(now.saturating_since(started).as_secs() / 60);
        outreach.handle_ended(peer(1, 6881), End::Failed, now);
    }
    assert_eq!(rests, [1, 15, 30, 60, 120, 240, 480, 960, 1440, 1440]);
}

#[test]
fn comes_back_in_time_to_those_who_answered_and_hardly_to_seeds() {
    for (end, rest) in [(End::Visited, AFTER_VISIT), (End::Needless, AGAIN_LONGEST)] {
        let mut outreach = named(&[peer(1, 6881)]);
        outreach.poll_call(nobody, at(0)).expect("a call");
        outreach.handle_answered(peer(1, 6881));
        outreach.handle_ended(peer(1, 6881), end, at(50));
        let call_at = |outreach: &mut Outreach, now| {
            outreach.handle_named(FILM, &[peer(1, 6881)], strangers, now);
            outreach.poll_call(nobody, now)
        };
        let free_at = at(50) + rest;
        assert_eq!(call_at(&mut outreach, Monotonic(free_at.0 - Duration::from_secs(1))), None);
        assert!(call_at(&mut outreach, free_at).is_some());
    }
}

#[test]
fn visits_to_the_same_peer_grow_rare() {
    let mut outreach = Outreach::new(may_call);
    let mut rests = vec![];
    let mut now = at(0);
    for _ in 0..9 {
        let started = now;
        loop {
            outreach.handle_named(FILM, &[peer(1, 6881)], strangers, now);
            if outreach.poll_call(nobody, now).is_some() {
                break;
            }
            now = now + Duration::from_secs(1);
        }
        rests.push(now.saturating_since(started).as_secs());
        outreach.handle_answered(peer(1, 6881));
        outreach.handle_ended(peer(1, 6881), End::Visited, now);
    }
    assert_eq!(rests, [0, 15, 30, 60, 120, 240, 480, 900, 900]);
}

#[test]
fn calls_nobody_who_is_connected_is_ours_or_has_waited_too_long() {
    let mut outreach = named(&[peer(1, 6881), peer(2, 6881)]);
    let connected = |group| group == peer(1, 0).ip();
    let call = outreach.poll_call(connected, at(0)).expect("the other one");
    assert_eq!(call.address, peer(2, 6881));
    let mut outreach = Outreach::new(may_call);
    outreach.handle_named(FILM, &[peer(1, 6881)], |at| at.ip() == peer(1, 0).ip(), at(0));
    assert_eq!(outreach.poll_timeout(), None);
    let mut outreach = named(&[peer(1, 6881)]);
    assert_eq!(outreach.poll_call(nobody, at(30 * 60)), None);
}

#[test]
fn a_host_is_called_at_one_port_for_one_content() {
    let mut outreach = named(&[peer(1, 6881), peer(1, 6882), peer(2, 6881)]);
    outreach.handle_named(SONG, &[peer(1, 6883), peer(3, 6881)], strangers, at(0));
    let mut calls = vec![];
    for seconds in 0..20 {
        calls.extend(outreach.poll_call(nobody, at(seconds)).map(|call| call.address));
    }
    assert_eq!(calls, [peer(1, 6881), peer(2, 6881), peer(3, 6881)]);
}

#[test]
fn what_a_tracker_said_last_is_what_counts() {
    let mut outreach = named(&[peer(1, 6881)]);
    outreach.handle_named(FILM, &[peer(2, 6881)], strangers, at(1));
    assert_eq!(outreach.poll_call(nobody, at(1)).map(|c| c.address), Some(peer(2, 6881)));
    assert_eq!(outreach.poll_call(nobody, at(2)), None);
}

#[test]
fn forgets_nobody_whose_rest_lasts_though_trackers_name_the_whole_world() {
    let mut outreach = Outreach::new(may_call);
    let mut called = 0;
    let hosts = (0..=u8::MAX).flat_map(|b| (0..50).map(move |c| [198, 18, b, c]));
    for (second, host) in hosts.enumerate() {
        let (host, now) = (SocketAddr::from((host, 6881)), at(second as u64 / 10));
        outreach.next_at = now;
        outreach.handle_named(FILM, &[host], strangers, now);
        if outreach.poll_call(nobody, now).is_some() {
            called += 1;
            outreach.handle_ended(host, End::Needless, now);
        }
        assert!(outreach.remembered.len() <= REMEMBERED_MAX);
    }
    assert_eq!(called, REMEMBERED_MAX);
}

#[derive(Clone, Debug)]
enum Op {
    Name(Infohash, Vec<SocketAddr>),
    Remove(Infohash),
    Answer(usize),
    End(usize, End),
    Wait(u64),
    Poll,
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let few = (0u8..20, 1020u16..1030).prop_map(|(n, port)| peer(n, port));
    let any_v4 = any::<([u8; 4], u16)>().prop_map(SocketAddr::from);
    let any_v6 = any::<([u8; 16], u16)>().prop_map(SocketAddr::from);
    prop_oneof![6 => few, 1 => any_v4, 1 => any_v6]
}

fn op() -> impl Strategy<Value = Op> {
    let content = prop_oneof![Just(FILM), Just(SONG)];
    let end = prop_oneof![Just(End::Failed), Just(End::Visited), Just(End::Needless)];
    prop_oneof![
        2 => (content.clone(), prop::collection::vec(address(), 0..70)).prop_map(|(c, a)| Op::Name(c, a)),
        1 => content.prop_map(Op::Remove),
        2 => any::<usize>().prop_map(Op::Answer),
        2 => (any::<usize>(), end).prop_map(|(n, end)| Op::End(n, end)),
        3 => (0u64..2_000).prop_map(Op::Wait),
        6 => Just(Op::Poll),
    ]
}

proptest! {
    #[test]
    fn whatever_trackers_say_calls_are_few_spaced_and_allowed(
        ops in prop::collection::vec(op(), 0..150),
    ) {
        let (mut outreach, mut now) = (Outreach::new(may_call), at(0));
        let mut last_call: Option<Monotonic> = None;
        let mut last_end: BTreeMap<IpAddr, (Monotonic, Duration)> = BTreeMap::new();
        // Calls under way, and whether they were answered.
        let mut open: Vec<(SocketAddr, bool)> = vec![];
        let mut named: BTreeMap<Infohash, Vec<SocketAddr>> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Name(content, addresses) => {
                    outreach.handle_named(content, &addresses, strangers, now);
                    named.insert(content, addresses);
                }
                Op::Remove(content) => {
                    outreach.handle_removed(content);
                    named.remove(&content);
                }
                Op::Answer(n) if !open.is_empty() => {
                    let n = n % open.len();
                    open[n].1 = true;
                    outreach.handle_answered(open[n].0);
                }
                Op::End(n, end) if !open.is_empty() => {
                    let (address, _) = open.remove(n % open.len());
                    outreach.handle_ended(address, end, now);
                    let rest = if end == End::Visited { AFTER_VISIT } else { AGAIN };
                    last_end.insert(address_group(address.ip()), (now, rest));
                }
                Op::Wait(seconds) => now = now + Duration::from_secs(seconds),
                Op::Answer(_) | Op::End(..) => {}
                Op::Poll => {
                    let promised = outreach.poll_timeout();
                    let Some(call) = outreach.poll_call(nobody, now) else { continue };
                    prop_assert!(promised.is_some_and(|at| at <= now));
                    let group = address_group(call.address.ip());
                    prop_assert!(may_call(call.address));
                    prop_assert!(named[&call.infohash].contains(&call.address));
                    prop_assert!(last_call.is_none_or(|then| now.saturating_since(then) >= GAP));
                    let rested = |(then, rest): &(Monotonic, Duration)| now.saturating_since(*then) >= *rest;
                    prop_assert!(last_end.get(&group).is_none_or(rested));
                    prop_assert!(open.iter().all(|(a, _)| address_group(a.ip()) != group));
                    last_call = Some(now);
                    open.push((call.address, false));
                }
            }
            let half_open = open.iter().filter(|(_, answered)| !answered).count();
            prop_assert!(half_open <= HALF_OPEN_MAX);
            prop_assert_eq!(outreach.half_open, half_open);
            prop_assert!(outreach.waiting.len() <= WAITING_MAX);
        }
    }
}
