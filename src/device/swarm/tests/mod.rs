//! Fills against a real HTTP server and real BitTorrent peers on loopback.

mod support;
mod web_seed;

use axum::http::StatusCode;
use nix::libc;
use tempfile::TempDir;
use tokio::time::timeout;

use self::support::{
    Content, Fault, MemorySink, Origin, PIECE, Seeder, dead_peer, directory, gossip, single_file,
};
use super::*;
use crate::logic::{fault, placement::Part, reach::Reach};

/// A fill that takes longer has hung: nothing in these tests waits for anything this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the web seed's bytes travel.
#[derive(Clone, Copy, Debug)]
enum Route {
    /// HTTP alone.
    Direct,
    /// Through librqbit, which also has a peer to try.
    Engine,
}

const BOTH: [Route; 2] = [Route::Direct, Route::Engine];

impl Route {
    fn peers(self) -> Vec<SocketAddr> {
        match self {
            Route::Direct => vec![],
            Route::Engine => vec![dead_peer()],
        }
    }
}

struct Bench {
    filler: Filler,
    _scratch: TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_stall_timeout(Duration::from_secs(20))
    }

    fn with_stall_timeout(stall_timeout: Duration) -> Bench {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let mut settings = FillSettings::new(scratch.path().to_owned());
        settings.stall_timeout = stall_timeout;
        settings.retry_first = Duration::from_millis(1);
        settings.retry_longest = Duration::from_millis(5);
        settings.attempts_max = 3;
        settings.busy_wait_max = Duration::from_secs(2);
        settings.hold_back = Duration::from_millis(50);
        settings.write_run_bytes = u64::from(PIECE);
        Bench::with(settings, scratch, Throttle::new(None))
    }

    fn with(settings: FillSettings, scratch: TempDir, throttle: Throttle) -> Bench {
        let hub = reqwest::Client::builder().tls_certs_only([]).build().expect("a client");
        let outbound = Outbound::new(hub, Reach::default()).expect("a client");
        outbound.set_private(vec!["127.0.0.0/8".parse().expect("a network")]);
        Bench { filler: Filler::new(settings, outbound, throttle), _scratch: scratch }
    }

    async fn fill(&self, job: FillJob) -> Result<FillOutcome, FillError> {
        let fill = self.filler.fill(job, CancellationToken::new());
        timeout(PATIENCE, fill).await.expect("the fill ends")
    }

    async fn fill_from(
        &self,
        route: Route,
        content: &Content,
        sink: &Arc<MemorySink>,
        origins: &[&Origin],
    ) -> Result<FillOutcome, FillError> {
        let web_seeds = origins.iter().map(|o| o.url()).collect();
        self.fill(FillJob { web_seeds, peers: route.peers(), ..content.job(sink) }).await
    }
}

