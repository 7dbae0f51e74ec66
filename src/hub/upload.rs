//! Uploads on their way in: one growing file each, in a folder named by what is being uploaded.
//! The file's length is the state, so a crash or a lost connection costs nothing that had arrived.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;

use crate::{
    api::hub::{NewUpload, UploadState},
    hub::keys::sha256_hex,
    logic::{
        infohash::{Infohash, sha1},
        metainfo::{self, File, Metainfo, MetainfoError, NewLayout, NewMetainfo},
    },
};

/// A peer's client must be able to hold the list.
const MAX_FILES: usize = 100_000;
const MAX_PATH_COMPONENTS: usize = 32;
/// What filesystems take for one name.
const MAX_NAME_BYTES: usize = 255;
/// The hot list's own limit for one content.
const MAX_TOTAL_BYTES: u64 = 16 << 40;
/// An uploader that sends nothing for so long is gone; what came is kept.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Long enough for holidays.
const ABANDONED_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("{what} {problem}")]
    Name { what: String, problem: &'static str },
    #[error("{0}")]
    Shape(&'static str),
    #[error("there is no upload {0}; open one with POST /api/v1/uploads")]
    Unknown(String),
    #[error("another request is writing to this upload; wait until it has ended")]
    Busy,
    #[error("the upload is at byte {}; continue from there", .0.received_bytes)]
    WrongOffset(UploadState),
    #[error("more bytes came than the {0} that were announced")]
    TooManyBytes(u64),
    #[error("the connection was lost or silent; {} bytes are safe, continue from there", .0.received_bytes)]
    Interrupted(UploadState),
    #[error("{} of {} bytes have arrived; send the rest first", .0.received_bytes, .0.total_bytes)]
    Incomplete(UploadState),
    #[error("cannot store the upload: {0}")]
    Io(#[from] io::Error),
    #[error("what was uploaded cannot be published: {0}")]
    Metainfo(#[from] MetainfoError),
}

pub struct Uploads {
    dir: PathBuf,
    busy: Mutex<BTreeSet<String>>,
}

/// The right to write to an upload; ends when dropped.
pub struct Claim<'a> {
    uploads: &'a Uploads,
    id: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.uploads.busy.lock().remove(&self.id);
    }
}

impl Uploads {
    pub fn new(dir: PathBuf) -> Uploads {
        Uploads { dir, busy: Mutex::default() }
    }

    /// Opens an upload, or finds it again: the same description has the same id.
    pub fn open(&self, new: &NewUpload) -> Result<UploadState, UploadError> {
        let total_bytes = check(new)?;
        let text = serde_json::to_vec(new).expect("our own types serialise");
        let id = sha256_hex(&text)[..32].to_owned();
        let dir = self.dir.join(&id);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("upload.json"), &text)?;
        fs::OpenOptions::new().create(true).append(true).open(dir.join("data"))?;
        Ok(UploadState { received_bytes: self.received(&id)?, total_bytes, id })
    }

    pub fn state(&self, id: &str) -> Result<(NewUpload, UploadState), UploadError> {
        let unknown = || UploadError::Unknown(id.to_owned());
        // Also keeps the id from being a path.
        if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let text = match fs::read(self.dir.join(id).join("upload.json")) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(unknown()),
            Err(e) => return Err(e.into()),
        };
        let new: NewUpload = serde_json::from_slice(&text).map_err(io::Error::other)?;
        let total_bytes = new.files.iter().map(|f| f.length).sum();
        let received_bytes = self.received(id)?;
        Ok((new, UploadState { id: id.to_owned(), received_bytes, total_bytes }))
    }

    pub fn claim(&self, id: &str) -> Result<Claim<'_>, UploadError> {
        match self.busy.lock().insert(id.to_owned()) {
            true => Ok(Claim { uploads: self, id: id.to_owned() }),
            false => Err(UploadError::Busy),
        }
    }

    /// Appends what the stream brings. Whatever came before an error is kept.
    pub async fn receive<E>(
        &self,
        claim: &Claim<'_>,
        offset: u64,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<UploadState, UploadError> {
        let (_, mut state) = self.state(&claim.id)?;
        if offset != state.received_bytes {
            return Err(UploadError::WrongOffset(state));
        }
        let mut file =
            tokio::fs::OpenOptions::new().append(true).open(self.data(&claim.id)).await?;
        let mut body = std::pin::pin!(body);
        let outcome = loop {
            match tokio::time::timeout(IDLE_LIMIT, body.next()).await {
                Ok(Some(Ok(chunk))) => {
                    if state.received_bytes + chunk.len() as u64 > state.total_bytes {
                        break Err(UploadError::TooManyBytes(state.total_bytes));
                    }
                    file.write_all(&chunk).await?;
                    state.received_bytes += chunk.len() as u64;
                }
                Ok(None) => break Ok(()),
                Ok(Some(Err(_))) | Err(_) => break Err(UploadError::Interrupted(state.clone())),
            }
        };
        file.flush().await?;
        file.sync_data().await?;
        outcome.map(|()| state)
    }

    /// Hashes a complete upload. Takes as long as reading it; call where blocking is fine.
    pub fn hash(&self, id: &str, private: bool) -> Result<Hashed, UploadError> {
        let (upload, state) = self.state(id)?;
        if state.received_bytes != state.total_bytes {
            return Err(UploadError::Incomplete(state));
        }
        let piece_length = metainfo::piece_length_for(state.total_bytes);
        let blob = self.data(id);
        let pieces = hash_pieces(&blob, piece_length)?;
        let files: Vec<File> =
            upload.files.iter().map(|f| File { path: f.path.clone(), length: f.length }).collect();
        let (torrent, infohash) = NewMetainfo {
            name: &upload.name,
            piece_length,
            pieces: &pieces,
            layout: match upload.directory {
                true => NewLayout::Directory { files: &files },
                false => NewLayout::Single { length: state.total_bytes },
            },
            private,
            tracker_tiers: &[],
            web_seeds: &[],
        }
        .encode();
        // What we cannot read ourselves, no device could.
        let info = Metainfo::parse_expecting(&torrent, infohash)?.info_bytes;
        Ok(Hashed { infohash, info, blob, upload, total_bytes: state.total_bytes })
    }

    /// Forgets an upload, whether it was published or given up.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        fs::remove_dir_all(self.dir.join(id))
    }

    /// Makes room: uploads that nobody has added to for a long time.
    pub fn remove_abandoned(&self) -> Result<(), UploadError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        for entry in entries {
            let id = entry?.file_name().to_string_lossy().into_owned();
            let age = |at: SystemTime| SystemTime::now().duration_since(at).unwrap_or_default();
            let modified = fs::metadata(self.data(&id)).and_then(|data| data.modified());
            if modified.is_ok_and(|at| age(at) > ABANDONED_AFTER)
                && let Ok(_claim) = self.claim(&id)
            {
                tracing::info!(id, "removing an upload that was given up");
                self.remove(&id)?;
            }
        }
        Ok(())
    }

    fn data(&self, id: &str) -> PathBuf {
        self.dir.join(id).join("data")
    }

    fn received(&self, id: &str) -> io::Result<u64> {
        match fs::metadata(self.data(id)) {
            Ok(data) => Ok(data.len()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }
}

/// A complete upload, ready to be published.
pub struct Hashed {
    pub infohash: Infohash,
    pub info: Vec<u8>,
    pub blob: PathBuf,
    pub upload: NewUpload,
    pub total_bytes: u64,
}

fn hash_pieces(blob: &Path, piece_length: u32) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut file = fs::File::open(blob)?;
    let mut piece = Vec::with_capacity(piece_length as usize);
    let mut pieces = Vec::new();
    loop {
        piece.clear();
        (&mut file).take(piece_length.into()).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(pieces);
        }
        pieces.extend(sha1(&piece));
    }
}

