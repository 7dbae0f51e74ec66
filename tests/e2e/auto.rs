//! larderd in auto mode behind a slow line: it finds what the line carries, gives way when the household
//! uploads, and comes back. Judged by what the owner's page would say.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use larder::{
    api::{admin::Status, endpoints::STATUS_SOCKET},
    logic::governor::allowance::Reason,
};

use crate::{
    harness::{Running, finished_download, spawn, wait_for},
    world::{DEVICE, WORLD, World, role},
};

const TEST: &str = "auto::finds_the_lines_rate_and_gives_way_to_the_household";
const LINE_MEGABITS: u32 = 10;
const LINE: u64 = LINE_MEGABITS as u64 * 125_000;
/// More than the line carries while the test lasts.
const SIZE: usize = 128 * 1024 * 1024;
const PIECE: u32 = 1024 * 1024;
const PEER_PORT: u16 = 6881;
const SINK_PORT: u16 = 9000;

#[test]
fn finds_the_lines_rate_and_gives_way_to_the_household() {
    match role().as_deref() {
        Some("leecher") => return leech(),
        Some("sink") => return sink(),
        Some("upload") => return upload(),
        _ => {}
    }
    let home = World::new();
    home.limit_uplink(LINE_MEGABITS);
    let folder = tempfile::Builder::new().prefix("larder-e2e-").tempdir().expect("a folder");
    let torrent = finished_download(folder.path(), SIZE, PIECE, 21).torrent_file;
    let _device = start_device(&home, folder.path());
    let _sink = home.start("world", TEST, "sink");
    let mut leecher = home.again("world", TEST, "leecher");
    leecher
        .env("LARDER_E2E_TORRENT", &torrent)
        .env("LARDER_E2E_FOLDER", folder.path().join("copy"));
    let _leecher = Running(leecher.spawn().expect("runs"));

    let near = |bytes: u64| (LINE * 7 / 10..LINE * 12 / 10).contains(&bytes);
    let status = |wanted: &str, is_it: &dyn Fn(&Status) -> bool| {
        wait_for(wanted, || read_status(folder.path()).filter(|status| is_it(status)))
    };
    let found = status("the line's rate", &|s| {
        s.line_bytes_per_second.is_some_and(near) && s.egress_bytes_per_second > LINE * 7 / 10
    });
    assert_eq!(found.problem, None);
    assert!(found.egress_bytes_per_second < LINE, "{found:?}");

    let mut household = home.start("home", TEST, "upload");
    status("it to give way", &|s| {
        s.allowance_reason == Reason::AutoHousehold
            && s.egress_bytes_per_second_allowed < LINE / 10
            && s.egress_bytes_per_second < LINE / 10
    });
    household.kill();
    status("it to come back", &|s| {
        s.allowance_reason == Reason::AutoLine && s.egress_bytes_per_second > LINE * 7 / 10
    });
}

/// With no number from anyone, and no hub.
fn start_device(home: &World, folder: &Path) -> Running {
    let config = folder.join("larderd.toml");
    let text = format!(
        "data_dir = {:?}\n[admin]\nlisten = \"{DEVICE}:8080\"\n[serve]\nlisten = [\"{DEVICE}:{PEER_PORT}\"]\n",
        folder.join("device")
    );
    fs::write(&config, text).expect("writes");
    let larderd = || {
        let mut command = home.command("device", env!("CARGO_BIN_EXE_larderd"));
        command.arg("--config").arg(&config);
        command
    };
    let preload = larderd()
        .args(["preload".as_ref(), "--torrents".as_ref(), folder.join("torrents").as_os_str()])
        .args(["--data".as_ref(), folder.join("data").as_os_str()])
        .output()
        .expect("runs");
    assert!(preload.status.success(), "{}", String::from_utf8_lossy(&preload.stderr));
    let device = spawn(&mut larderd(), &folder.join("larderd.log"));
    wait_for("larderd", || read_status(folder));
    device
}

fn read_status(folder: &Path) -> Option<Status> {
    let mut stream = UnixStream::connect(folder.join("device").join(STATUS_SOCKET)).ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// In the world: a client that takes what it gets.
fn leech() {
    let torrent = fs::read(std::env::var("LARDER_E2E_TORRENT").expect("was set")).expect("reads");
    let folder = PathBuf::from(std::env::var("LARDER_E2E_FOLDER").expect("was set"));
    let device = SocketAddr::new(DEVICE.parse().expect("an address"), PEER_PORT);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let fetched = runtime.expect("a runtime").block_on(larder::client::fetch(
        torrent.into(),
        vec![device],
        &folder,
        Duration::from_secs(600),
    ));
    fetched.expect("downloads");
}

fn sink() {
    let listener = TcpListener::bind((WORLD, SINK_PORT)).expect("binds");
    let mut buffer = vec![0; 1 << 18];
    for stream in listener.incoming() {
        let mut stream = stream.expect("accepts");
        while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
    }
}

/// As somebody in the home does who sends a video, until this process is killed.
fn upload() {
    let mut stream = wait_for("the sink", || TcpStream::connect((WORLD, SINK_PORT)).ok());
    let buffer = vec![0x55; 1 << 16];
    while stream.write_all(&buffer).is_ok() {}
}
