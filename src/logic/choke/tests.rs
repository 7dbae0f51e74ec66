//! Peers that want, take, and leave.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Monotonic {
    Monotonic(Duration::from_secs(seconds))
}

const FILM: ContentKey = ContentKey::numbered(1);

/// Each peer wants the content of its number's last bits.
fn content_of(peer: PeerKey) -> ContentKey {
    ContentKey::numbered(u64::from(peer % 3))
}

fn drain(choker: &mut Choker) -> Vec<Decision> {
    std::iter::from_fn(|| choker.poll_decision()).collect()
}

#[test]
fn unchokes_at_once_while_a_slot_is_free() {
    let mut choker = Choker::new(2);
    for peer in [1, 2, 3, 1] {
        choker.handle_interested(peer, FILM, at(0));
    }
    assert_eq!(drain(&mut choker), [Decision::Unchoke(1), Decision::Unchoke(2)]);
    choker.handle_not_interested(1, at(1));
    assert_eq!(drain(&mut choker), [Decision::Choke(1), Decision::Unchoke(3)]);
    choker.handle_closed(2, at(1));
    assert_eq!((drain(&mut choker), choker.unchoked()), (vec![], 1));
    assert_eq!(choker.poll_timeout(), None);
}

#[test]
fn an_unused_slot_goes_before_a_used_one() {
    let mut choker = Choker::new(2);
    (1..=3).for_each(|peer| choker.handle_interested(peer, FILM, at(0)));
    drain(&mut choker);
    choker.handle_took(1, at(9));
    assert_eq!(choker.poll_timeout(), Some(at(10)));
    choker.handle_timeout(at(10));
    assert_eq!(drain(&mut choker), [Decision::Choke(2), Decision::Unchoke(3)]);
    choker.handle_took(1, at(19));
    choker.handle_took(3, at(19));
    assert_eq!(choker.poll_timeout(), Some(at(29)));
}

#[test]
fn who_does_not_read_holds_no_slot_and_stays_unchoked() {
    let mut choker = Choker::new(1);
    (1..=3).for_each(|peer| choker.handle_interested(peer, FILM, at(0)));
    drain(&mut choker);
    choker.handle_full(1, at(1));
    assert_eq!(choker.poll_timeout(), Some(at(3)));
    choker.handle_timeout(at(3));
    assert_eq!(drain(&mut choker), [Decision::Unchoke(2)]);
    assert_eq!((choker.unchoked(), choker.slots_taken()), (2, 1));
    choker.handle_took(1, at(5));
    assert_eq!(drain(&mut choker), [Decision::Choke(1)], "its slot has another holder");
    choker.handle_not_interested(2, at(6));
    assert_eq!(drain(&mut choker), [Decision::Choke(2), Decision::Unchoke(3)]);
}

#[test]
fn a_full_socket_that_makes_room_again_keeps_its_slot() {
    let mut choker = Choker::new(1);
    (1..=2).for_each(|peer| choker.handle_interested(peer, FILM, at(0)));
    drain(&mut choker);
    for second in 1..20 {
        choker.handle_full(1, at(second));
        choker.handle_timeout(at(second));
        choker.handle_took(1, at(second + 1));
    }
    assert_eq!(drain(&mut choker), []);
}

#[test]
fn those_set_aside_are_bounded() {
    let mut choker = Choker::new(1);
    (0..UNCHOKED_MAX * 3).for_each(|peer| choker.handle_interested(peer, FILM, at(0)));
    for second in 0..UNCHOKED_MAX * 3 {
        drain(&mut choker);
        (0..UNCHOKED_MAX * 3).for_each(|peer| choker.handle_full(peer, at(second.into())));
        choker.handle_timeout(at(second.into()));
        assert!(choker.unchoked() <= UNCHOKED_MAX);
    }
    assert_eq!(choker.unchoked(), UNCHOKED_MAX);
    choker.set_slots(0, at(1_000));
    assert_eq!(choker.unchoked(), 0);
}

#[test]
fn nobody_loses_a_slot_that_nobody_wants() {
    let mut choker = Choker::new(2);
    (1..=2).for_each(|peer| choker.handle_interested(peer, FILM, at(0)));
    drain(&mut choker);
    choker.handle_timeout(at(1000));
    assert_eq!(drain(&mut choker), []);
}

