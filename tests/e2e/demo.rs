//! `larder demo`, as the README tells a newcomer to run it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{Running, random_file, sha256, wait_for};

fn larder() -> Command {
    Command::new(env!("CARGO_BIN_EXE_larder"))
}

fn running(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
}

fn pid_in(file: &Path) -> i32 {
    let text = std::fs::read(file).expect("endpoints.json is there while it runs");
    let endpoints: Value = serde_json::from_slice(&text).expect("JSON");
    endpoints["pid"].as_i64().expect("a pid") as i32
}

#[test]
fn check_finds_all_books_in_agreement() {
    let output = larder().args(["demo", "--check", "--json"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let bytes = 64 * 1024 * 1024;
    for figure in
        ["content_bytes", "filled_bytes", "egress_bytes", "downloaded_bytes", "reported_bytes"]
    {
        assert_eq!(result[figure], bytes, "{figure} in {result}");
    }
    assert_eq!(result["fill_source"]["web_seed"], bytes);
    assert_eq!(result["earned"]["amount"], "0.006710");
    assert_eq!(result["earned"]["currency"], "CNY");
    assert!(result["admin_url"].as_str().is_some_and(|u| u.starts_with("http://127.0.0.1:")));
    assert!(result["seconds"].as_f64().is_some_and(|s| s > 0.0));
}

#[test]
fn check_takes_files_and_folders_and_can_be_repeated_on_kept_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("one file.bin");
    random_file(&file, 3_000_000, 1);
    let season = folder.path().join("season");
    std::fs::create_dir_all(season.join("extras")).expect("creates");
    random_file(&season.join("a.bin"), 500_000, 2);
    random_file(&season.join("extras/b.bin"), 400_000, 3);
    for _ in 0..2 {
        let output = larder()
            .args(["demo", "--check", "--json", "--data"])
            .arg(folder.path().join("data"))
            .arg("--content")
            .args([&file, &season])
            .output()
            .expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(result["downloaded_bytes"], 3_900_000, "{result}");
        assert_eq!(result["reported_bytes"], 3_900_000, "{result}");
    }
}

#[test]
fn json_line_says_where_everything_is_and_sigterm_ends_every_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("film.bin");
    random_file(&file, 1_000_000, 1);
    let mut demo = Running(
        larder()
            .args(["demo", "--json", "--content"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs"),
    );
    let stdout = demo.0.stdout.take().expect("piped");
    let line = BufReader::new(stdout).lines().next().expect("a line").expect("UTF-8");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    for field in ["magnet", "infohash", "peer", "admin_url", "hub_url", "setup_code"] {
        assert!(ready[field].is_string(), "{field} in {ready}");
    }
    let source = Path::new(ready["content"][0].as_str().expect("a path"));
    assert_eq!(sha256(source), sha256(&file));
    let torrent = std::fs::read(ready["torrent"].as_str().expect("a path")).expect("is there");
    let metainfo = larder::logic::metainfo::Metainfo::parse(&torrent).expect("a torrent");
    assert_eq!(ready["infohash"], metainfo.infohash.to_string());
    assert_eq!(metainfo.web_seeds.len(), 1);

    let data = Path::new(ready["data"].as_str().expect("a path")).to_owned();
    let pids =
        [pid_in(&data.join("hub/endpoints.json")), pid_in(&data.join("device/endpoints.json"))];
    assert!(pids.iter().all(|pid| running(*pid)));
    assert!(demo.terminate().success());
    assert!(!pids.iter().any(|pid| running(*pid)), "a child is left");
    assert!(!data.exists(), "something is left behind");
}

#[test]
fn killed_demo_takes_its_children_along() {
    let data = tempfile::tempdir().expect("a folder");
    let mut demo = Running(
        larder()
            .args(["demo", "--json", "--data"])
            .arg(data.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs"),
    );
    let stdout = demo.0.stdout.take().expect("piped");
    BufReader::new(stdout).lines().next().expect("a line").expect("UTF-8");
    let pids = [
        pid_in(&data.path().join("hub/endpoints.json")),
        pid_in(&data.path().join("device/endpoints.json")),
    ];
    demo.kill();
    wait_for("the children to go", || (!pids.iter().any(|pid| running(*pid))).then_some(()));
}

#[test]
fn says_in_one_sentence_which_file_is_missing() {
    let output = larder().args(["demo", "--check", "--content", "/nowhere/at/all"]).output();
    let output = output.expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("/nowhere/at/all"), "{errors}");
}
