//! The demo's stage: folders, ports, the two processes, and what was published. Everything it
//! starts, it stops; everything it made, it removes, unless the user named a folder to keep.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{io::AsyncReadExt, net::UnixStream};

use super::{DemoError, GENERATED_BYTES, POLL};
use crate::{
    api::{
        admin::Status,
        endpoints::{DeviceEndpoints, ENDPOINTS_FILE, HubEndpoints, STATUS_SOCKET},
        hub::{BookLine, Books, ClaimCodesRequest, ClaimCodesResponse, PublishRequest},
    },
    cli::{
        books::this_month,
        hub::{HubArgs, HubClient, QUICK},
        publish::{self, Content},
    },
    logic::infohash::Infohash,
};

/// A process that has not come up or gone down by then has a problem.
const PROCESS_PATIENCE: Duration = Duration::from_secs(30);
/// The demo looks and reports every other second, so that a person sees it happen.
const LIST_INTERVAL_SECONDS: u32 = 1;
const REPORT_INTERVAL_SECONDS: u32 = 2;
/// 10 MiB/s: fast enough to be no bother, slow enough that the slider shows.
const EGRESS_BYTES_PER_SECOND_MAX: u64 = 10 * 1024 * 1024;
const LEASE_SECONDS: u64 = 30 * 24 * 3600;
const LOG_TAIL_LINES: usize = 3;

/// A content as the user can find it.
#[derive(Clone, Debug)]
pub struct Item {
    pub name: String,
    pub source: PathBuf,
    pub size_bytes: u64,
    pub infohash: Infohash,
    pub torrent: PathBuf,
    pub magnet: String,
}

/// Ports are kept with `--data`: the tracker's address is inside every `.torrent`.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Ports {
    hub: u16,
    peer: u16,
    admin: u16,
}

pub struct Stage {
    folder: PathBuf,
    /// Removes the folder when dropped.
    temporary: Option<tempfile::TempDir>,
    sources: Vec<PathBuf>,
    ports: Ports,
    hub: Option<Process>,
    device: Option<Process>,
    hub_url: String,
    endpoints: Option<DeviceEndpoints>,
    published: Vec<Item>,
    started: Instant,
}

/// What `--json` prints when the device is serving.
#[derive(Serialize)]
struct Ready<'a> {
    torrent: &'a Path,
    magnet: &'a str,
    infohash: Infohash,
    peer: SocketAddr,
    admin_url: &'a str,
    hub_url: &'a str,
    content: Vec<&'a Path>,
    /// Sets the owner's password; absent when one is set.
    setup_code: Option<String>,
    /// All of the published contents, when there are several.
    published: Vec<ReadyItem<'a>>,
    data: &'a Path,
}

#[derive(Serialize)]
struct ReadyItem<'a> {
    name: &'a str,
    infohash: Infohash,
    torrent: &'a Path,
    magnet: &'a str,
    content: &'a Path,
}