#[test]
fn slots_follow_the_allowance() {
    assert_eq!(slots_for(Allowance::Paused), 0);
    assert_eq!(slots_for(Allowance::BytesPerSecond(1)), SLOTS_MIN);
    assert_eq!(slots_for(Allowance::BytesPerSecond(2_500_000)), 13);
    assert_eq!(slots_for(Allowance::BytesPerSecond(u64::MAX)), SLOTS_LIMITED_MAX);
    assert!(slots_for(Allowance::Unlimited) > SLOTS_LIMITED_MAX);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Want(PeerKey),
    Drop(PeerKey),
    Close(PeerKey),
    Took(PeerKey),
    Full(PeerKey),
    Slots(u32),
    Weigh(u64, u32),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u32..20).prop_map(Op::Want),
        1 => (0u32..20).prop_map(Op::Drop),
        1 => (0u32..20).prop_map(Op::Close),
        3 => (0u32..20).prop_map(Op::Took),
        3 => (0u32..20).prop_map(Op::Full),
        1 => (0u32..8).prop_map(Op::Slots),
        1 => (0u64..3, 1u32..40).prop_map(|(content, weight)| Op::Weigh(content, weight)),
        2 => (1u64..40).prop_map(Op::Wait),
    ]
}

proptest! {
    #[test]
    fn never_above_the_slots_and_no_slot_is_free_while_someone_waits(
        ops in prop::collection::vec(op(), 0..200),
    ) {
        let (mut now, mut slots) = (at(0), 3u32);
        let mut choker = Choker::new(slots);
        let (mut wanting, mut unchoked) = (BTreeSet::new(), BTreeSet::new());
        for op in ops {
            match op {
                Op::Want(p) => { wanting.insert(p); choker.handle_interested(p, content_of(p), now); }
                Op::Drop(p) => { wanting.remove(&p); choker.handle_not_interested(p, now); }
                Op::Close(p) => {
                    wanting.remove(&p);
                    unchoked.remove(&p);
                    choker.handle_closed(p, now);
                }
                Op::Took(p) => choker.handle_took(p, now),
                Op::Full(p) => choker.handle_full(p, now),
                Op::Weigh(content, weight) => {
                    choker.set_weight(ContentKey::numbered(content), weight);
                }
                Op::Slots(n) => { slots = n; choker.set_slots(n, now); }
                Op::Wait(s) => { now = now + Duration::from_secs(s); choker.handle_timeout(now); }
            }
            // The decisions, as peers see them, never leave more unchoked than there are slots
            // once all are carried out, and alternate for each peer.
            while let Some(decision) = choker.poll_decision() {
                match decision {
                    Decision::Unchoke(p) => prop_assert!(unchoked.insert(p)),
                    Decision::Choke(p) => prop_assert!(unchoked.remove(&p)),
                }
            }
            prop_assert!(unchoked.is_subset(&wanting));
            prop_assert_eq!(unchoked.len() as u32, choker.unchoked());
            prop_assert!(choker.slots_taken() <= slots);
            prop_assert!(unchoked.len() == wanting.len() || choker.slots_taken() == slots);
            prop_assert!(slots > 0 || unchoked.is_empty());
        }
    }

    #[test]
    fn everyone_gets_a_turn(peers in 1u32..40, slots in 1u32..6) {
        let mut choker = Choker::new(slots);
        (0..peers).for_each(|p| choker.handle_interested(p, FILM, at(0)));
        let mut served = BTreeSet::new();
        let rounds = peers.div_ceil(slots);
        for _ in 0..rounds {
            for decision in drain(&mut choker) {
                if let Decision::Unchoke(p) = decision { served.insert(p); }
            }
            if let Some(t) = choker.poll_timeout() {
                // All are busy to the end of their tenure.
                (0..peers).for_each(|p| choker.handle_took(p, t));
                let tenure_over = choker.poll_timeout().expect("someone waits");
                choker.handle_timeout(tenure_over.max(t));
                while choker.poll_timeout().is_some_and(|next| next <= tenure_over) {
                    choker.handle_timeout(tenure_over);
                }
            }
        }
        for _ in 0..3 * rounds {
            for decision in drain(&mut choker) {
                if let Decision::Unchoke(p) = decision { served.insert(p); }
            }
            if let Some(t) = choker.poll_timeout() { choker.handle_timeout(t); }
        }
        prop_assert_eq!(served.len() as u32, peers);
    }
}

/// What a crowd of peers does, and what each content's peers get.
struct Fair {
    choker: Choker,
    now: Monotonic,
    /// By content: how long its peers have held slots, in tenures.
    turns: Vec<u32>,
    /// By peer: when it was last unchoked.
    unchoked_at: Vec<Monotonic>,
    longest_wait: Vec<Duration>,
}

