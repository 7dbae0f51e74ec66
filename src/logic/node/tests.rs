use rand::{SeedableRng, rngs::SmallRng};

use super::*;
use crate::logic::{hotlist::HotList, now::WallTime, units::Micros};

const DAY: u64 = 86_400;
const T0: u64 = 1_795_219_200;
const QUOTA: u64 = 1000;
/// As many looks at the list as it may take, by `policy`.
const UNTIL_ANNOUNCED: u64 = 24 * 60;

/// A node, a clock that the test moves, and everything that the node commanded.
struct Bench {
    node: Node<SmallRng>,
    now: Now,
}

impl Bench {
    fn new(stored: Vec<Stored>, followed: Option<(HotList, Policy, UnixSeconds)>) -> Bench {
        Bench::at(stored, followed, WallTime::Synced(UnixSeconds(T0)))
    }

    fn at(
        stored: Vec<Stored>,
        followed: Option<(HotList, Policy, UnixSeconds)>,
        wall: WallTime,
    ) -> Bench {
        Bench::with(true, stored, followed, wall)
    }

    /// No hub is configured.
    fn standalone(stored: Vec<Stored>) -> Bench {
        Bench::with(false, stored, None, WallTime::Unsynced)
    }

    fn with(
        has_operator: bool,
        stored: Vec<Stored>,
        followed: Option<(HotList, Policy, UnixSeconds)>,
        wall: WallTime,
    ) -> Bench {
        let now = Now { monotonic: Monotonic::START, wall };
        let settings = Settings {
            has_operator,
            quota_bytes: QUOTA,
            enrolled: has_operator,
            allowance: allowance::Settings::with_limit(5000),
            line_traffic: Traffic::default(),
            placing: Placing::default(),
        };
        let (traffic, rng) = (Traffic::default(), SmallRng::seed_from_u64(1));
        let node = Node::new(settings, traffic, stored, followed, rng, now);
        Bench { node, now }
    }

    fn event(&mut self, event: Event) -> Vec<Command> {
        self.node.handle_event(event, self.now);
        self.commands()
    }

    fn list(&mut self, list: HotList) -> Vec<Command> {
        let valid_until = UnixSeconds(T0 + DAY);
        self.event(Event::ListVerified { list, policy: policy(), valid_until })
    }

    fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.node.poll_command()).collect()
    }

    /// Lets time pass as the shell would: from deadline to deadline.
    fn pass(&mut self, seconds: u64) -> Vec<Command> {
        let end = self.now.monotonic + Duration::from_secs(seconds);
        let mut commands = vec![];
        for _ in 0..10_000 {
            let due = self.node.poll_timeout(self.now).filter(|due| *due <= end);
            self.advance_to(due.unwrap_or(end));
            self.node.handle_timeout(self.now);
            commands.extend(self.commands());
            if due.is_none() {
                return commands;
            }
        }
        panic!("the node asks to be woken again and again at {:?}", self.now);
    }

    fn advance_to(&mut self, to: Monotonic) {
        let by = to.saturating_since(self.now.monotonic);
        self.now.monotonic = self.now.monotonic.max(to);
        if let WallTime::Synced(wall) = &mut self.now.wall {
            wall.0 += by.as_secs_f64().ceil() as u64;
        }
    }

    fn phase(&self, n: u8) -> Option<Phase> {
        let contents = self.node.snapshot().contents;
        contents.into_iter().find(|c| c.infohash == hash(n)).map(|c| c.phase)
    }
}

fn hash(n: u8) -> Infohash {
    Infohash([n; 20])
}

fn entry(n: u8, size_bytes: u64) -> Entry {
    Entry {
        infohash: hash(n),
        name: format!("film-{n}.mp4"),
        size_bytes,
        score: 1.0,
        lease_end: UnixSeconds(T0 + 7 * DAY),
        price_class: "standard".into(),
        replicas: 1,
        private: false,
        metainfo_url: "http://hub.example/x.torrent".parse().expect("a URL"),
        tracker_tiers: vec![vec!["http://hub.example/announce".parse().expect("a URL")]],
        web_seeds: vec![],
        holders: vec![],
    }
}