impl Stage {
    pub fn new(keep: Option<&Path>, content: &[PathBuf]) -> Result<Stage, DemoError> {
        let (folder, temporary) = match keep {
            Some(folder) => {
                fs::create_dir_all(folder).map_err(|e| cannot("create", folder, &e))?;
                (folder.canonicalize().map_err(|e| cannot("open", folder, &e))?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("larder-demo-").tempdir();
                let temporary = temporary.map_err(DemoError::failed)?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let sources = match content {
            [] => vec![generated(&folder)?],
            paths => paths
                .iter()
                .map(|path| path.canonicalize().map_err(|e| cannot("read", path, &e)))
                .collect::<Result<_, _>>()?,
        };
        Ok(Stage {
            ports: ports(&folder)?,
            folder,
            temporary,
            sources,
            hub: None,
            device: None,
            hub_url: String::new(),
            endpoints: None,
            published: vec![],
            started: Instant::now(),
        })
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn hub_url(&self) -> &str {
        &self.hub_url
    }

    pub fn admin_url(&self) -> &str {
        self.endpoints.as_ref().map_or("", |e| &e.admin_url)
    }

    pub fn peer(&self) -> SocketAddr {
        let unknown = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.peer));
        self.endpoints.as_ref().map_or(unknown, |e| e.peer)
    }

    pub fn published(&self) -> &[Item] {
        &self.published
    }

    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The one-time code, while no password is set.
    pub fn setup_code(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder("device").join("setup-code")).ok()?;
        Some(text.trim().to_owned())
    }

    pub async fn start_hub(&mut self) -> Result<(), DemoError> {
        let data = self.folder("hub");
        let program = sibling("larder-hub")?;
        let config = self.folder("hub.toml");
        fs::write(&config, self.hub_config()).map_err(|e| cannot("write", &config, &e))?;
        if !data.join("root.json").exists() {
            let output = Command::new(&program)
                .args(["init", "--config"])
                .arg(&config)
                .output()
                .map_err(|e| cannot("run", &program, &e))?;
            if !output.status.success() {
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(DemoError::Died { program: "larder-hub init", last_words: words });
            }
        }
        let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
        let mut hub =
            Process::start("larder-hub", &program, &arguments, &data, self.folder("hub.log"))?;
        let endpoints: HubEndpoints = hub.ready("the start of the hub").await?;
        self.hub = Some(hub);
        self.hub_url = endpoints.hub_url;
        Ok(())
    }

    pub async fn start_device(&mut self) -> Result<(), DemoError> {
        let data = self.folder("device");
        let program = sibling("larderd")?;
        let config = self.folder("larderd.toml");
        let claimed: ClaimCodesResponse = self
            .hub_client()?
            .post("claim-codes", &ClaimCodesRequest { count: 1 }, QUICK)
            .await
            .map_err(DemoError::failed)?;
        let claim_code = claimed.claim_codes.first().cloned().unwrap_or_default();
        fs::write(&config, self.device_config(&claim_code))
            .map_err(|e| cannot("write", &config, &e))?;
        let arguments = ["--config".as_ref(), config.as_os_str()];
        let mut device =
            Process::start("larderd", &program, &arguments, &data, self.folder("larderd.log"))?;
        self.endpoints = Some(device.ready("the start of the device").await?);
        self.device = Some(device);
        Ok(())
    }

    pub async fn publish(&mut self) -> Result<(), DemoError> {
        let hub = self.hub_client()?;
        let torrents = self.folder("torrents");
        fs::create_dir_all(&torrents).map_err(|e| cannot("create", &torrents, &e))?;
        for source in self.sources.clone() {
            let content = Content::read(&source).map_err(DemoError::failed)?;
            let request = PublishRequest {
                lease_seconds: LEASE_SECONDS,
                replicas: 1,
                price_class: "standard".into(),
                score: 1.0,
                private: false,
            };
            let published = publish::publish(&hub, &content, &request, true)
                .await
                .map_err(DemoError::failed)?;
            let torrent = torrents.join(format!("{}.torrent", published.infohash));
            let bytes = hub.download(&published.metainfo_url).await.map_err(DemoError::failed)?;
            fs::write(&torrent, bytes).map_err(|e| cannot("write", &torrent, &e))?;
            self.published.push(Item {
                name: content.name().to_owned(),
                size_bytes: content.total_bytes,
                source,
                infohash: published.infohash,
                torrent,
                magnet: published.magnet,
            });
        }
        Ok(())
    }

    pub fn is_served(&self, status: &Status) -> bool {
        let wanted: Vec<_> = self.published.iter().map(|p| p.infohash).collect();
        super::all_served(status, &wanted)
    }

    pub fn ready_line(&self) -> String {
        let first = &self.published[0];
        let ready = Ready {
            torrent: &first.torrent,
            magnet: &first.magnet,
            infohash: first.infohash,
            peer: self.peer(),
            admin_url: self.admin_url(),
            hub_url: &self.hub_url,
            content: self.published.iter().map(|p| p.source.as_path()).collect(),
            setup_code: self.setup_code(),
            published: self
                .published
                .iter()
                .map(|p| ReadyItem {
                    name: &p.name,
                    infohash: p.infohash,
                    torrent: &p.torrent,
                    magnet: &p.magnet,
                    content: &p.source,
                })
                .collect(),
            data: &self.folder,
        };
        serde_json::to_string(&ready).expect("our own document serialises")
    }

    /// What the owner's page shows, by the device's local socket.
    pub async fn device_status(&self) -> Result<Status, DemoError> {
        let socket = self.folder("device").join(STATUS_SOCKET);
        let read = async {
            let mut stream = UnixStream::connect(&socket).await?;
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await?;
            serde_json::from_slice(&text).map_err(io::Error::other)
        };
        read.await.map_err(|e| cannot("read the device's status at", &socket, &e))
    }

    /// This month's lines in the hub's books.
    pub async fn books(&self) -> Result<Vec<BookLine>, DemoError> {
        let path = format!("books?month={}", this_month());
        let books: Books = self.hub_client()?.get(&path).await.map_err(DemoError::failed)?;
        Ok(books.lines)
    }

    pub fn check_alive(&mut self) -> Result<(), DemoError> {
        for process in [&mut self.hub, &mut self.device].into_iter().flatten() {
            process.check_alive()?;
        }
        Ok(())
    }

    /// Device first: its last report wants a hub.
    pub async fn close(mut self) {
        if let Some(device) = self.device.take() {
            device.stop().await;
        }
        if let Some(hub) = self.hub.take() {
            hub.stop().await;
        }
        if let Some(temporary) = self.temporary.take()
            && let Err(error) = temporary.close()
        {
            eprintln!("larder demo: cannot remove the temporary folder: {error}");
        }
    }

    fn hub_client(&self) -> Result<HubClient, DemoError> {
        let args = HubArgs {
            hub: self.hub_url.parse().map_err(DemoError::failed)?,
            token_file: self.folder("hub").join("operator-token"),
            json: false,
        };
        HubClient::new(&args).map_err(DemoError::failed)
    }

    fn hub_config(&self) -> String {
        format!(
            "# Written by `larder demo`.\n\
             data_dir = {data:?}\n\
             listen = \"127.0.0.1:{port}\"\n\
             public_url = \"http://127.0.0.1:{port}/\"\n\n\
             [policy]\n\
             list_interval_seconds = {LIST_INTERVAL_SECONDS}\n\
             report_interval_seconds = {REPORT_INTERVAL_SECONDS}\n",
            data = self.folder("hub"),
            port = self.ports.hub,
        )
    }

    fn device_config(&self, claim_code: &str) -> String {
        format!(
            "# Written by `larder demo`.\n\
             data_dir = {data:?}\n\n\
             [hub]\n\
             url = {hub:?}\n\
             root_file = {root:?}\n\
             claim_code = {claim_code:?}\n\n\
             [serve]\n\
             listen = [\"127.0.0.1:{peer}\"]\n\
             egress_bytes_per_second_max = {EGRESS_BYTES_PER_SECOND_MAX}\n\n\
             [cache]\n\
             reserve_bytes = 0\n\n\
             [admin]\n\
             listen = \"127.0.0.1:{admin}\"\n",
            data = self.folder("device"),
            hub = self.hub_url,
            root = self.folder("hub").join("root.json"),
            peer = self.ports.peer,
            admin = self.ports.admin,
        )
    }
}

impl Item {
    /// Compares every file by SHA-256.
    pub fn verify(&self, folder: &Path) -> Result<(), DemoError> {
        let content = Content::read(&self.source).map_err(DemoError::failed)?;
        for (path, original) in content.files() {
            let copy = folder.join(path);
            if sha256(&copy)? != sha256(original)? {
                return Err(DemoError::Failed(format!(
                    "{} arrived with another SHA-256 than {}",
                    copy.display(),
                    original.display()
                )));
            }
        }
        Ok(())
    }
}

/// One of our programs, as a child that goes when we go.
struct Process {
    program: &'static str,
    child: Child,
    data: PathBuf,
    log: PathBuf,
}

impl Process {
    fn start(
        program: &'static str,
        path: &Path,
        arguments: &[&std::ffi::OsStr],
        data: &Path,
        log: PathBuf,
    ) -> Result<Process, DemoError> {
        use std::os::unix::process::CommandExt;
        let output = File::create(&log).map_err(|e| cannot("write", &log, &e))?;
        // Left over from a run that was killed; it would look like an early success.
        let _ = fs::remove_file(data.join(ENDPOINTS_FILE));
        let child = Command::new(path)
            .args(arguments)
            .arg("--stop-with-parent")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            // Ctrl-C in the terminal is for us; we stop the children in the right order.
            .process_group(0)
            .spawn()
            .map_err(|e| cannot("run", path, &e))?;
        Ok(Process { program, child, data: data.to_owned(), log })
    }

