//! `larderd preload`, and a device that has no operator at all: it serves what its owner pinned.

use std::{
    process::{Command, Output},
    time::Duration,
};

use crate::harness::{FinishedDownload, Lab, finished_download, sha256};

const SIZE: usize = 2_000_003;
const PIECE: u32 = 64 * 1024;

pub fn download(lab: &Lab) -> FinishedDownload {
    finished_download(&lab.path(""), SIZE, PIECE, 7)
}

pub fn preload(lab: &mut Lab) -> Output {
    let config = lab.write_device_config();
    Command::new(env!("CARGO_BIN_EXE_larderd"))
        .args(["preload", "--config"])
        .arg(config)
        .args(["--torrents".as_ref(), lab.path("torrents").as_os_str()])
        .args(["--data".as_ref(), lab.path("data").as_os_str()])
        .output()
        .expect("runs")
}

#[test]
fn preloaded_content_is_served_without_any_hub() {
    let mut lab = Lab::new();
    let FinishedDownload { torrent, infohash, .. } = download(&lab);
    let output = preload(&mut lab);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lab.start_device();
    lab.wait_until_served(infohash);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let fetched = runtime.expect("a runtime").block_on(larder::client::fetch(
        torrent.into(),
        vec![lab.peer()],
        &lab.path("fetched"),
        Duration::from_secs(30),
    ));
    fetched.expect("downloads");
    assert_eq!(sha256(&lab.path("fetched/film.bin")), sha256(&lab.path("data/film.bin")));
}

#[test]
fn preload_while_larderd_runs_says_to_stop_it_first() {
    let mut lab = Lab::new();
    download(&lab);
    lab.start_device();
    let output = preload(&mut lab);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{errors}");
    assert!(errors.contains("stop that one first"), "{errors}");
}