fn list(epoch: u64, entries: Vec<Entry>) -> HotList {
    HotList { format: 1, epoch, published_at: UnixSeconds(T0), devices: None, entries }
}

fn policy() -> Policy {
    Policy {
        format: 1,
        currency: "CNY".into(),
        price_per_gb: [("standard".to_owned(), Micros(1))].into(),
        list_interval_seconds: 60,
        report_interval_seconds: 900,
        statement_keys: vec![],
        reflector: None,
        private_web_seeds: vec![],
    }
}

fn stored(n: u8, size_bytes: u64, complete: bool) -> Stored {
    let part = Part::whole();
    Stored { infohash: hash(n), size_bytes, complete, part, pinned: false, linked: false }
}

fn pinned(n: u8, size_bytes: u64) -> Stored {
    Stored { pinned: true, ..stored(n, size_bytes, true) }
}

fn fills(commands: &[Command]) -> Vec<Infohash> {
    let fill = |c: &Command| match c {
        Command::Fill { entry, .. } => Some(entry.infohash),
        _ => None,
    };
    commands.iter().filter_map(fill).collect()
}

fn announces(commands: &[Command]) -> Vec<AnnounceEvent> {
    let announce = |c: &Command| match c {
        Command::Announce { event, .. } => Some(*event),
        _ => None,
    };
    commands.iter().filter_map(announce).collect()
}

#[test]
fn fills_one_after_another_then_serves_and_announces() {
    let mut bench = Bench::new(vec![], None);
    let commands = bench.list(list(1, vec![entry(1, 100), entry(2, 100)]));
    assert_eq!(fills(&commands), [hash(1)]);
    let commands = bench.event(Event::FillCompleted(hash(1)));
    assert_eq!(fills(&commands), [hash(2)]);
    assert_eq!(bench.phase(1), Some(Phase::Serving));
    assert_eq!(announces(&bench.pass(0)), [AnnounceEvent::Completed]);
    let interval = Duration::from_secs(1800);
    bench.event(Event::Announced { infohash: hash(1), interval });
    assert_eq!(announces(&bench.pass(2000)), [AnnounceEvent::None]);
}

#[test]
fn serves_at_start_what_the_remembered_list_still_leases() {
    let followed = (list(4, vec![entry(1, 100)]), policy(), UnixSeconds(T0 - 1));
    let mut bench = Bench::new(vec![stored(1, 100, true)], Some(followed));
    let commands = bench.commands();
    assert!(commands.contains(&Command::Serve(hash(1))), "{commands:?}");
    assert_eq!(announces(&bench.pass(UNTIL_ANNOUNCED)), [AnnounceEvent::Started]);
}

#[test]
fn fills_nothing_new_on_a_list_whose_timestamp_has_expired() {
    let followed = (list(4, vec![entry(1, 100)]), policy(), UnixSeconds(T0 - 1));
    let mut bench = Bench::new(vec![], Some(followed));
    assert_eq!(fills(&bench.commands()), []);
    assert_eq!(fills(&bench.pass(3600)), []);
    let commands = bench.list(list(5, vec![entry(1, 100)]));
    assert_eq!(fills(&commands), [hash(1)]);
}

#[test]
fn ends_a_lease_by_itself_without_the_hub() {
    let followed = (list(4, vec![entry(1, 100)]), policy(), UnixSeconds(T0 + DAY));
    let mut bench = Bench::new(vec![stored(1, 100, true)], Some(followed));
    bench.pass(UNTIL_ANNOUNCED);
    bench.event(Event::Announced { infohash: hash(1), interval: Duration::from_secs(3600) });
    let commands = bench.pass(7 * DAY - 10 - UNTIL_ANNOUNCED);
    assert!(!commands.contains(&Command::Evict(hash(1))));
    let commands = bench.pass(20);
    assert!(commands.contains(&Command::Evict(hash(1))), "{commands:?}");
    assert!(announces(&commands).contains(&AnnounceEvent::Stopped));
}

