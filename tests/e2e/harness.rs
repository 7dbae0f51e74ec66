//! Starts hub and device as processes of their own, and asks them how they are. What a test starts
//! ends with it, by its own process id.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use larder::{
    api::{
        admin::{ContentState, ContentView, Status},
        endpoints::{DeviceEndpoints, ENDPOINTS_FILE, HubEndpoints, STATUS_SOCKET},
        hub::{Books, Published},
    },
    logic::{
        infohash::{Infohash, sha1},
        metainfo::{NewLayout, NewMetainfo},
    },
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// Long enough for the slowest machine; a test that gets there has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);
const LOG_LINES_SHOWN: usize = 60;
const POLL: Duration = Duration::from_millis(50);

/// Polls until `done` gives something; says what it was waiting for when it never does.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(POLL);
    }
}

/// A process that is killed when the test is over.
pub struct Running(pub Child);

impl Running {
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
        wait_for("the process to stop", || self.0.try_wait().expect("our child"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A network namespace with an address that is not loopback; gone with the test.
pub struct Namespace(pub String);

impl Namespace {
    pub fn new() -> Namespace {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace(format!("larder-{}-{number}", std::process::id()));
        namespace.ip(&["netns", "add", &namespace.0]);
        namespace.ip(&["-n", &namespace.0, "link", "set", "lo", "up"]);
        let address = format!("{NAMESPACE_ADDRESS}/32");
        namespace.ip(&["-n", &namespace.0, "address", "add", &address, "dev", "lo"]);
        namespace
    }

    /// Runs `ip` with these.
    pub fn ip(&self, arguments: &[&str]) {
        let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments:?} (are you root?): {errors}");
    }
}

impl Namespace {
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).output();
    }
}

pub const NAMESPACE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

impl Drop for Lab {
    /// What a test that failed leaves of the device.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.device_log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("larderd's last lines:\n{}", last.join("\n"));
        }
    }
}

/// An operator's side and a household's side in one temporary folder.
pub struct Lab {
    pub folder: TempDir,
    pub hub: Option<Running>,
    pub hub_url: String,
    pub device: Option<Running>,
    hub_port: u16,
    peer_port: u16,
    admin_port: u16,
    /// Appended to larderd's configuration.
    pub device_extra: String,
    /// For larderd.
    pub device_environment: Vec<(&'static str, PathBuf)>,
    claim_code: Option<String>,
    root_file: PathBuf,
    token_file: PathBuf,
    pub address: Ipv4Addr,
    /// Where the device listens for peers, if not there.
    pub peer_address: Option<Ipv4Addr>,
    /// Appended to larder-hub's configuration.
    pub hub_extra: String,
    pub list_interval_seconds: u32,
    pub report_interval_seconds: u32,
    /// Dropped last: the processes in it go first.
    namespace: Option<Arc<Namespace>>,
}

impl Lab {
    pub fn new() -> Lab {
        let [hub_port, peer_port, admin_port] = free_ports();
        let folder = tempfile::Builder::new().prefix("larder-e2e-").tempdir().expect("a folder");
        Lab {
            root_file: folder.path().join("hub/root.json"),
            token_file: folder.path().join("hub/operator-token"),
            folder,
            hub: None,
            hub_url: String::new(),
            device: None,
            address: Ipv4Addr::LOCALHOST,
            peer_address: None,
            hub_extra: String::new(),
            list_interval_seconds: 1,
            report_interval_seconds: 1,
            namespace: None,
            hub_port,
            peer_port,
            admin_port,
            device_extra: String::new(),
            device_environment: vec![],
            claim_code: None,
        }
    }

    /// The same in a network that the test has made.
    pub fn within(namespace: Namespace, address: Ipv4Addr) -> Lab {
        let mut lab = Lab::new();
        (lab.namespace, lab.address) = (Some(Arc::new(namespace)), address);
        lab
    }

