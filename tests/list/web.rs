//! A web server with the repository's files, which can be told to misbehave; and the device that asks it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use larder::{
    device::upstream::{self, Answer, FetchedList, ListRepository, Outcome, UpstreamError},
    logic::{
        hotlist::HotList,
        now::{UnixSeconds, WallTime},
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::publisher::{Files, NOW, Publisher, sha256};

/// How a file is answered for instead of honestly.
#[derive(Clone, Debug)]
pub enum Trick {
    /// Status, and more lines of the head.
    Status(u16, &'static str),
    /// "Not modified", whatever is asked.
    NotModified,
    /// The file, but always with this ETag.
    Etag(&'static str),
    /// Bytes without end.
    Endless,
    /// Claims to be this long, and sends nothing.
    Claims(u64),
    /// A byte now and then.
    Trickle,
    /// No answer at all.
    Silent,
    /// A question that may wait is cut off after so long, without a word.
    CutWaiting(Duration),
    /// It says that it has waited, but has not.
    PretendWaiting,
    /// A question that may wait waits that long.
    Wait(Duration),
}

#[derive(Default)]
pub struct State {
    pub files: Files,
    pub tricks: BTreeMap<String, Trick>,
    /// The heads of all requests, in order.
    pub asked: Vec<String>,
}

pub struct Web {
    pub url: url::Url,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl Web {
    pub async fn start(publisher: &Publisher) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move { answer(stream, state).await });
            }
        });
        let url = format!("http://{address}/").parse().expect("a URL");
        let web = Web { url, state, serving };
        web.show(publisher);
        web
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    pub fn show(&self, publisher: &Publisher) {
        self.state().files = publisher.files.clone();
    }

    pub fn trick(&self, path: &str, trick: Trick) {
        self.state().tricks.insert(path.into(), trick);
    }

    pub fn behave(&self) {
        self.state().tricks.clear();
    }

    pub fn asked_for(&self, path: &str) -> Vec<String> {
        let wanted = format!("GET /tuf/{path} ");
        self.state().asked.iter().filter(|head| head.starts_with(&wanted)).cloned().collect()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let path = head.split(' ').nth(1).and_then(|p| p.strip_prefix("/tuf/")).unwrap_or_default();
    let (file, trick) = {
        let mut state = state.lock().expect("nobody panics with it");
        state.asked.push(head.replacen("get ", "GET ", 1));
        (state.files.get(path).cloned(), state.tricks.get(path).cloned())
    };
    // A client that has had enough closes; that is no matter of ours.
    let _ = perform(&mut stream, &head, file, trick).await;
}

async fn perform(
    stream: &mut TcpStream,
    head: &str,
    file: Option<Vec<u8>>,
    trick: Option<Trick>,
) -> std::io::Result<()> {
    let may_wait = head.contains("\r\nprefer: wait=");
    let mut more = String::new();
    let mut etag = file.as_ref().map(|file| format!("\"{}\"", sha256(file)));
    match trick {
        Some(Trick::Status(status, lines)) => {
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n{lines}\r\n");
            return stream.write_all(text.as_bytes()).await;
        }
        Some(Trick::NotModified) => return not_modified(stream, "").await,
        Some(Trick::Etag(lie)) => etag = Some(lie.into()),
        Some(Trick::Endless) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            loop {
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
        Some(Trick::Claims(bytes)) => {
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            stream.write_all(text.as_bytes()).await?;
            return std::future::pending().await;
        }
        Some(Trick::Trickle) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n").await?;
            loop {
                stream.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Some(Trick::Silent) => return std::future::pending().await,
        Some(Trick::CutWaiting(after)) if may_wait => {
            tokio::time::sleep(after).await;
            return Ok(());
        }
        Some(Trick::PretendWaiting) => more = "preference-applied: wait=25\r\n".into(),
        Some(Trick::Wait(after)) if may_wait => {
            tokio::time::sleep(after).await;
            more = "preference-applied: wait\r\n".into();
        }
        Some(Trick::CutWaiting(_) | Trick::Wait(_)) | None => {}
    }
    let Some(file) = file else {
        return stream.write_all(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n").await;
    };
    let etag = etag.unwrap_or_default();
    if head.contains(&format!("\r\nif-none-match: {etag}\r\n")) {
        return not_modified(stream, &more).await;
    }
    let length = file.len();
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\netag: {etag}\r\nconnection: close\r\n{more}\r\n"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.write_all(&file).await
}

async fn not_modified(stream: &mut TcpStream, more: &str) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 304 X\r\n{more}\r\n").as_bytes()).await
}

/// A device that follows the list behind `web`, with a memory that outlives it.
pub struct Device {
    repository: ListRepository,
    pub held: Option<HotList>,
    root: Vec<u8>,
    memory: TempDir,
}

impl Device {
    pub fn new(web: &Web, root: Vec<u8>) -> Device {
        let memory = tempfile::tempdir().expect("a folder");
        let repository = repository(web, &root, memory.path());
        Device { repository, held: None, root, memory }
    }

    /// One that follows what is published.
    pub async fn following(web: &Web, publisher: &Publisher) -> Device {
        let mut device = Device::new(web, publisher.first_root());
        device.accepts(0..).await;
        device
    }

    /// Another process with the same disk.
    pub fn restart(&mut self, web: &Web) {
        self.repository = repository(web, &self.root, self.memory.path());
    }

    pub fn restart_with(&mut self, web: &Web, root: Vec<u8>) {
        self.root = root;
        self.restart(web);
    }

    pub fn memory(&self) -> &Path {
        self.memory.path()
    }

    pub async fn ask_at(&mut self, now: UnixSeconds) -> Result<Answer, UpstreamError> {
        self.repository.fetch(self.held.as_ref(), WallTime::Synced(now)).await
    }

    pub async fn ask(&mut self) -> Result<Answer, UpstreamError> {
        self.ask_at(NOW).await
    }

    /// There is a list, of one of these epochs.
    pub async fn accepts(&mut self, epochs: impl std::ops::RangeBounds<u64>) -> FetchedList {
        let Outcome::News(fetched) = self.ask().await.expect("is accepted").outcome else {
            panic!("there was no list")
        };
        assert!(epochs.contains(&fetched.list.epoch), "epoch {}", fetched.list.epoch);
        self.held = Some(fetched.list.clone());
        *fetched
    }

    /// Whatever there is is refused, with one sentence that has this in it.
    pub async fn refuses(&mut self, because: &str) -> String {
        let error = self.ask().await.expect_err("is refused");
        let sentence = error.to_string();
        assert!(sentence.contains(because), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert!(sentence.len() < 500, "{sentence}");
        sentence
    }
}

fn repository(web: &Web, root: &[u8], memory: &Path) -> ListRepository {
    let client = upstream::client("0.0.0").expect("a client");
    ListRepository::new(client, &web.url, root.to_vec(), memory).expect("a folder")
}
