//! `larder publish`: uploads a file or a directory, continuing where an earlier try stopped, and
//! puts it on the hot list.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

use super::{
    hub::{CliError, HubArgs, HubClient, QUICK},
    output,
};
use crate::{
    api::hub::{NewUpload, PublishRequest, Published, UploadFile, UploadState},
    logic::units::HumanBytes,
};

const CHUNK_BYTES: usize = 256 * 1024;
/// The hub hashes everything in this time; even 16 TiB from one disk would fit.
const PUBLISH_LIMIT: Duration = Duration::from_secs(24 * 3600);
const DAY_SECONDS: u64 = 24 * 3600;
/// A line of progress is for people; more often than this nobody can read it.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// How often a lost connection is picked up again. With doubling pauses this is a minute, after
/// which the hub has given up on the old connection too.
const TRIES: u32 = 5;

#[derive(clap::Args)]
pub struct PublishArgs {
    /// A file, or a directory with everything in it.
    path: PathBuf,
    /// Days until devices stop serving it.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    lease: u64,
    /// How many devices should hold it.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
    /// Key into the price table of the hub's policy.
    #[arg(long, default_value = "standard")]
    price_class: String,
    /// How much it is wanted, against other contents.
    #[arg(long, default_value_t = 1.0)]
    score: f64,
    /// Only this hub's tracker may hand out peers (BEP 27).
    #[arg(long)]
    private: bool,
    #[command(flatten)]
    hub: HubArgs,
}

pub async fn run(args: PublishArgs) -> Result<(), CliError> {
    let client = HubClient::new(&args.hub)?;
    let content = Content::read(&args.path)?;
    let request = PublishRequest {
        lease_seconds: args.lease * DAY_SECONDS,
        replicas: args.replicas,
        price_class: args.price_class,
        score: args.score,
        private: args.private,
    };
    let published = publish(&client, &content, &request, args.hub.json).await?;
    if args.hub.json {
        output::json(&published);
        return Ok(());
    }
    let what = if published.already_known { "lease renewed" } else { "published" };
    println!("{what}, on the hot list from epoch {} on", published.epoch);
    println!("infohash  {}", published.infohash);
    println!("torrent   {}", published.metainfo_url);
    println!("magnet    {}", published.magnet);
    Ok(())
}

/// Uploads what the hub lacks, and puts the content on the list. `quiet` shows no progress.
pub async fn publish(
    client: &HubClient,
    content: &Content,
    request: &PublishRequest,
    quiet: bool,
) -> Result<Published, CliError> {
    let state = upload(client, content, quiet).await?;
    client.post(&format!("uploads/{}/publish", state.id), request, PUBLISH_LIMIT).await
}

/// What is to be uploaded: the description for the hub and the files behind it, in order.
pub struct Content {
    new: NewUpload,
    files: Arc<[SourceFile]>,
    pub total_bytes: u64,
}

struct SourceFile {
    path: PathBuf,
    length: u64,
}

impl Content {
    pub fn read(path: &Path) -> Result<Content, CliError> {
        let wrong = |problem| CliError::Content { path: path.to_owned(), problem };
        let real = fs::canonicalize(path)
            .map_err(|source| CliError::File { path: path.to_owned(), source })?;
        let name = real.file_name().ok_or(wrong("the root folder cannot be published"))?;
        let name = name.to_str().ok_or(wrong("the name is not UTF-8; rename it"))?.to_owned();
        let directory = real.is_dir();
        let mut found = Vec::new();
        if directory {
            walk(&real, &mut Vec::new(), &mut found)?;
        } else {
            found.push(source_file(&real, vec![name.clone()])?);
        }
        let total_bytes = found.iter().map(|f| f.source.length).sum();
        if total_bytes == 0 {
            return Err(wrong("there is nothing in it to publish"));
        }
        let mut fingerprint = real.display().to_string();
        let (mut files, mut sources) = (Vec::new(), Vec::new());
        for file in found {
            fingerprint.push_str(&format!("|{}", file.modified_nanos));
            files.push(UploadFile { path: file.path, length: file.source.length });
            sources.push(file.source);
        }
        let fingerprint = crate::logic::infohash::sha1(fingerprint.as_bytes());
        let fingerprint = data_encoding::HEXLOWER.encode(&fingerprint);
        let new = NewUpload { name, directory, files, fingerprint };
        Ok(Content { new, files: sources.into(), total_bytes })
    }