/// Refuses what BitTorrent clients would choke on, or be led astray by. Returns the size.
fn check(new: &NewUpload) -> Result<u64, UploadError> {
    check_name(&new.name, "the name")?;
    if new.files.is_empty() || new.files.len() > MAX_FILES {
        return Err(UploadError::Shape("an upload has 1 to 100000 files"));
    }
    if !new.directory && (new.files.len() != 1 || new.files[0].path != [new.name.as_str()]) {
        return Err(UploadError::Shape(
            "without `directory`, an upload has exactly one file, with the upload's name as its path",
        ));
    }
    let mut paths = BTreeSet::new();
    let mut total = 0u64;
    for file in &new.files {
        if file.path.is_empty() || file.path.len() > MAX_PATH_COMPONENTS {
            return Err(UploadError::Shape("a file's path has 1 to 32 components"));
        }
        for component in &file.path {
            check_name(component, "a file's path")?;
        }
        if !paths.insert(&file.path[..]) {
            return Err(UploadError::Shape("two files have the same path"));
        }
        total = total
            .checked_add(file.length)
            .filter(|total| *total <= MAX_TOTAL_BYTES)
            .ok_or(UploadError::Shape("the content is larger than 16 TiB"))?;
    }
    let inside_a_file = |path: &&[String]| (1..path.len()).any(|n| paths.contains(&path[..n]));
    if paths.iter().any(inside_a_file) {
        return Err(UploadError::Shape("a path is a file and a folder at once"));
    }
    match total {
        0 => Err(UploadError::Shape("the content is empty")),
        total => Ok(total),
    }
}

fn check_name(name: &str, what: &str) -> Result<(), UploadError> {
    let problem = match name {
        "" => "is empty",
        "." | ".." => "must not be `.` or `..`",
        n if n.len() > MAX_NAME_BYTES => "has more than 255 bytes",
        n if n.chars().any(char::is_control) => "has control characters",
        n if n.contains(['/', '\\']) => "must not contain slashes",
        _ => return Ok(()),
    };
    Err(UploadError::Name { what: what.to_owned(), problem })
}

#[cfg(test)]
mod tests;