#[test]
fn evicts_what_the_list_no_longer_names_even_in_mid_fill() {
    let mut bench = Bench::new(vec![], None);
    bench.list(list(1, vec![entry(1, 100)]));
    let commands = bench.list(list(2, vec![]));
    assert!(commands.contains(&Command::Evict(hash(1))));
    bench.event(Event::Evicted(hash(1)));
    assert_eq!(bench.phase(1), None);
}

#[test]
fn fills_again_what_comes_back_while_it_is_being_evicted() {
    let mut bench = Bench::new(vec![], None);
    bench.list(list(1, vec![entry(1, 100)]));
    bench.list(list(2, vec![]));
    assert_eq!(fills(&bench.list(list(3, vec![entry(1, 100)]))), []);
    assert_eq!(fills(&bench.event(Event::Evicted(hash(1)))), [hash(1)]);
}

#[test]
fn fills_nothing_into_room_that_is_not_free_yet() {
    let mut bench = Bench::new(vec![stored(1, QUOTA, true)], None);
    let commands = bench.list(list(1, vec![entry(2, 100)]));
    assert!(commands.contains(&Command::Evict(hash(1))));
    assert_eq!(fills(&commands), []);
    assert_eq!(fills(&bench.event(Event::Evicted(hash(1)))), [hash(2)]);
}

#[test]
fn says_why_a_content_larger_than_the_quota_is_not_held() {
    let mut bench = Bench::new(vec![], None);
    let commands = bench.list(list(1, vec![entry(1, QUOTA + 1), entry(2, 10)]));
    assert_eq!(fills(&commands), [hash(2)]);
    let snapshot = bench.node.snapshot();
    let refused = snapshot.contents.iter().find(|c| c.infohash == hash(1)).expect("shown");
    let problem = refused.problem.as_ref().expect("a reason");
    assert!(problem.contains("quota"), "{problem}");
}

#[test]
fn tries_a_failed_fill_again_and_others_meanwhile() {
    let mut bench = Bench::new(vec![], None);
    bench.list(list(1, vec![entry(1, 100), entry(2, 100)]));
    let failed = Event::FillFailed { infohash: hash(1), problem: "x".into(), retryable: true };
    assert_eq!(fills(&bench.event(failed)), [hash(2)]);
    assert_eq!(fills(&bench.pass(10)), []);
    assert_eq!(fills(&bench.event(Event::FillCompleted(hash(2)))), [hash(1)]);
}

#[test]
fn resumes_what_a_restart_interrupted() {
    let followed = (list(4, vec![entry(1, 100)]), policy(), UnixSeconds(T0 + DAY));
    let mut bench = Bench::new(vec![stored(1, 100, false)], Some(followed));
    assert_eq!(fills(&bench.commands()), [hash(1)]);
}

#[test]
fn judges_no_lease_under_an_unknown_time() {
    let followed = (list(4, vec![entry(1, 100)]), policy(), UnixSeconds(T0 + DAY));
    let mut bench = Bench::at(vec![stored(1, 100, true)], Some(followed), WallTime::Unsynced);
    let commands = [bench.commands(), bench.pass(3600)].concat();
    assert!(!commands.iter().any(|c| matches!(c, Command::Serve(_) | Command::Evict(_))));
    bench.now.wall = WallTime::Synced(UnixSeconds(T0));
    assert!(bench.event(Event::ListUnchanged).contains(&Command::Serve(hash(1))));
}

#[test]
fn a_lease_that_ended_while_the_time_was_lost_ends_when_it_is_known_again() {
    let followed = (list(4, vec![entry(1, 100)]), policy(), UnixSeconds(T0 + DAY));
    let mut bench = Bench::new(vec![stored(1, 100, true)], Some(followed));
    assert!(bench.commands().contains(&Command::Serve(hash(1))));
    bench.now.wall = WallTime::Unsynced;
    let without = bench.pass(8 * DAY);
    assert!(!without.contains(&Command::Evict(hash(1))), "nobody can tell");
    bench.now.wall = WallTime::Synced(UnixSeconds(T0 + 8 * DAY));
    assert_eq!(bench.node.poll_timeout(bench.now), Some(bench.now.monotonic), "at once");
    assert!(bench.pass(1).contains(&Command::Evict(hash(1))));
}

