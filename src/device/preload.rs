//! `larderd preload`: finds the data of `.torrent` files on this machine and gives both to the store,
//! which verifies and pins them. For factories, USB sticks and benches. Talks to nobody; a running
//! larderd has the store locked, so it must be stopped meanwhile.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use super::store::{AdoptError, Adopted, Room, Source, Store, StoreError};
use crate::{
    config::device::DeviceConfig,
    logic::{
        metainfo::{File, MAX_METAINFO_BYTES, Metainfo, MetainfoError},
        units::HumanBytes,
    },
};

/// sysexits.h
const EX_DATAERR: u8 = 65;

#[derive(clap::Args)]
pub(super) struct PreloadArgs {
    /// Folder with the .torrent files
    #[arg(long, value_name = "DIR")]
    torrents: PathBuf,
    /// Folder with their data, laid out as BitTorrent clients leave it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PreloadError {
    #[error("cannot list {}: {source}; name the folder with the .torrent files", path.display())]
    List { path: PathBuf, source: io::Error },
    #[error("there is no .torrent file in {}", .0.display())]
    Empty(PathBuf),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl PreloadError {
    /// sysexits.h
    pub fn exit_code(&self) -> u8 {
        match self {
            PreloadError::List { .. } | PreloadError::Empty(_) => 66,
            PreloadError::Store(_) => 74,
        }
    }
}

/// Why one torrent was left out.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("cannot be read: {0}")]
    Read(io::Error),
    #[error("{0}")]
    Metainfo(#[from] MetainfoError),
    #[error("names a file that no folder can have: {0:?}")]
    Name(Vec<String>),
    #[error("{} is a symbolic link; put the folder itself there", .0.display())]
    Link(PathBuf),
    #[error("{0}")]
    Adopt(#[from] AdoptError),
}

/// Takes in what it can; what it cannot is named, with the reason, and the rest goes on.
pub(super) fn run(config: &DeviceConfig, args: &PreloadArgs) -> Result<ExitCode, PreloadError> {
    let torrents = torrents_in(&args.torrents)?;
    let store = Store::open(&config.data_dir)?;
    let room =
        Room { quota_bytes: config.cache.quota_bytes, reserve_bytes: config.cache.reserve_bytes };
    let mut refused = 0;
    for torrent in &torrents {
        match preload(&store, torrent, &args.data, room) {
            Ok((metainfo, adopted)) => println!("{}", line(&metainfo, adopted)),
            Err(why) => {
                refused += 1;
                eprintln!("larderd: {}: {why}", torrent.display());
            }
        }
    }
    println!("{} of {} pinned", torrents.len() - refused, torrents.len());
    Ok(if refused > 0 { ExitCode::from(EX_DATAERR) } else { ExitCode::SUCCESS })
}

fn line(metainfo: &Metainfo, adopted: Adopted) -> String {
    let how = match adopted {
        Adopted::Linked => "verified, linked",
        Adopted::Copied => "verified, copied",
        Adopted::Held => "held already",
    };
    let size = HumanBytes(metainfo.total_bytes);
    format!("{} {size} {how}: {:?}", metainfo.infohash, metainfo.name)
}

/// In order of their names.
fn torrents_in(folder: &Path) -> Result<Vec<PathBuf>, PreloadError> {
    let list = |source| PreloadError::List { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(list)?;
    let paths = entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
    let mut torrents = paths.map_err(list)?;
    torrents.retain(|p| p.extension().is_some_and(|e| e == "torrent"));
    torrents.sort();
    if torrents.is_empty() {
        return Err(PreloadError::Empty(folder.to_owned()));
    }
    Ok(torrents)
}

fn preload(
    store: &Store,
    torrent: &Path,
    data: &Path,
    room: Room,
) -> Result<(Metainfo, Adopted), Refused> {
    let length = fs::metadata(torrent).map_err(Refused::Read)?.len();
    if length > MAX_METAINFO_BYTES as u64 {
        return Err(MetainfoError::TooLarge(length as usize).into());
    }
    let bytes = fs::read(torrent).map_err(Refused::Read)?;
    let metainfo = Metainfo::parse(&bytes)?;
    let sources = sources(&metainfo, data)?;
    let adopted = store.adopt(&metainfo, &bytes, &sources, room)?;
    Ok((metainfo, adopted))
}

/// Where a client would have put the torrent's files below `data`. Names come from a stranger's file:
/// only plain ones are looked up, and no link is followed on the way.
fn sources(metainfo: &Metainfo, data: &Path) -> Result<Vec<Source>, Refused> {
    let mut sources = Vec::with_capacity(metainfo.files.len());
    for file in &metainfo.files {
        let mut names = file.path.clone();
        if metainfo.directory {
            names.insert(0, metainfo.name.clone());
        }
        let mut path = data.to_owned();
        for name in &names {
            if fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink()) && path != data {
                return Err(Refused::Link(path));
            }
            if !is_plain(name) {
                return Err(Refused::Name(names));
            }
            path.push(name);
        }
        sources.push(match is_padding(file) && !path.exists() {
            true => Source::Zeros,
            false => Source::File(path),
        });
    }
    Ok(sources)
}

fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(only)) if only == name);
    plain && components.next().is_none() && !name.contains('\0')
}

/// BEP 47's files for alignment, by the name that all clients give them.
fn is_padding(file: &File) -> bool {
    file.path.len() > 1 && file.path[0] == ".pad"
}

#[cfg(test)]
mod tests;
