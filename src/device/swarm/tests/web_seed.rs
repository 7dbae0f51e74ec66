//! Web seeds that misbehave: each costs the fill a bounded number of bytes and requests, and no wrong
//! byte is ever stored.

use super::{
    support::{Content, Fault, MemorySink, Origin, PIECE, directory, single_file},
    *,
};
use crate::logic::reach::Refused;

async fn fill(bench: &Bench, content: &Content, origin: &Origin) -> Result<FillOutcome, FillError> {
    let sink = MemorySink::new(content);
    let result = bench.fill_from(Route::Direct, content, &sink, &[origin]).await;
    assert_eq!(result.is_ok(), sink.data() == content.data);
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_for_long_ranges_several_at_once() {
    let content = single_file(40 * 1024 * 1024 - 5);
    let origin = Origin::start(&content, Fault::None).await;
    fill(&Bench::new(), &content, &origin).await.expect("fills");
    let mut requests = origin.requests();
    requests.sort_unstable();
    let mib = 1024 * 1024;
    let last = content.total() - 1;
    assert_eq!(requests, [(0, 16 * mib - 1), (16 * mib, 32 * mib - 1), (32 * mib, last)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lives_with_servers_that_are_merely_odd() {
    let content = single_file(30 * u64::from(PIECE) - 3);
    for fault in [Fault::Busy(3), Fault::Endless, Fault::Less, Fault::NewTagEachTime] {
        let origin = Origin::start(&content, fault.clone()).await;
        let result = fill(&Bench::new(), &content, &origin).await;
        assert!(result.is_ok(), "{fault:?}: {result:?}");
        assert!(origin.requests().len() <= 12, "{fault:?}: {} requests", origin.requests().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_can_give_a_whole_file_and_no_part_of_it() {
    let content = single_file(5 * u64::from(PIECE));
    let origin = Origin::start(&content, Fault::IgnoresRanges).await;
    fill(&Bench::new(), &content, &origin).await.expect("all of it is what was asked for");
    let sink = MemorySink::holding(&content, 1);
    let result = Bench::new().fill_from(Route::Direct, &content, &sink, &[&origin]).await;
    assert_eq!(web_seed_problem(result), WebSeedProblem::NoRanges);
}

#[tokio::test(flavor = "multi_thread")]
async fn gives_up_servers_that_are_of_no_use_after_few_requests() {
    let content = single_file(30 * u64::from(PIECE));
    for (fault, expected) in [
        (Fault::BusyFor("3600"), WebSeedProblem::Busy(Duration::from_secs(3600))),
        (Fault::Compresses, WebSeedProblem::Encoded("gzip".into())),
        (Fault::OtherRange, WebSeedProblem::WrongRange),
        (Fault::Trickles, WebSeedProblem::Trickles),
    ] {
        let origin = Origin::start(&content, fault.clone()).await;
        let mut settings = FillSettings::new(tempfile::tempdir().expect("a folder").path().into());
        settings.read_timeout = Duration::from_millis(300);
        settings.retry_first = Duration::from_millis(1);
        settings.retry_longest = Duration::from_millis(2);
        settings.attempts_max = 3;
        let scratch = tempfile::tempdir().expect("a folder");
        let bench = Bench::with(settings, scratch, Throttle::new(None));
        let problem = web_seed_problem(fill(&bench, &content, &origin).await);
        match (&problem, &expected) {
            // What is left of it by then.
            (WebSeedProblem::Busy(left), WebSeedProblem::Busy(all)) => assert!(left <= all),
            _ => assert_eq!(problem, expected),
        }
        assert!(origin.requests().len() <= 3, "{fault:?}: {} requests", origin.requests().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_an_hour_is_left_alone_by_the_next_fill_too() {
    let content = single_file(3 * u64::from(PIECE));
    let origin = Origin::start(&content, Fault::BusyFor("3600")).await;
    let bench = Bench::new();
    for _ in 0..3 {
        let problem = web_seed_problem(fill(&bench, &content, &origin).await);
        assert!(matches!(problem, WebSeedProblem::Busy(_)), "{problem:?}");
    }
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_at_the_origin_costs_a_piece_once_and_then_next_to_nothing() {
    // Two runs in one file, one after the other: the second answer is of another file.
    let content = single_file(20 * 1024 * 1024);
    let origin = Origin::start(&content, Fault::ChangesAfter(1)).await;
    let bench = Bench::new();
    let sink = MemorySink::new(&content);
    let result = bench.fill_from(Route::Direct, &content, &sink, &[&origin]).await;
    assert!(matches!(web_seed_problem(result), WebSeedProblem::Poisoned { .. }));
    let requests = origin.requests().len();
    assert!(requests <= 5, "{requests} requests");
    // Later fills see the same ETag and read no body.
    let served = origin.served_bytes();
    for _ in 0..3 {
        let result = bench.fill_from(Route::Direct, &content, &sink, &[&origin]).await;
        assert!(matches!(web_seed_problem(result), WebSeedProblem::Poisoned { .. }));
    }
    assert!(origin.requests().len() <= requests + 6, "{} requests", origin.requests().len());
    assert!(bench.filler.throttle().received_bytes() <= served);
}

fn refused(problem: &WebSeedProblem) -> Option<&Refused> {
    match problem {
        WebSeedProblem::Refused(refused) => Some(refused),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_redirects_to_public_or_named_networks_alone() {
    let content = single_file(5 * u64::from(PIECE));
    let good = Origin::start(&content, Fault::None).await;
    let there = Fault::RedirectsTo(format!("{}film", good.url()));
    let here = Origin::start(&content, there).await;
    fill(&Bench::new(), &content, &here).await.expect("one hop is fine");
    // The policy of these tests names 127.0.0.0/8 and nothing else.
    for inside in
        ["http://192.168.1.1/", "http://[::1]:1/", "http://0x0a.1/", "http://169.254.169.254/"]
    {
        let origin = Origin::start(&content, Fault::RedirectsTo(inside.into())).await;
        let problem = web_seed_problem(fill(&Bench::new(), &content, &origin).await);
        let is_refused = matches!(refused(&problem), Some(Refused::Private { .. }));
        assert!(is_refused, "{inside}: {problem:?}");
    }
    let origin = Origin::start(&content, Fault::RedirectsTo("file:///etc/passwd".into())).await;
    let problem = web_seed_problem(fill(&Bench::new(), &content, &origin).await);
    assert!(matches!(refused(&problem), Some(Refused::Scheme(_))), "{problem:?}");
    let origin = Origin::start(&content, Fault::Redirects).await;
    let problem = web_seed_problem(fill(&Bench::new(), &content, &origin).await);
    assert_eq!(problem, Refused::TooManyRedirects.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn never_asks_a_private_address_that_no_policy_names() {
    let content = single_file(u64::from(PIECE));
    let origin = Origin::start(&content, Fault::None).await;
    let bench = Bench::new();
    bench.filler.outbound.set_private(vec![]);
    let result = fill(&bench, &content, &origin).await.expect_err("refused");
    assert_eq!(result.fault(), fault::Fault::Operator);
    assert!(result.to_string().contains("private_web_seeds"), "{result}");
    assert_eq!(origin.requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_in_a_torrent_stay_segments_of_a_url() {
    let content = directory(&[
        (&["..", "..", "etc", "passwd"], 100_000),
        (&["/etc/shadow"], 5),
        (&["a\0b"], 10),
        (&["c", "d.bin"], 100_000),
    ]);
    // The origin knows its files by what a server sees; `..` is resolved by the URL's rules, so
    // the first file is not found there, and nothing is.
    let origin = Origin::start(&content, Fault::None).await;
    let sink = MemorySink::new(&content);
    let bench = Bench::new();
    let result = bench.fill_from(Route::Direct, &content, &sink, &[&origin]).await;
    assert!(result.is_ok() || matches!(web_seed_problem(result), WebSeedProblem::Status(404)));
    assert_eq!(std::fs::read_dir(bench._scratch.path()).expect("lists").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_holds_over_the_whole_fill() {
    let content = single_file(16 * u64::from(PIECE));
    let origin = Origin::start(&content, Fault::None).await;
    let rate = content.total();
    for route in BOTH {
        let scratch = tempfile::tempdir().expect("a folder");
        let mut settings = FillSettings::new(scratch.path().into());
        settings.hold_back = Duration::from_millis(50);
        let bench = Bench::with(settings, scratch, Throttle::new(Some(rate)));
        let sink = MemorySink::new(&content);
        let started = Instant::now();
        bench.fill_from(route, &content, &sink, &[&origin]).await.expect("fills");
        // Half a second's bytes are asked for at once, and a quarter may have been saved up; librqbit
        // may begin with a whole one's.
        let took = started.elapsed();
        let least = Duration::from_millis(if matches!(route, Route::Direct) { 240 } else { 0 });
        assert!(took >= least, "{route:?}: {took:?}");
        assert_eq!(bench.filler.throttle().received_bytes(), content.total(), "{route:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_reach_the_disk_in_whole_runs_by_either_route() {
    const RUN: u64 = 1024 * 1024;
    let content = single_file(24 * RUN + 12_345);
    let origin = Origin::start(&content, Fault::None).await;
    for route in BOTH {
        let scratch = tempfile::tempdir().expect("a folder");
        let mut settings = FillSettings::new(scratch.path().into());
        settings.hold_back = Duration::from_millis(50);
        assert_eq!(settings.write_run_bytes, RUN);
        let bench = Bench::with(settings, scratch, Throttle::new(None));
        let sink = MemorySink::new(&content);
        bench.fill_from(route, &content, &sink, &[&origin]).await.expect("fills");
        let writes = sink.writes();
        let all: u64 = writes.iter().map(|(_, length)| length).sum();
        let long: u64 = writes.iter().map(|(_, n)| n).filter(|n| **n >= RUN).sum();
        assert_eq!(all, content.total(), "{route:?}: each byte is written once");
        assert!(long * 100 >= all * 95, "{route:?}: {long} of {all} bytes in long runs");
        let aligned = |(offset, length): &(u64, u64)| *length < RUN || offset % RUN == 0;
        assert!(writes.iter().all(aligned), "{route:?}: {writes:?}");
    }
}