#[test]
fn pauses_at_once_and_goes_on_by_itself() {
    let mut bench = Bench::new(vec![], None);
    bench.commands();
    let end = bench.now.monotonic + Duration::from_secs(900);
    let paused = bench.event(Event::PauseSet(Pause::Until(end)));
    assert_eq!(paused, [Command::SetAllowance(Allowance::Paused)]);
    let slider = bench.event(Event::LimitSet { egress_bytes_per_second_max: 7000 });
    assert_eq!(slider, [], "the pause goes before it");
    let resumed = bench.pass(901);
    assert!(resumed.contains(&Command::SetAllowance(Allowance::BytesPerSecond(7000))));
    assert_eq!(bench.node.snapshot().allowance.pause, Pause::Off);
}

/// How often it looks at the list in an hour, if `answer` is what comes of it.
fn looks_in_an_hour(bench: &mut Bench, answer: fn() -> Event) -> usize {
    let mut looks = 0;
    for _ in 0..3600 {
        if bench.pass(1).contains(&Command::FetchList) {
            looks += 1;
            bench.event(answer());
        }
    }
    looks
}

#[test]
fn asks_a_dead_hub_hardly_more_often_than_a_living_one() {
    let mut bench = Bench::new(vec![], None);
    bench.list(list(1, vec![]));
    let alive = looks_in_an_hour(&mut bench, || Event::ListUnchanged);
    assert!((60..=120).contains(&alive), "every 30 to 60 seconds: {alive}");
    let dead = looks_in_an_hour(&mut bench, || Event::ListFailed);
    assert!((alive * 9 / 10..=alive * 13 / 10).contains(&dead), "{dead} against {alive}");
}

#[test]
fn asks_again_at_once_whoever_holds_the_question() {
    let mut bench = Bench::new(vec![], None);
    bench.list(list(1, vec![]));
    bench.event(Event::ListHeld(true));
    assert!(looks_in_an_hour(&mut bench, || Event::ListUnchanged) > 1200);
    let news = || Event::ListVerified {
        list: list(1, vec![]),
        policy: policy(),
        valid_until: UnixSeconds(T0 + DAY),
    };
    let looks = looks_in_an_hour(&mut bench, news);
    assert!((360..=720).contains(&looks), "not every second, whatever changes: {looks}");
}

#[test]
fn a_revocation_needs_no_clock() {
    let followed = (list(4, vec![entry(1, 100)]), policy(), UnixSeconds(T0 + DAY));
    let held = vec![stored(1, 100, true), pinned(2, 100)];
    let mut bench = Bench::at(held, Some(followed), WallTime::Synced(UnixSeconds(T0)));
    assert!(bench.commands().contains(&Command::Serve(hash(1))));
    bench.now.wall = WallTime::Unsynced;
    assert!(!bench.list(list(5, vec![entry(1, 100)])).contains(&Command::Evict(hash(1))));
    let commands = bench.list(list(6, vec![]));
    let evicted: Vec<_> = commands.iter().filter(|c| matches!(c, Command::Evict(_))).collect();
    assert_eq!(evicted, [&Command::Evict(hash(1))]);
}

#[test]
fn enrols_again_when_the_hub_has_forgotten_it() {
    let mut bench = Bench::new(vec![], None);
    bench.list(list(1, vec![]));
    bench.pass(60);
    bench.event(Event::NotEnrolled);
    assert!(!bench.node.snapshot().enrolled);
    let commands = bench.pass(900);
    assert!(commands.contains(&Command::Enrol) && !commands.contains(&Command::Report));
    bench.event(Event::Enrolled);
    bench.event(Event::ReportsDelivered);
    assert!(bench.pass(1000).contains(&Command::Report));
}