    /// The same in a network of its own, on an address that is not loopback. Needs root.
    pub fn in_namespace() -> Lab {
        Lab::within(Namespace::new(), NAMESPACE_ADDRESS)
    }

    /// A command that runs where this lab's hub and device run.
    pub fn command(&self, program: &str) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        namespace.command(program)
    }

    /// A download into `folder`, from the swarm that the tracker names and nobody else.
    pub fn aria2c(&self, folder: &Path) -> Command {
        aria2c(self.command("aria2c"), folder)
    }

    /// Holds all traffic of this lab's network to a rate, so that a fill can be caught in the act.
    pub fn slow_down(&self, megabits_per_second: u32) {
        let namespace = self.namespace.as_ref().expect("a lab in a namespace");
        let rate = format!("{megabits_per_second}mbit");
        let output = Command::new("tc")
            .args(["-n", &namespace.0, "qdisc", "replace", "dev", "lo", "root", "tbf"])
            .args(["rate", &rate, "burst", "256kb", "latency", "100ms"])
            .output()
            .expect("iproute2 is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Hub and device up, nothing published.
    pub fn started() -> Lab {
        let mut lab = Lab::new();
        lab.start_hub();
        lab.start_device();
        lab
    }

    /// Another household at the same operator, its device running.
    pub fn second_device(&self) -> Lab {
        let mut second = self.second_lab();
        second.start_device();
        second
    }

    /// The same, not started yet.
    pub fn second_lab(&self) -> Lab {
        let mut second = Lab::new();
        second.hub_url.clone_from(&self.hub_url);
        second.root_file.clone_from(&self.root_file);
        second.token_file.clone_from(&self.token_file);
        second.address = self.address;
        second.namespace.clone_from(&self.namespace);
        second
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn start_hub(&mut self) {
        let config = self.path("hub.toml");
        let text = format!(
            "data_dir = {:?}\nlisten = \"{address}:{port}\"\npublic_url = \"http://{address}:{port}/\"\n\
             [policy]\nlist_interval_seconds = {}\nreport_interval_seconds = {}\n{}\n",
            self.path("hub"),
            self.list_interval_seconds,
            self.report_interval_seconds,
            self.hub_extra,
            address = self.address,
            port = self.hub_port
        );
        fs::write(&config, text).expect("writes");
        if !self.path("hub/root.json").exists() {
            let output = Command::new(env!("CARGO_BIN_EXE_larder-hub"))
                .args(["init", "--config"])
                .arg(&config)
                .output()
                .expect("runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let hub = spawn(
            self.command(env!("CARGO_BIN_EXE_larder-hub")).args(["run", "--config"]).arg(&config),
            &self.path("hub.log"),
        );
        self.hub = Some(hub);
        let endpoints: HubEndpoints = self.endpoints("hub");
        self.hub_url = endpoints.hub_url;
    }

    pub fn write_device_config(&mut self) -> PathBuf {
        if self.claim_code.is_none() && self.token_file.exists() {
            let claimed = self.larder(&["node", "claim", "--json"]);
            let answer: larder::api::hub::ClaimCodesResponse = json(&claimed);
            self.claim_code = answer.claim_codes.into_iter().next();
        }
        let config = self.path("larderd.toml");
        let hub = match self.hub_url.as_str() {
            "" => String::new(),
            url => format!(
                "[hub]\nurl = {url:?}\nroot_file = {:?}\nclaim_code = {:?}\n",
                self.root_file,
                self.claim_code.as_deref().unwrap_or_default()
            ),
        };
        let text = format!(
            "data_dir = {:?}\n{hub}\
             [admin]\nlisten = \"{address}:{}\"\n\
             [serve]\nlisten = [\"{}:{}\"]\n{}\n",
            self.path("device"),
            self.admin_port,
            self.peer_address.unwrap_or(self.address),
            self.peer_port,
            self.device_extra,
            address = self.address,
        );
        fs::write(&config, text).expect("writes");
        config
    }

    pub fn start_device(&mut self) {
        self.spawn_device();
        let _: DeviceEndpoints = self.endpoints("device");
    }

    /// Without waiting for it.
    pub fn spawn_device(&mut self) {
        let config = self.write_device_config();
        let _ = fs::remove_file(self.path("device").join(ENDPOINTS_FILE));
        let device = spawn(
            self.command(env!("CARGO_BIN_EXE_larderd"))
                .arg("--config")
                .arg(&config)
                .envs(self.device_environment.iter().map(|(name, value)| (name, value))),
            &self.path("larderd.log"),
        );
        self.device = Some(device);
    }

    /// As a power button would: nothing gets to say goodbye.
    pub fn kill_device(&mut self) {
        self.device.take().expect("a device").kill();
    }

    pub fn kill_hub(&mut self) {
        self.hub.take().expect("a hub").kill();
    }

    pub fn peer(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.peer_port))
    }

    /// Runs the operator's command line; must succeed.
    pub fn larder(&self, arguments: &[&str]) -> Output {
        let output = self
            .command(env!("CARGO_BIN_EXE_larder"))
            .args(arguments)
            .env("LARDER_HUB_URL", &self.hub_url)
            .env("LARDER_TOKEN_FILE", &self.token_file)
            .output()
            .expect("runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "larder {arguments:?}: {errors}");
        output
    }

    pub fn publish(&self, path: &Path) -> Published {
        json(&self.larder(&["publish", path.to_str().expect("UTF-8"), "--json"]))
    }

    /// As the device got it from the hub.
    pub fn metainfo(&self, infohash: Infohash) -> Vec<u8> {
        let path = self.path("device/content").join(infohash.to_string()).join("metainfo.torrent");
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// What the owner's page would show.
    pub fn status(&self) -> Option<Status> {
        let mut stream = UnixStream::connect(self.path("device").join(STATUS_SOCKET)).ok()?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub fn content(&self, infohash: Infohash) -> Option<ContentView> {
        self.status()?.cache.contents.into_iter().find(|c| c.infohash == infohash)
    }

    pub fn wait_until_served(&self, infohash: Infohash) -> ContentView {
        wait_for("the content to be served", || {
            self.content(infohash)
                .filter(|c| c.state == ContentState::Serving && c.held_bytes == c.size_bytes)
        })
    }

    /// Waits until the device's ledger and the hub's books both have `bytes` for this content, and
    /// fails if either ever has more.
    pub fn wait_until_booked(&self, infohash: Infohash, bytes: u64) {
        wait_for(&format!("{bytes} bytes in all books"), || {
            let ledger = self.content(infohash)?.egress_bytes;
            let hub = self.books_bytes(infohash);
            assert!(ledger <= bytes, "the ledger has {ledger} of {bytes} bytes");
            assert!(hub <= bytes, "the hub has {hub} of {bytes} bytes");
            (ledger == bytes && hub == bytes).then_some(())
        });
    }

    pub fn books_bytes(&self, infohash: Infohash) -> u64 {
        let books: Books = json(&self.larder(&["books", "--json"]));
        books.lines.iter().filter(|l| l.infohash == infohash).map(|l| l.payload_bytes).sum()
    }

    /// Bytes that the hub's origin has sent of this content, to whomever.
    pub fn origin_bytes(&self, infohash: Infohash) -> u64 {
        let usage: serde_json::Value = json(&self.larder(&["origin-usage", "--json"]));
        let of_ours = |row: &&serde_json::Value| row["infohash"] == infohash.to_string();
        let rows = usage["lines"].as_array().expect("rows");
        rows.iter().find(of_ours).and_then(|r| r["egress_bytes"].as_u64()).unwrap_or_default()
    }

    pub fn device_log(&self) -> String {
        fs::read_to_string(self.path("larderd.log")).unwrap_or_default()
    }

    fn endpoints<T: DeserializeOwned>(&self, name: &str) -> T {
        let file = self.path(name).join(ENDPOINTS_FILE);
        wait_for(name, || serde_json::from_slice(&fs::read(&file).ok()?).ok())
    }
}

/// A download by `command`, which is aria2c wherever it runs, from whom the tracker names.
pub fn aria2c(mut command: Command, folder: &Path) -> Command {
    let [port] = free_ports();
    command
        .args([
            "--seed-time=0",
            "--enable-dht=false",
            "--enable-dht6=false",
            "--bt-enable-lpd=false",
        ])
        .args(["--bt-tracker-interval=1", "--file-allocation=none", "--summary-interval=0"])
        .args(["--bt-stop-timeout=60", "--no-conf", &format!("--listen-port={port}"), "--dir"])
        .arg(folder);
    command
}

pub fn spawn(command: &mut Command, log: &Path) -> Running {
    let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("opens");
    let out = log.try_clone().expect("clones");
    Running(command.stdin(Stdio::null()).stdout(out).stderr(log).spawn().expect("runs"))
}

pub fn json<T: DeserializeOwned>(output: &Output) -> T {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e} in {text}"))
}

/// Bytes that compress to nothing less and repeat nowhere, the same for a seed.
pub fn random_file(path: &Path, bytes: usize, seed: u64) {
    use rand::{Rng, SeedableRng};
    let mut data = vec![0; bytes];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut data);
    fs::write(path, data).expect("writes");
}

/// A finished download as a BitTorrent client leaves it: `data/film.bin` and `torrents/film.torrent`.
pub struct FinishedDownload {
    pub torrent_file: PathBuf,
    pub torrent: Vec<u8>,
    pub infohash: Infohash,
}

pub fn finished_download(
    folder: &Path,
    bytes: usize,
    piece_length: u32,
    seed: u64,
) -> FinishedDownload {
    for name in ["torrents", "data"] {
        fs::create_dir(folder.join(name)).expect("creates");
    }
    let film = folder.join("data/film.bin");
    random_file(&film, bytes, seed);
    let content = fs::read(&film).expect("reads");
    let hashes: Vec<u8> = content.chunks(piece_length as usize).flat_map(sha1).collect();
    let (torrent, infohash) = NewMetainfo {
        name: "film.bin",
        piece_length,
        pieces: &hashes,
        layout: NewLayout::Single { length: bytes as u64 },
        private: false,
        tracker_tiers: &[],
        web_seeds: &[],
    }
    .encode();
    let torrent_file = folder.join("torrents/film.torrent");
    fs::write(&torrent_file, &torrent).expect("writes");
    FinishedDownload { torrent_file, torrent, infohash }
}

pub fn sha256(path: &Path) -> Vec<u8> {
    let data = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &data).as_ref().to_vec()
}

/// Held together, so that they differ.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    held.map(|l| l.local_addr().expect("bound").port())
}

/// The `.torrent` without its web seeds, so that a client can only take it from peers.
pub fn without_web_seeds(torrent: &[u8]) -> Vec<u8> {
    use larder::logic::metainfo::Metainfo;
    let read = Metainfo::parse(torrent).expect("our own torrent");
    let announce = read.announce.expect("has a tracker");
    let mut out = format!("d8:announce{}:{announce}4:info", announce.len()).into_bytes();
    out.extend(&read.info_bytes);
    out.push(b'e');
    assert_eq!(Metainfo::parse(&out).expect("still one").infohash, read.infohash);
    out
}

/// A library for LD_PRELOAD. The linker that Rust needs is a C compiler.
pub fn compile_preloaded(source: &str, folder: &Path) -> PathBuf {
    let library = folder.join("preloaded.so");
    let output = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &Path::new(env!("CARGO_MANIFEST_DIR")).join(source)])
        .output()
        .expect("a C compiler is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("reads") {
            let path = entry.expect("reads").path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

pub fn copy_folder(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).expect("below it"));
        fs::create_dir_all(target.parent().expect("has one")).expect("creates");
        fs::copy(&file, &target).expect("copies");
    }
}
