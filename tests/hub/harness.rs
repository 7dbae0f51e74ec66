//! A hub of one's own for each test, a client of its API, and a device that signs.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use larder::{
    api::{
        endpoints::{ENDPOINTS_FILE, HubEndpoints},
        hub::{
            ApiError, ClaimCodesRequest, ClaimCodesResponse, DeviceId, EnrolRequest, EnrolResponse,
            NewUpload, PublishRequest, Published, Report, ReportReceipt, UploadFile, UploadState,
        },
        signed::{Signed, SigningKey},
    },
    logic::{
        infohash::Infohash,
        now::{UnixSeconds, UtcHour},
        usage::{PeerClass, Usage, UsageLine},
    },
};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

/// Far more than anything in here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    UnixSeconds(since.as_secs())
}

/// Looks again and again until there is something.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub struct Hub {
    dir: tempfile::TempDir,
    process: Option<Child>,
    pub url: String,
    token: String,
    http: reqwest::Client,
}

pub type Answer<T> = Result<T, (u16, ApiError)>;

impl Hub {
    pub async fn start() -> Hub {
        Hub::start_with("").await
    }

    /// With a configuration file of this text.
    pub async fn start_with(config: &str) -> Hub {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("hub.toml"), config).expect("writes");
        let mut hub = Hub {
            dir,
            process: None,
            url: String::new(),
            token: String::new(),
            http: reqwest::Client::new(),
        };
        let init = hub.command("init").output().expect("runs");
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let token = std::fs::read_to_string(hub.data().join("operator-token")).expect("a token");
        hub.token = token.trim().to_owned();
        hub.run().await;
        hub
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder-hub"));
        command.arg(name).arg("--config").arg(self.dir.path().join("hub.toml"));
        command.arg("--data-dir").arg(self.data());
        command
    }

    pub async fn run(&mut self) {
        let mut command = self.command("run");
        command.args(["--listen", "127.0.0.1:0", "--public-url", "http://127.0.0.1:0/"]);
        let process = command.stderr(Stdio::null()).spawn().expect("runs");
        let pid = process.id();
        self.process = Some(process);
        let file = self.data().join(ENDPOINTS_FILE);
        self.url = wait_for("the hub's endpoints", || async {
            let endpoints = std::fs::read(&file).ok()?;
            let endpoints: HubEndpoints = serde_json::from_slice(&endpoints).ok()?;
            (endpoints.pid == pid).then_some(endpoints.hub_url)
        })
        .await;
    }

    /// As a power cut would.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("is running");
        process.kill().expect("is ours");
        process.wait().expect("is ours");
    }

    pub async fn stop(&mut self) -> std::process::ExitStatus {
        let mut process = self.process.take().expect("is running");
        let pid = nix::unistd::Pid::from_raw(process.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("is ours");
        tokio::task::spawn_blocking(move || process.wait().expect("is ours")).await.expect("ends")
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// `larder` with this hub's address and token.
    pub async fn larder(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_larder"));
        command.args(args).env("LARDER_HUB_URL", &self.url);
        command.env("LARDER_TOKEN_FILE", self.data().join("operator-token"));
        command.output().await.expect("runs")
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        self.request(Method::GET, path, headers).await
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> reqwest::Response {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("the hub answers")
    }

    pub async fn ask<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        let url = format!("{}api/v1/{path}", self.url);
        read(self.http.get(url).bearer_auth(&self.token).send().await.expect("answers")).await
    }

    pub async fn tell<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        self.tell_as(&self.token, path, body).await
    }

    pub async fn tell_as<T: DeserializeOwned>(
        &self,
        token: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Answer<T> {
        let url = format!("{}api/v1/{path}", self.url);
        let request = self.http.post(url).bearer_auth(token).json(body);
        read(request.send().await.expect("answers")).await
    }

    pub async fn put(&self, id: &str, offset: u64, bytes: &[u8]) -> Answer<UploadState> {
        let url = format!("{}api/v1/uploads/{id}?offset={offset}", self.url);
        let request = self.http.put(url).bearer_auth(&self.token).body(bytes.to_vec());
        read(request.send().await.expect("answers")).await
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub async fn publish(&self, name: &str, bytes: &[u8]) -> Published {
        let upload = single(name, bytes.len() as u64);
        let state: UploadState = self.tell("uploads", &upload).await.expect("opens");
        self.put(&state.id, 0, bytes).await.expect("arrives");
        let path = format!("uploads/{}/publish", state.id);
        self.tell(&path, &publish_request()).await.expect("is published")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Already gone is fine.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

async fn read<T: DeserializeOwned>(answer: reqwest::Response) -> Answer<T> {
    let status = answer.status();
    let bytes = answer.bytes().await.expect("a body");
    let text = String::from_utf8_lossy(&bytes);
    if status.is_success() {
        return Ok(serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {text}")));
    }
    Err((status.as_u16(), serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {text}"))))
}

pub fn single(name: &str, length: u64) -> NewUpload {
    NewUpload {
        name: name.into(),
        directory: false,
        files: vec![UploadFile { path: vec![name.into()], length }],
        fingerprint: String::new(),
    }
}

pub fn publish_request() -> PublishRequest {
    PublishRequest {
        lease_seconds: 86_400,
        replicas: 2,
        price_class: "standard".into(),
        score: 1.0,
        private: false,
    }
}

/// Bytes that look random and differ by `seed`.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub struct Device {
    pub key: SigningKey,
    pub peer_id: [u8; 20],
    pub id: DeviceId,
    pub number: u64,
    pub previous_hash: String,
}

impl Device {
    pub fn new(n: u8) -> Device {
        Device {
            key: SigningKey::generate(),
            peer_id: [b'a' + n; 20],
            id: String::new(),
            number: 1,
            previous_hash: "0".repeat(64),
        }
    }

    pub async fn enrolled(hub: &Hub, n: u8) -> Device {
        let mut device = Device::new(n);
        let code = claim_code(hub).await;
        device.id = device.enrol(hub, &code).await.expect("enrols").device;
        device
    }

    pub async fn enrol(&self, hub: &Hub, claim_code: &str) -> Answer<EnrolResponse> {
        let request = EnrolRequest {
            claim_code: claim_code.into(),
            peer_id: HEXLOWER.encode(&self.peer_id),
            created_at: now(),
        };
        hub.tell_as("", "enrol", &self.sign(&request)).await
    }

    pub fn sign(&self, document: &impl Serialize) -> Signed {
        Signed::new(document, &self.key)
    }

    /// The next report, as it would be sent; call `reported` when the hub has it.
    pub fn report(&self, lines: Vec<UsageLine>) -> Report {
        Report {
            format: 1,
            device: self.id.clone(),
            number: self.number,
            previous_hash: self.previous_hash.clone(),
            created_at: now(),
            ledger: None,
            lines,
        }
    }

    pub async fn send(&mut self, hub: &Hub, lines: Vec<UsageLine>) -> Answer<ReportReceipt> {
        let signed = self.sign(&self.report(lines));
        let receipt = hub.tell_as("", "reports", &signed).await?;
        self.reported(&signed);
        Ok(receipt)
    }

    pub fn reported(&mut self, signed: &Signed) {
        self.number += 1;
        self.previous_hash = payload_hash(signed);
    }
}

pub fn payload_hash(signed: &Signed) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signed.payload.as_bytes());
    HEXLOWER.encode(digest.as_ref())
}

pub async fn claim_code(hub: &Hub) -> String {
    let codes: ClaimCodesResponse =
        hub.tell("claim-codes", &ClaimCodesRequest { count: 1 }).await.expect("a code");
    codes.claim_codes[0].clone()
}

pub fn line(infohash: Infohash, hour: UtcHour, class: PeerClass, payload: u64) -> UsageLine {
    let usage = Usage { payload_bytes: payload, wire_bytes: payload.saturating_add(payload / 20) };
    UsageLine { infohash, hour, class, usage }
}

pub fn code<T: std::fmt::Debug>(answer: Answer<T>) -> (u16, String) {
    let (status, error) = answer.expect_err("refused");
    assert!(!error.message.is_empty());
    (status, error.code)
}