    pub fn name(&self) -> &str {
        &self.new.name
    }

    /// Where each file is to be found below the content's folder, and where it came from.
    pub fn files(&self) -> impl Iterator<Item = (PathBuf, &Path)> {
        let sources = self.files.iter().map(|f| f.path.as_path());
        self.new.files.iter().map(|f| f.path.iter().collect()).zip(sources)
    }
}

struct FoundFile {
    source: SourceFile,
    /// Below the directory.
    path: Vec<String>,
    modified_nanos: u128,
}

/// Everything below `dir` in order of name. Symbolic links are refused: they could lead anywhere.
fn walk(dir: &Path, above: &mut Vec<String>, found: &mut Vec<FoundFile>) -> Result<(), CliError> {
    let failed = |source| CliError::File { path: dir.to_owned(), source };
    let mut entries: Vec<fs::DirEntry> =
        fs::read_dir(dir).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let wrong = |problem| CliError::Content { path: path.clone(), problem };
        let name = entry.file_name();
        let name = name.to_str().ok_or(wrong("the name is not UTF-8; rename it"))?.to_owned();
        let kind = entry.file_type().map_err(failed)?;
        above.push(name);
        if kind.is_dir() {
            walk(&path, above, found)?;
        } else if kind.is_file() {
            found.push(source_file(&path, above.clone())?);
        } else {
            return Err(wrong("only files and folders can be published, no links or devices"));
        }
        above.pop();
    }
    Ok(())
}

fn source_file(real: &Path, path: Vec<String>) -> Result<FoundFile, CliError> {
    let failed = |source| CliError::File { path: real.to_owned(), source };
    let about = fs::metadata(real).map_err(failed)?;
    if !about.is_file() {
        let problem = "only files and folders can be published";
        return Err(CliError::Content { path: real.to_owned(), problem });
    }
    let modified = about.modified().map_err(failed)?;
    Ok(FoundFile {
        source: SourceFile { path: real.to_owned(), length: about.len() },
        path,
        modified_nanos: modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos(),
    })
}

/// Uploads what the hub does not have yet. A lost connection is picked up where it broke.
async fn upload(
    client: &HubClient,
    content: &Content,
    quiet: bool,
) -> Result<UploadState, CliError> {
    let mut tries = 0;
    loop {
        let state: UploadState = client.post("uploads", &content.new, QUICK).await?;
        if state.received_bytes == content.total_bytes {
            return Ok(state);
        }
        let start = state.received_bytes;
        let progress = Progress::new(start, content.total_bytes, quiet);
        let body = reqwest::Body::wrap_stream(bytes_from(content.files.clone(), start, progress));
        let path = format!("uploads/{}?offset={start}", state.id);
        let sent: Result<UploadState, CliError> =
            client.put(&path, content.total_bytes - start, body).await;
        match sent {
            Ok(state) if state.received_bytes == content.total_bytes => return Ok(state),
            Ok(_) => {}
            // The stream ends early when a file is shorter than it was: no retry helps.
            Err(error) => {
                if let Some(changed) = changed(content) {
                    return Err(CliError::Changed(changed));
                }
                if tries == TRIES || !may_pass(&error) {
                    return Err(error);
                }
            }
        }
        tries += 1;
        tokio::time::sleep(Duration::from_secs(1 << tries)).await;
    }
}

/// A lost connection, also one that the hub has not noticed yet and still waits on.
fn may_pass(error: &CliError) -> bool {
    match error {
        CliError::Unreachable { .. } => true,
        CliError::Refused(e) => {
            matches!(e.code.as_str(), "upload_busy" | "upload_interrupted" | "upload_offset")
        }
        _ => false,
    }
}

fn changed(content: &Content) -> Option<PathBuf> {
    let differs = |f: &&SourceFile| !fs::metadata(&f.path).is_ok_and(|m| m.len() == f.length);
    content.files.iter().find(differs).map(|f| f.path.clone())
}

/// The files' bytes, one after the other, from `start` on.
fn bytes_from(
    files: Arc<[SourceFile]>,
    start: u64,
    progress: Progress,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    let reader = Reader { files, next: 0, skip: start, open: None, progress };
    stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.chunk().await?.map(|chunk| (chunk, reader)))
    })
}

