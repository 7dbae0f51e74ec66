//! What goes wrong at an operator's or an owner's: each gives one clear sentence, and nothing that
//! is already cached is lost.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use larder::{api::admin::ContentState, logic::infohash::Infohash};

use crate::harness::{
    Lab, copy_folder, files_below, random_file, sha256, wait_for, without_web_seeds,
};

const SIZE: usize = 2_000_003;

/// One content published and served; the file that it came from.
fn serving(lab: &Lab, name: &str, seed: u64) -> Infohash {
    let source = lab.path(name);
    random_file(&source, SIZE, seed);
    let infohash = lab.publish(&source).infohash;
    lab.wait_until_served(infohash);
    infohash
}

/// Takes the content from the device itself, whatever the hub does.
fn assert_downloads(lab: &Lab, torrent: &[u8], name: &str) {
    let folder = lab.path("check").join(format!("{:?}", std::time::Instant::now()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let fetched = runtime.expect("a runtime").block_on(larder::client::fetch(
        torrent.to_vec().into(),
        vec![lab.peer()],
        &folder,
        Duration::from_secs(30),
    ));
    fetched.expect("downloads");
    assert_eq!(sha256(&folder.join(name)), sha256(&lab.path(name)));
}

fn hub_problem(lab: &Lab, word: &str) -> String {
    wait_for(&format!("a problem that says {word:?}"), || {
        lab.status()?.hub.problem.filter(|p| p.contains(word))
    })
}

/// The hub's address, with the operator's static files as somebody else would serve them.
struct Impostor {
    runtime: tokio::runtime::Runtime,
}

impl Impostor {
    fn start(hub_url: &str, tuf: &Path) -> Impostor {
        let address: SocketAddr = hub_url
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .expect("an address");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address));
        let listener = listener.expect("the hub's port is free");
        let tuf = tuf.to_owned();
        let serve = move |axum::extract::Path(path): axum::extract::Path<String>| {
            std::future::ready(
                std::fs::read(tuf.join(path)).map_err(|_| axum::http::StatusCode::NOT_FOUND),
            )
        };
        let router = axum::Router::new().route("/tuf/{*path}", axum::routing::get(serve));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Impostor { runtime }
    }

    fn stop(self) {
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

#[test]
fn list_with_a_flipped_byte_is_refused_and_the_old_one_stays() {
    let mut lab = Lab::started();
    let infohash = serving(&lab, "one.bin", 1);
    let torrent = without_web_seeds(&lab.metainfo(infohash));
    lab.kill_device();
    random_file(&lab.path("two.bin"), SIZE, 2);
    lab.publish(&lab.path("two.bin"));
    lab.kill_hub();
    let tuf = lab.path("copied-tuf");
    copy_folder(&lab.path("hub/tuf"), &tuf);
    for list in files_below(&tuf.join("targets")).iter().filter(|f| f.ends_with_list()) {
        let mut bytes = std::fs::read(list).expect("reads");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(list, bytes).expect("writes");
    }
    let impostor = Impostor::start(&lab.hub_url, &tuf);
    lab.start_device();
    let problem = hub_problem(&lab, "not accepted");
    assert_eq!(problem.lines().count(), 1, "{problem}");
    assert_eq!(lab.wait_until_served(infohash).held_bytes, SIZE as u64);
    assert_downloads(&lab, &torrent, "one.bin");
    impostor.stop();
}

trait ListFile {
    fn ends_with_list(&self) -> bool;
}

impl ListFile for std::path::PathBuf {
    fn ends_with_list(&self) -> bool {
        self.to_string_lossy().ends_with(larder::logic::hotlist::LIST_TARGET)
    }
}

#[test]
fn older_list_is_refused_and_the_newer_one_stays() {
    let mut lab = Lab::started();
    serving(&lab, "one.bin", 1);
    let old = lab.path("old-tuf");
    copy_folder(&lab.path("hub/tuf"), &old);
    let second = serving(&lab, "two.bin", 2);
    let epoch = lab.status().and_then(|s| s.hub.list_epoch);
    lab.kill_hub();
    let impostor = Impostor::start(&lab.hub_url, &old);
    let problem = hub_problem(&lab, "not accepted");
    assert_eq!(problem.lines().count(), 1, "{problem}");
    assert!(problem.contains("was here before"), "{problem}");
    assert_eq!(lab.status().and_then(|s| s.hub.list_epoch), epoch);
    assert_eq!(lab.content(second).map(|c| c.state), Some(ContentState::Serving));
    // It is refused at every look, once a second, and said once.
    let log = lab.device_log();
    assert_eq!(log.lines().filter(|line| line.contains("not accepted")).count(), 1, "{log}");
    impostor.stop();
}

#[test]
fn list_with_an_expired_timestamp_is_refused_and_the_cache_goes_on_serving() {
    let mut lab = Lab::started();
    let infohash = serving(&lab, "one.bin", 1);
    let torrent = without_web_seeds(&lab.metainfo(infohash));
    lab.kill_hub();
    let tuf = lab.path("copied-tuf");
    copy_folder(&lab.path("hub/tuf"), &tuf);
    expire_timestamp(&lab, &tuf);
    let impostor = Impostor::start(&lab.hub_url, &tuf);
    let problem = hub_problem(&lab, "expired");
    assert!(problem.contains("clock"), "it says what to do: {problem}");
    assert_eq!(lab.content(infohash).map(|c| c.state), Some(ContentState::Serving));
    assert_downloads(&lab, &torrent, "one.bin");
    impostor.stop();
}

/// Signs the timestamp again, with the operator's own key, as having expired in 2026-01.
fn expire_timestamp(lab: &Lab, tuf: &Path) {
    use tough::{
        editor::signed::SignedRole,
        key_source::{KeySource, LocalKeySource},
        schema::{KeyHolder, Root, Signed, Timestamp},
    };
    let path = tuf.join("metadata/timestamp.json");
    let root = std::fs::read(lab.path("hub/root.json")).expect("reads");
    let root: Signed<Root> = serde_json::from_slice(&root).expect("a root");
    let held = std::fs::read(&path).expect("reads");
    let mut timestamp: Timestamp =
        serde_json::from_slice::<Signed<Timestamp>>(&held).expect("a timestamp").signed;
    timestamp.version = timestamp.version.saturating_add(1);
    timestamp.expires = "2026-01-02T00:00:00Z".parse().expect("a time");
    let keys = files_below(&lab.path("hub/keys"));
    let key = keys.iter().find(|k| k.to_string_lossy().contains("timestamp")).expect("a key");
    let key: Box<dyn KeySource> = Box::new(LocalKeySource { path: key.clone() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let signed = runtime.expect("a runtime").block_on(SignedRole::new(
        timestamp,
        &KeyHolder::Root(root.signed),
        &[key],
        &aws_lc_rs::rand::SystemRandom::new(),
    ));
    std::fs::write(path, signed.expect("signs").buffer()).expect("writes");
}

#[test]
fn unknown_config_key_is_refused_with_file_and_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("larderd.toml");
    std::fs::write(&config, "data_dir = \"/nowhere\"\n\n[cache]\nquota = 5\n").expect("writes");
    let larderd = Command::new(env!("CARGO_BIN_EXE_larderd")).arg("--config").arg(&config).output();
    let larder =
        Command::new(env!("CARGO_BIN_EXE_larder")).args(["config", "check"]).arg(&config).output();
    for output in [larderd.expect("runs"), larder.expect("runs")] {
        assert_eq!(output.status.code(), Some(78));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.trim().lines().count(), 1, "{errors}");
        assert!(errors.contains("larderd.toml:4") && errors.contains("quota"), "{errors}");
    }
}

#[test]
fn printed_default_configuration_is_accepted() {
    for program in [env!("CARGO_BIN_EXE_larderd"), env!("CARGO_BIN_EXE_larder-hub")] {
        let printed = Command::new(program).arg("--print-default-config").output().expect("runs");
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("default.toml");
        std::fs::write(&config, printed.stdout).expect("writes");
        let check = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["config", "check"])
            .arg(&config)
            .output();
        let check = check.expect("runs");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
}

#[test]
fn content_larger_than_the_quota_is_named_and_the_rest_is_served() {
    let mut lab = Lab::new();
    lab.device_extra = "[cache]\nquota_bytes = 3000000\nreserve_bytes = 0".into();
    lab.start_hub();
    lab.start_device();
    let small = serving(&lab, "small.bin", 1);
    let large = lab.path("large.bin");
    random_file(&large, 3_000_001, 2);
    let large = lab.publish(&large).infohash;
    let problem = wait_for("the refusal", || lab.content(large)?.problem);
    assert!(problem.contains("quota") && problem.lines().count() == 1, "{problem}");
    assert_eq!(lab.content(large).map(|c| c.held_bytes), Some(0));
    assert_eq!(lab.content(small).map(|c| c.state), Some(ContentState::Serving));
}

#[test]
fn hub_that_is_down_at_start_stops_nothing_that_is_cached() {
    let mut lab = Lab::started();
    let infohash = serving(&lab, "one.bin", 1);
    let torrent = without_web_seeds(&lab.metainfo(infohash));
    lab.kill_device();
    lab.kill_hub();
    lab.start_device();
    lab.wait_until_served(infohash);
    let problem = hub_problem(&lab, "cannot reach");
    assert_eq!(problem.lines().count(), 1, "{problem}");
    assert_downloads(&lab, &torrent, "one.bin");

    lab.start_hub();
    wait_for("the device to find the hub again", || {
        lab.status().filter(|s| s.hub.problem.is_none()).map(drop)
    });
    lab.wait_until_booked(infohash, SIZE as u64);
}