#[test]
fn serves_a_pin_without_hub_list_or_clock_and_asks_nobody() {
    let mut bench = Bench::standalone(vec![pinned(1, 100), stored(2, 100, true)]);
    let commands = [bench.commands(), bench.pass(DAY)].concat();
    let limit = Command::SetAllowance(Allowance::BytesPerSecond(5000));
    assert_eq!(commands, [limit, Command::Serve(hash(1))]);
    assert_eq!(bench.phase(1), Some(Phase::Serving));
}

#[test]
fn announces_a_pin_only_while_the_list_leases_it_and_never_evicts_it() {
    let mut bench = Bench::new(vec![pinned(1, 100)], None);
    let start = [bench.commands(), bench.pass(60)].concat();
    assert_eq!(announces(&start), []);
    bench.list(list(1, vec![entry(1, 100)]));
    assert_eq!(announces(&bench.pass(UNTIL_ANNOUNCED)), [AnnounceEvent::Started]);
    bench.event(Event::Announced { infohash: hash(1), interval: Duration::from_secs(3600) });
    let taken_off = bench.list(list(2, vec![]));
    assert_eq!(announces(&taken_off), [AnnounceEvent::Stopped]);
    bench.list(list(3, vec![entry(1, 100)]));
    let lease_ended = bench.pass(8 * DAY);
    assert!(announces(&lease_ended).contains(&AnnounceEvent::Started));
    let all = [taken_off, lease_ended].concat();
    assert!(!all.contains(&Command::Evict(hash(1))), "{all:?}");
    assert_eq!(bench.phase(1), Some(Phase::Serving));
    assert_eq!(bench.node.snapshot().contents[0].entry, None, "the lease has ended");
}

#[test]
fn does_not_fill_again_what_the_owner_removed_until_it_is_allowed() {
    let mut bench = Bench::new(vec![stored(1, 10, true)], None);
    bench.list(list(1, vec![entry(1, 10), entry(2, 10)]));
    let removal = |removed| Event::Removal { infohash: hash(1), removed };
    assert!(bench.event(removal(true)).contains(&Command::Evict(hash(1))));
    bench.event(Event::Evicted(hash(1)));
    bench.event(Event::FillCompleted(hash(2)));
    bench.list(list(2, vec![entry(1, 10), entry(2, 10)]));
    assert_eq!(bench.node.unwanted().len(), 1);
    let contents = bench.node.snapshot().contents;
    let removed = contents.iter().find(|c| c.infohash == hash(1)).expect("still shown");
    assert_eq!((removed.problem.is_none(), removed.waits.is_some()), (true, true));
    let back = bench.event(removal(false));
    assert_eq!(fills(&back), [hash(1)]);
}

#[test]
fn removes_even_a_pin_without_a_list() {
    let mut bench = Bench::standalone(vec![pinned(1, 10)]);
    bench.commands();
    let commands = bench.event(Event::Removal { infohash: hash(1), removed: true });
    assert_eq!(commands, [Command::Evict(hash(1))]);
}

#[test]
fn fills_wait_while_a_budget_is_used_up_and_go_on_the_next_day() {
    let mut bench = Bench::new(vec![], None);
    let day_max = 100 << 20;
    bench.node.placing.budgets = Some(placement::Budgets {
        fill_bytes_per_day_max: Some(day_max),
        ..placement::Budgets::none(QUOTA)
    });
    let commands = bench.list(list(1, vec![entry(1, 10), entry(2, 10)]));
    let left = |c: &Command| match c {
        Command::Fill { bytes_max, .. } => Some(*bytes_max),
        _ => None,
    };
    assert_eq!(commands.iter().find_map(left), Some(day_max));
    let counted = |ingress_bytes_total| {
        Event::Counted(Counters { ingress_bytes_total, ..Counters::default() })
    };
    bench.event(counted(day_max));
    let commands = bench.event(Event::FillCompleted(hash(1)));
    assert_eq!(commands.iter().find_map(left), None);
    let waits = bench.node.snapshot().contents.into_iter().find_map(|c| c.waits).expect("says why");
    assert!(waits.starts_with("today's 100.0 MiB of fills are used up"), "{waits}");
    bench.pass(DAY / 2);
    assert_eq!(bench.event(counted(day_max)).iter().find_map(left), None);
    // The list is verified again, or nothing would be filled on it.
    bench.pass(DAY / 2 - 60);
    let valid_until = UnixSeconds(T0 + 3 * DAY);
    let list = list(1, vec![entry(1, 10), entry(2, 10)]);
    bench.event(Event::ListVerified { list, policy: policy(), valid_until });
    bench.pass(120);
    assert_eq!(
        bench.event(counted(day_max)).iter().find_map(left).or(Some(day_max)),
        Some(day_max)
    );
    assert_eq!(bench.phase(2), Some(Phase::Filling));
}