fn web_seed_problem(result: Result<FillOutcome, FillError>) -> WebSeedProblem {
    match result {
        Err(FillError::WebSeed { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fills_from_the_web_seed() {
    for route in BOTH {
        let content = single_file(20 * u64::from(PIECE) - 5);
        let origin = Origin::start(&content, Fault::None).await;
        let sink = MemorySink::new(&content);
        let outcome =
            Bench::new().fill_from(route, &content, &sink, &[&origin]).await.expect("fills");
        assert_eq!(outcome, FillOutcome { web_seed_bytes: content.total(), peer_bytes: 0 });
        assert_eq!(sink.data(), content.data, "{route:?}");
        assert_eq!(sink.bytes_from(FillSource::WebSeed), content.total());
        assert_eq!(origin.served_bytes(), content.total(), "{route:?}: no byte fetched twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fills_a_directory_whose_files_share_pieces() {
    for route in BOTH {
        let content = directory(&[
            (&["a.bin"], 100_000),
            (&["empty"], 0),
            (&["sub", "b c.bin"], 5),
            (&["z.bin"], 200_000),
        ]);
        let origin = Origin::start(&content, Fault::None).await;
        let sink = MemorySink::new(&content);
        Bench::new().fill_from(route, &content, &sink, &[&origin]).await.expect("fills");
        assert_eq!(sink.data(), content.data, "{route:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fills_from_another_device_when_there_is_no_web_seed() {
    let content = single_file(20 * u64::from(PIECE));
    let seeder = Seeder::start(&content, false).await;
    let sink = MemorySink::new(&content);
    let job = FillJob { peers: vec![seeder.address], ..content.job(&sink) };
    let outcome = Bench::new().fill(job).await.expect("fills");
    assert_eq!(outcome, FillOutcome { web_seed_bytes: 0, peer_bytes: content.total() });
    assert_eq!(sink.data(), content.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_each_piece_for_the_source_that_supplied_it() {
    let content = single_file(60 * u64::from(PIECE) - 7);
    let (seeder, origin) =
        (Seeder::start(&content, false).await, Origin::start(&content, Fault::None).await);
    let sink = MemorySink::new(&content);
    let job = FillJob {
        web_seeds: vec![origin.url()],
        peers: vec![seeder.address],
        ..content.job(&sink)
    };
    let outcome = Bench::new().fill(job).await.expect("fills");
    assert_eq!(sink.data(), content.data);
    assert_eq!(outcome.web_seed_bytes + outcome.peer_bytes, content.total());
    assert_eq!(sink.bytes_from(FillSource::WebSeed), outcome.web_seed_bytes);
    assert_eq!(sink.bytes_from(FillSource::Peer), outcome.peer_bytes);
    assert!(outcome.web_seed_bytes <= origin.served_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_seed_is_not_asked_while_a_device_delivers() {
    let content = single_file(60 * u64::from(PIECE));
    let (seeder, origin) =
        (Seeder::start(&content, false).await, Origin::start(&content, Fault::None).await);
    let sink = MemorySink::new(&content);
    let job = FillJob {
        web_seeds: vec![origin.url()],
        peers: vec![seeder.address],
        ..content.job(&sink)
    };
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let settings = FillSettings::new(scratch.path().to_owned());
    let bench = Bench::with(settings, scratch, Throttle::new(None));
    let outcome = bench.fill(job).await.expect("fills");
    assert_eq!(outcome, FillOutcome { web_seed_bytes: 0, peer_bytes: content.total() });
    assert_eq!(origin.requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_stops_keeps_what_was_verified_and_not_yet_written() {
    let content = single_file(30 * u64::from(PIECE));
    let origin = Origin::start(&content, Fault::HangsFrom(11 * u64::from(PIECE))).await;
    let sink = MemorySink::new(&content);
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut settings = FillSettings::new(scratch.path().to_owned());
    settings.stall_timeout = Duration::from_secs(1);
    // Longer than what comes.
    settings.write_run_bytes = content.total();
    let bench = Bench::with(settings, scratch, Throttle::new(None));
    let result = bench.fill_from(Route::Direct, &content, &sink, &[&origin]).await;
    assert!(matches!(result, Err(FillError::Stalled(_))), "{result:?}");
    assert_eq!(sink.have().held(), 11);
    assert_eq!(sink.writes(), [(0, 11 * u64::from(PIECE))], "in one write");
}

#[tokio::test(flavor = "multi_thread")]
async fn resumes_without_fetching_a_verified_piece_again() {
    for route in BOTH {
        let content = single_file(30 * u64::from(PIECE));
        let origin = Origin::start(&content, Fault::HangsFrom(11 * u64::from(PIECE))).await;
        let sink = MemorySink::new(&content);
        let (bench, cancel) = (Bench::new(), CancellationToken::new());
        let job =
            FillJob { web_seeds: vec![origin.url()], peers: route.peers(), ..content.job(&sink) };
        let interrupt = async {
            sink.wait_for_verified(11).await;
            cancel.cancel();
        };
        let (result, ()) = timeout(PATIENCE, async {
            tokio::join!(bench.filler.fill(job, cancel.clone()), interrupt)
        })
        .await
        .expect("ends");
        assert!(matches!(result, Err(FillError::Cancelled)), "{result:?}");
        assert_eq!(sink.have().held(), 11);
        assert_eq!(origin.served_bytes(), 11 * u64::from(PIECE), "{route:?}");

        let origin = Origin::start(&content, Fault::None).await;
        let outcome = bench.fill_from(route, &content, &sink, &[&origin]).await.expect("fills");
        assert_eq!(outcome.web_seed_bytes, 19 * u64::from(PIECE));
        assert_eq!(origin.served_bytes(), 19 * u64::from(PIECE), "{route:?}");
        assert_eq!(sink.data(), content.data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brings_the_wanted_part_and_nothing_else() {
    for route in BOTH {
        let content = single_file(30 * u64::from(PIECE) - 7);
        let origin = Origin::start(&content, Fault::None).await;
        let sink = MemorySink::holding(&content, 3);
        let part = Part::of(u64::from(PIECE)..u64::from(12 * PIECE) + 99);
        let job = FillJob {
            web_seeds: vec![origin.url()],
            peers: route.peers(),
            wanted: part.pieces(PIECE, content.total()),
            ..content.job(&sink)
        };
        let outcome = Bench::new().fill(job).await.expect("fills");
        let bytes = 9 * u64::from(PIECE);
        assert_eq!(outcome, FillOutcome { web_seed_bytes: bytes, peer_bytes: 0 }, "{route:?}");
        assert_eq!(origin.served_bytes(), bytes, "{route:?}");
        assert_eq!(sink.have().iter_held().collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());

        // It grows later, and ends with the content's short last piece.
        let outcome =
            Bench::new().fill_from(route, &content, &sink, &[&origin]).await.expect("fills");
        assert_eq!(outcome.web_seed_bytes, 18 * u64::from(PIECE) - 7, "{route:?}");
        assert_eq!(sink.data(), content.data, "{route:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_a_part_from_another_device_too() {
    let content = single_file(30 * u64::from(PIECE));
    let seeder = Seeder::start(&content, false).await;
    let sink = MemorySink::new(&content);
    let wanted = Part::of(0..u64::from(9 * PIECE)).pieces(PIECE, content.total());
    let job = FillJob { peers: vec![seeder.address], wanted, ..content.job(&sink) };
    let outcome = Bench::new().fill(job).await.expect("fills");
    assert_eq!(outcome, FillOutcome { web_seed_bytes: 0, peer_bytes: u64::from(9 * PIECE) });
    assert_eq!(sink.have().held(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_using_a_poisoned_web_seed_and_says_so() {
    for route in BOTH {
        let content = single_file(20 * u64::from(PIECE));
        let origin = Origin::start(&content, Fault::WrongFrom(3 * u64::from(PIECE) + 9)).await;
        let sink = MemorySink::new(&content);
        let result = Bench::with_stall_timeout(Duration::from_secs(1))
            .fill_from(route, &content, &sink, &[&origin])
            .await;
        assert_eq!(result.as_ref().map_err(FillError::fault), Err(fault::Fault::Operator));
        assert!(matches!(web_seed_problem(result), WebSeedProblem::Poisoned { .. }));
        assert!(sink.have().iter_held().all(|piece| piece < 3), "{route:?}");
        let poisoned = sink.data()[3 * PIECE as usize..].iter().any(|b| *b != 0);
        assert!(!poisoned, "{route:?}: no wrong byte was ever written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_on_with_the_next_web_seed_when_one_is_no_good() {
    for route in BOTH {
        for fault in [
            Fault::WrongFrom(u64::from(PIECE)),
            Fault::Status(StatusCode::NOT_FOUND),
            Fault::Status(StatusCode::RANGE_NOT_SATISFIABLE),
            Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
            Fault::IgnoresRanges,
            Fault::OtherLength,
            Fault::Redirects,
        ] {
            let content = single_file(10 * u64::from(PIECE));
            let bad = Origin::start(&content, fault.clone()).await;
            let good = Origin::start(&content, Fault::None).await;
            let sink = MemorySink::new(&content);
            let result = Bench::new().fill_from(route, &content, &sink, &[&bad, &good]).await;
            assert!(result.is_ok(), "{route:?} {fault:?}: {result:?}");
            assert_eq!(sink.data(), content.data);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_is_wrong_with_the_web_seed() {
    let content = single_file(5 * u64::from(PIECE));
    for (fault, expected) in [
        (Fault::Status(StatusCode::NOT_FOUND), WebSeedProblem::Status(404)),
        (Fault::Status(StatusCode::SERVICE_UNAVAILABLE), WebSeedProblem::Status(503)),
        (
            Fault::OtherLength,
            WebSeedProblem::WrongLength { expected: content.total(), found: content.total() + 1 },
        ),
    ] {
        let origin = Origin::start(&content, fault).await;
        let sink = MemorySink::new(&content);
        let result = Bench::new().fill_from(Route::Direct, &content, &sink, &[&origin]).await;
        assert_eq!(web_seed_problem(result), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_seed_that_is_down_is_a_network_fault_worth_another_try() {
    let content = single_file(5 * u64::from(PIECE));
    let sink = MemorySink::new(&content);
    let nobody: Url = format!("http://{}/film", dead_peer()).parse().expect("a URL");
    let job = FillJob { web_seeds: vec![nobody], ..content.job(&sink) };
    let error = Bench::new().fill(job).await.expect_err("nobody is there");
    assert!(matches!(&error, FillError::WebSeed { problem: WebSeedProblem::Unreachable(_), .. }));
    assert_eq!((error.fault(), error.is_retryable()), (fault::Fault::Network, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_only_for_the_rest_after_an_answer_broke_off() {
    let content = single_file(u64::from(PIECE));
    let origin = Origin::start(&content, Fault::BreaksOffAfter(1000)).await;
    let sink = MemorySink::new(&content);
    Bench::new().fill_from(Route::Direct, &content, &sink, &[&origin]).await.expect("fills");
    let last = u64::from(PIECE) - 1;
    let [(0, first_last), (resumed, resumed_last)] = origin.requests()[..] else {
        panic!("{:?}", origin.requests())
    };
    assert_eq!((first_last, resumed_last), (last, last));
    assert!((1..=1000).contains(&resumed), "{resumed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_fill_and_keeps_what_was_verified() {
    for route in BOTH {
        let content = single_file(20 * u64::from(PIECE));
        let origin = Origin::start(&content, Fault::None).await;
        let sink = MemorySink::new(&content);
        // Four blocks a piece through the engine, one write a piece without.
        sink.writes_left.store(13, std::sync::atomic::Ordering::SeqCst);
        let error = Bench::new()
            .fill_from(route, &content, &sink, &[&origin])
            .await
            .expect_err("the disk is full");
        let FillError::Sink(cause) = &error else { panic!("{route:?}: {error:?}") };
        assert_eq!(cause.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!((error.fault(), error.is_retryable()), (fault::Fault::Local, true));
        assert!(sink.have().held() > 0 && !sink.have().is_complete());
        sink.writes_left.store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
        Bench::new().fill_from(route, &content, &sink, &[&origin]).await.expect("fills");
        assert_eq!(sink.data(), content.data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_when_nothing_arrives_any_more() {
    for route in BOTH {
        let content = single_file(20 * u64::from(PIECE));
        let origin = Origin::start(&content, Fault::HangsFrom(5 * u64::from(PIECE))).await;
        let sink = MemorySink::new(&content);
        let result = Bench::with_stall_timeout(Duration::from_secs(1))
            .fill_from(route, &content, &sink, &[&origin])
            .await;
        let error = result.expect_err("it hangs");
        assert!(matches!(error, FillError::Stalled(_)), "{route:?}: {error:?}");
        assert!(error.is_retryable());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_nothing_from_a_peer_that_sends_other_bytes() {
    let content = single_file(10 * u64::from(PIECE));
    let liar = Seeder::start(&content, true).await;
    let sink = MemorySink::new(&content);
    let job = FillJob { peers: vec![liar.address], ..content.job(&sink) };
    let error = Bench::with_stall_timeout(Duration::from_secs(2))
        .fill(job)
        .await
        .expect_err("nothing verifies");
    assert!(matches!(error, FillError::Stalled(_) | FillError::BadPeers { .. }), "{error:?}");
    assert!(sink.have().is_empty());

    let origin = Origin::start(&content, Fault::None).await;
    let job =
        FillJob { peers: vec![liar.address], web_seeds: vec![origin.url()], ..content.job(&sink) };
    let outcome = Bench::new().fill(job).await.expect("the web seed has it");
    assert_eq!(outcome, FillOutcome { web_seed_bytes: content.total(), peer_bytes: 0 });
    assert_eq!(sink.data(), content.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn says_that_there_is_no_source() {
    let content = single_file(100);
    let sink = MemorySink::new(&content);
    let error = Bench::new().fill(content.job(&sink)).await.expect_err("no source");
    assert!(matches!(error, FillError::NoSource), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn has_nothing_to_do_for_content_that_is_complete() {
    let content = single_file(100);
    let sink = MemorySink::new(&content);
    let job = FillJob { have: Bitfield::full(1), ..content.job(&sink) };
    assert_eq!(Bench::new().fill(job).await.expect("done"), FillOutcome::default());
}

#[test]
fn touches_neither_verified_pieces_nor_anything_after_the_end() {
    let content = single_file(3 * u64::from(PIECE));
    let sink = MemorySink::new(&content);
    let mut have = Bitfield::empty(3);
    have.set(1);
    let at = u64::from(PIECE);
    let progress =
        Progress::new(content.metainfo.clone(), have, Bitfield::full(3), sink.clone(), 1);
    assert!(progress.write_at(0, &[1; 10]).is_ok());
    assert!(progress.write_at(at, &[]).is_ok());
    for (offset, length) in [(at, 1), (at - 1, 2), (2 * at - 1, 5), (0, 3 * PIECE as usize)] {
        assert!(progress.write_at(offset, &vec![1; length]).is_err(), "{offset} {length}");
    }
    progress.shut();
    assert!(progress.write_at(0, &[2; 10]).is_err());
    assert!(progress.read_at(0, &mut [0; 10]).is_err());
    assert!(progress.piece_completed(0).is_err());
    assert_eq!(sink.data()[..10], [1; 10]);
}

/// A router's image may come without a CA bundle, which librqbit insists on. The test runs itself
/// again as a process that finds none.
#[test]
fn fills_over_plain_http_without_any_ca_certificate() {
    let program = std::env::current_exe().expect("known");
    let run = std::process::Command::new(program)
        .args(["--exact", "device::swarm::tests::fills_from_the_web_seed"])
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/dev/null")
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_nothing_running_behind() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let content = single_file(20 * u64::from(PIECE));
    let origin = Origin::start(&content, Fault::None).await;
    let before = tasks();
    for route in BOTH {
        let sink = MemorySink::new(&content);
        let bench = Bench::new();
        bench.fill_from(route, &content, &sink, &[&origin]).await.expect("fills");
        assert_eq!(Arc::strong_count(&sink), 1, "{route:?}: the sink is let go of");
        let gone = async {
            // The server's own connection tasks end with the connections.
            while tasks() > before {
                tokio::task::yield_now().await;
            }
        };
        assert!(timeout(PATIENCE, gone).await.is_ok(), "{route:?}: {} tasks stay", tasks());
        assert_eq!(std::fs::read_dir(bench._scratch.path()).expect("lists").count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_reads_nor_hashes_everything_again_when_it_resumes() {
    let content = single_file(300 * u64::from(PIECE));
    let origin = Origin::start(&content, Fault::None).await;
    let sink = MemorySink::holding(&content, 290);
    let outcome =
        Bench::new().fill_from(Route::Engine, &content, &sink, &[&origin]).await.expect("fills");
    assert_eq!(outcome.web_seed_bytes, 10 * u64::from(PIECE));
    assert_eq!(sink.data(), content.data);
    // The new pieces, and at most 65 of the old ones as a sample.
    let read_bytes = sink.read_bytes.load(std::sync::atomic::Ordering::SeqCst);
    assert!(read_bytes <= 75 * u64::from(PIECE), "{} pieces", read_bytes / u64::from(PIECE));
}

#[tokio::test(flavor = "multi_thread")]
async fn never_talks_to_strangers_that_a_peer_tells_of() {
    let content = single_file(10 * u64::from(PIECE));
    let stranger = tokio::net::TcpListener::bind("127.0.0.2:0").await.expect("binds");
    let enrolled = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let told = [&stranger, &enrolled].map(|l| l.local_addr().expect("bound"));
    let sink = MemorySink::new(&content);
    let job = FillJob { peers: vec![gossip(&content, told).await], ..content.job(&sink) };
    let (bench, cancel) = (Bench::new(), CancellationToken::new());
    let wait = async {
        // Same address as an enrolled device: this one is tried, so the message was understood.
        let tried = timeout(PATIENCE, enrolled.accept()).await;
        // The stranger was named first; what does not come now does not come.
        let stranger = timeout(Duration::from_millis(300), stranger.accept()).await;
        cancel.cancel();
        (tried, stranger)
    };
    let (result, (tried, stranger)) = tokio::join!(bench.filler.fill(job, cancel.clone()), wait);
    assert!(matches!(result, Err(FillError::Cancelled)), "{result:?}");
    assert!(matches!(tried, Ok(Ok(_))), "{tried:?}");
    assert!(stranger.is_err(), "a stranger was called");
}