struct Reader {
    files: Arc<[SourceFile]>,
    /// Index of the file after the open one.
    next: usize,
    /// Bytes to leave out from here on.
    skip: u64,
    /// The open file and what is left of it.
    open: Option<(tokio::fs::File, u64)>,
    progress: Progress,
}

impl Reader {
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some((file, left)) = &mut self.open
                && *left > 0
            {
                let mut chunk = vec![0; (*left).min(CHUNK_BYTES as u64) as usize];
                let read = file.read(&mut chunk).await?;
                if read == 0 {
                    return Err(io::Error::other("a file became shorter"));
                }
                chunk.truncate(read);
                *left -= read as u64;
                self.progress.add(read as u64);
                return Ok(Some(chunk.into()));
            }
            let Some(source) = self.files.get(self.next) else { return Ok(None) };
            self.next += 1;
            self.open = None;
            if self.skip >= source.length {
                self.skip -= source.length;
                continue;
            }
            let mut file = tokio::fs::File::open(&source.path).await?;
            file.seek(SeekFrom::Start(self.skip)).await?;
            self.open = Some((file, source.length - self.skip));
            self.skip = 0;
        }
    }
}

/// A line on a terminal, rewritten as bytes leave.
struct Progress {
    sent: u64,
    total: u64,
    shown: Option<Instant>,
    quiet: bool,
}

impl Progress {
    fn new(sent: u64, total: u64, quiet: bool) -> Progress {
        Progress { sent, total, shown: None, quiet: quiet || !io::stderr().is_terminal() }
    }

    fn add(&mut self, bytes: u64) {
        self.sent += bytes;
        let due = self.shown.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
        if self.quiet || !(due || self.sent == self.total) {
            return;
        }
        self.shown = Some(Instant::now());
        let (sent, total) = (HumanBytes(self.sent), HumanBytes(self.total));
        let end = if self.sent == self.total { "\n" } else { "" };
        eprint!("\ruploading {sent} of {total}  {end}");
        // Progress that cannot be shown is no reason to stop.
        let _ = io::stderr().flush();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |path: &str| dir.path().join("season").join(path);
        fs::create_dir_all(at("b")).expect("creates");
        fs::write(at("b/two"), "22").expect("writes");
        fs::write(at("a"), "1").expect("writes");
        fs::write(at("c"), "333").expect("writes");
        fs::write(at("empty"), "").expect("writes");
        dir
    }

    #[tokio::test]
    async fn sends_files_in_order_from_any_offset() {
        let dir = tree();
        let content = Content::read(&dir.path().join("season")).expect("reads");
        let paths: Vec<String> = content.new.files.iter().map(|f| f.path.join("/")).collect();
        assert_eq!(paths, ["a", "b/two", "c", "empty"]);
        assert_eq!((content.new.name.as_str(), content.total_bytes), ("season", 6));
        for start in 0..=6 {
            let progress = Progress::new(start, 6, true);
            let chunks: Vec<Bytes> = bytes_from(content.files.clone(), start, progress)
                .try_collect()
                .await
                .expect("reads");
            assert_eq!(chunks.concat(), b"122333"[start as usize..], "{start}");
        }
    }

    #[test]
    fn a_changed_file_is_another_upload() {
        let dir = tree();
        let path = dir.path().join("season");
        let before = Content::read(&path).expect("reads").new;
        assert_eq!(Content::read(&path).expect("reads").new, before);
        let file = fs::File::options().write(true).open(path.join("c")).expect("opens");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(7)).expect("sets");
        let after = Content::read(&path).expect("reads").new;
        assert_eq!(after.files, before.files);
        assert_ne!(after.fingerprint, before.fingerprint);
    }

    #[test]
    fn refuses_links_and_nothing_at_all() {
        let dir = tree();
        let path = dir.path().join("season");
        std::os::unix::fs::symlink("/etc/passwd", path.join("link")).expect("links");
        let refused = |path: &Path| Content::read(path).err().map(|e| e.to_string());
        let problem = refused(&path).expect("refused");
        assert!(problem.contains("no links"), "{problem}");
        let problem = refused(&path.join("empty")).expect("refused");
        assert!(problem.contains("nothing in it"), "{problem}");
        assert!(matches!(Content::read(&path.join("absent")), Err(CliError::File { .. })));
    }
}