    async fn ready<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, DemoError> {
        let file = self.data.join(ENDPOINTS_FILE);
        let started = Instant::now();
        loop {
            self.check_alive()?;
            if let Ok(text) = fs::read(&file) {
                return serde_json::from_slice(&text).map_err(DemoError::failed);
            }
            if started.elapsed() > PROCESS_PATIENCE {
                let logs = self.log.clone();
                return Err(DemoError::TimedOut { what, waited: PROCESS_PATIENCE, logs });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn check_alive(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(DemoError::Died {
                program: self.program,
                last_words: format!("{status}; {}", last_lines(&self.log)),
            }),
            Err(error) => Err(DemoError::failed(error)),
        }
    }

    async fn stop(mut self) {
        let signalled = self.signal(Signal::SIGTERM);
        let started = Instant::now();
        while signalled && started.elapsed() < PROCESS_PATIENCE {
            match self.child.try_wait() {
                Ok(None) => tokio::time::sleep(POLL / 4).await,
                _ => return,
            }
        }
    }

    fn signal(&self, signal: Signal) -> bool {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        pid.is_ok_and(|pid| kill(pid, signal).is_ok())
    }
}

/// Whatever happened, no child outlives the stage.
impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn cannot(do_what: &str, path: &Path, error: &io::Error) -> DemoError {
    DemoError::Failed(format!("cannot {do_what} {}: {error}", path.display()))
}

/// The three programs are built and installed side by side.
fn sibling(name: &str) -> Result<PathBuf, DemoError> {
    let here = std::env::current_exe().map_err(DemoError::failed)?;
    let path = here.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => Err(DemoError::Failed(format!(
            "{name} is not beside {}: build all three with `cargo build --bins`",
            here.display()
        ))),
    }
}

fn ports(folder: &Path) -> Result<Ports, DemoError> {
    let file = folder.join("ports.json");
    if let Ok(text) = fs::read(&file) {
        return serde_json::from_slice(&text).map_err(DemoError::failed);
    }
    // Held together, so that they differ.
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(DemoError::failed);
    let held = [listen()?, listen()?, listen()?];
    let mut numbers = [0; 3];
    for (number, listener) in numbers.iter_mut().zip(&held) {
        *number = listener.local_addr().map_err(DemoError::failed)?.port();
    }
    let [hub, peer, admin] = numbers;
    let ports = Ports { hub, peer, admin };
    let text = serde_json::to_string(&ports).expect("our own document serialises");
    fs::write(&file, text).map_err(|e| cannot("write", &file, &e))?;
    Ok(ports)
}

/// Random, so that nothing on the way can shrink or guess it; made once for a kept folder.
fn generated(folder: &Path) -> Result<PathBuf, DemoError> {
    let path = folder.join("larder-demo.bin");
    if path.metadata().is_ok_and(|m| m.len() == GENERATED_BYTES) {
        return Ok(path);
    }
    let write = || -> io::Result<()> {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let mut file = io::BufWriter::new(File::create(&path)?);
        let mut block = vec![0; 1 << 20];
        for _ in 0..GENERATED_BYTES / block.len() as u64 {
            rng.fill_bytes(&mut block);
            file.write_all(&block)?;
        }
        file.flush()
    };
    write().map_err(|e| cannot("write", &path, &e))?;
    Ok(path)
}

fn sha256(path: &Path) -> Result<Vec<u8>, DemoError> {
    let hash = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let mut context = digest::Context::new(&digest::SHA256);
        let mut block = vec![0; 1 << 20];
        loop {
            match file.read(&mut block)? {
                0 => return Ok(context.finish().as_ref().to_vec()),
                n => context.update(&block[..n]),
            }
        }
    };
    hash().map_err(|e| cannot("read", path, &e))
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(LOG_TAIL_LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