#[test]
fn fills_only_the_part_that_the_list_gives_this_device() {
    let mut bench = Bench::new(vec![], None);
    bench.node.placing.tag = Some(7);
    let shared = Entry { holders: vec![vec![5], vec![7, 8]], ..entry(1, 100) };
    let elsewhere = Entry { holders: vec![vec![5]], ..entry(2, 100) };
    let commands = bench.list(list(1, vec![shared, elsewhere]));
    let parts: Vec<_> = commands
        .iter()
        .filter_map(|c| match c {
            Command::Fill { entry, part, .. } => Some((entry.infohash, *part)),
            _ => None,
        })
        .collect();
    assert_eq!(parts, [(hash(1), Part::of(50..100))]);
    assert_eq!(bench.node.snapshot().contents.len(), 1, "what is for others is not shown");
}

#[test]
fn what_is_damaged_goes_on_being_served_and_is_filled_again() {
    let followed = (list(4, vec![entry(1, 100)]), policy(), UnixSeconds(T0 + DAY));
    let mut bench = Bench::new(vec![stored(1, 100, true)], Some(followed));
    bench.pass(0);
    let commands = bench.event(Event::Damaged(hash(1)));
    assert_eq!(
        commands,
        [Command::Fill { entry: entry(1, 100), part: Part::whole(), bytes_max: u64::MAX }],
        "nothing is taken from its peers"
    );
    assert_eq!(bench.event(Event::Damaged(hash(1))), [], "it is being filled already");
    bench.event(Event::FillCompleted(hash(1)));
    assert_eq!(bench.phase(1), Some(Phase::Serving));
}

#[test]
fn a_damaged_pin_is_mended_from_the_list_but_never_the_owners_own_file() {
    let followed = || Some((list(4, vec![entry(1, 100)]), policy(), UnixSeconds(T0 + DAY)));
    let mut copied = Bench::new(vec![pinned(1, 100)], followed());
    copied.pass(0);
    assert_eq!(fills(&copied.event(Event::Damaged(hash(1)))), [hash(1)]);
    let owners = Stored { linked: true, ..pinned(1, 100) };
    let mut linked = Bench::new(vec![owners.clone()], followed());
    linked.pass(0);
    assert_eq!(fills(&linked.event(Event::Damaged(hash(1)))), []);
    let problem = linked.node.snapshot().contents[0].problem.clone().expect("the owner is told");
    assert!(problem.contains("preload it again"), "{problem}");

    let damaged = Stored { complete: false, ..owners };
    let mut restarted = Bench::standalone(vec![damaged]);
    assert!(restarted.commands().contains(&Command::Serve(hash(1))), "the rest is served");
    assert!(restarted.node.snapshot().contents[0].problem.is_some());
}

#[test]
fn tries_a_failed_fill_at_once_when_the_disk_is_well_again() {
    let mut bench = Bench::new(vec![], None);
    bench.list(list(1, vec![entry(1, 100)]));
    let failed = Event::FillFailed { infohash: hash(1), problem: "x".into(), retryable: true };
    assert_eq!(fills(&bench.event(failed)), []);
    assert_eq!(fills(&bench.event(Event::DiskWell)), [hash(1)]);
}