impl Fair {
    /// So many peers want each content; all are there at once, and take as long as they may.
    fn play(slots: u32, contents: &[(u32, usize)], rotations: usize) -> Fair {
        let mut choker = Choker::new(0);
        let mut of = vec![];
        for (n, (weight, peers)) in contents.iter().enumerate() {
            let content = ContentKey::numbered(n as u64);
            choker.set_weight(content, *weight);
            for _ in 0..*peers {
                choker.handle_interested(of.len() as u32, content, at(0));
                of.push(n);
            }
        }
        let mut fair = Fair {
            choker,
            now: at(0),
            turns: vec![0; contents.len()],
            unchoked_at: vec![at(0); of.len()],
            longest_wait: vec![Duration::ZERO; of.len()],
        };
        fair.choker.set_slots(slots, at(0));
        fair.note(&of);
        for _ in 0..rotations {
            fair.now = fair.now + TENURE;
            (0..of.len()).for_each(|p| fair.choker.handle_took(p as u32, fair.now));
            fair.choker.handle_timeout(fair.now);
            fair.note(&of);
        }
        fair
    }

    fn note(&mut self, of: &[usize]) {
        while let Some(decision) = self.choker.poll_decision() {
            let (Decision::Unchoke(peer) | Decision::Choke(peer)) = decision;
            if let Decision::Unchoke(_) = decision {
                let peer = peer as usize;
                let waited = self.now.saturating_since(self.unchoked_at[peer]);
                self.longest_wait[peer] = self.longest_wait[peer].max(waited);
            }
            self.unchoked_at[peer as usize] = self.now;
        }
        self.choker.holders.keys().for_each(|peer| self.turns[of[*peer as usize]] += 1);
    }
}

#[test]
fn a_heavy_content_gets_more_of_the_slots_and_a_light_one_gets_some() {
    let fair = Fair::play(4, &[(WEIGHT_MAX, 50), (1, 50)], 400);
    assert_eq!(fair.turns[0] + fair.turns[1], 4 * 401);
    let ideal = 4 * 401 / (WEIGHT_MAX + 1);
    assert!(fair.turns[1].abs_diff(ideal) <= 4, "{:?}, ideally {ideal}", fair.turns);
}

#[test]
fn the_only_peer_of_a_heavy_content_keeps_its_slot_until_the_others_turn() {
    let film = FILM;
    let other = ContentKey::numbered(2);
    let mut choker = Choker::new(1);
    choker.set_weight(film, 3);
    choker.handle_interested(1, film, at(0));
    choker.handle_interested(2, other, at(0));
    let mut heard = drain(&mut choker);
    for turn in 1..=5 {
        let now = at(30 * turn);
        (1..=2).for_each(|peer| choker.handle_took(peer, now));
        choker.handle_timeout(now);
        heard.extend(drain(&mut choker));
    }
    // Nobody is told that it is choked and unchoked in one breath.
    let expected = [
        Decision::Unchoke(1),
        Decision::Choke(1),
        Decision::Unchoke(2),
        Decision::Choke(2),
        Decision::Unchoke(1),
        Decision::Choke(1),
        Decision::Unchoke(2),
    ];
    assert_eq!(heard, expected);
}

proptest! {
    #[test]
    fn slots_are_shared_by_weight_and_nobody_starves(
        slots in 1u32..6,
        contents in prop::collection::vec((1u32..=WEIGHT_MAX, 1usize..8), 1..6),
    ) {
        let rotations = 300;
        // Enough peers for each content to use its share.
        let contents: Vec<_> = contents.into_iter().map(|(w, n)| (w, n + slots as usize)).collect();
        let fair = Fair::play(slots, &contents, rotations);
        let weights: u32 = contents.iter().map(|(w, _)| w).sum();
        for (n, (weight, peers)) in contents.iter().enumerate() {
            let all = slots * (rotations as u32 + 1);
            let ideal = f64::from(all * weight) / f64::from(weights);
            let got = f64::from(fair.turns[n]);
            // A turn ahead or behind for each other content, and for each slot.
            prop_assert!((got - ideal).abs() <= f64::from(slots + contents.len() as u32), "{got} of {ideal}");
            // Each of its peers has a turn before any has two, and each turn of the content's comes
            // after as many as the weights say.
            let turns = *peers as f64 * f64::from(weights) / f64::from(*weight) + contents.len() as f64;
            let bound = TENURE.mul_f64((turns / f64::from(slots)).ceil() + 1.0);
            let first = contents[..n].iter().map(|(_, peers)| peers).sum::<usize>();
            for wait in &fair.longest_wait[first..first + peers] {
                prop_assert!(*wait <= bound, "{wait:?} of {bound:?}");
            }
        }
    }
}
