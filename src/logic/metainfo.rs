//! `.torrent` files, version 1 (BEP 3, 12, 19, 27): read with limits, written in canonical form.
//! File names in here are for display; nothing may open a path made from them.

use bencode::{WithRawBytes, raw_value::RawValue};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};
use url::Url;

use super::{
    bencoding,
    infohash::Infohash,
    units::{KIB, MIB},
};

/// 16 TiB in 16 MiB pieces is 20 MiB of hashes; the rest is names.
pub const MAX_METAINFO_BYTES: usize = 32 * 1024 * 1024;
const MAX_FILES: usize = 100_000;
const MAX_PIECE_LENGTH: u64 = 64 * MIB;
/// The unit of a request on the wire.
pub const BLOCK_BYTES: u32 = 16 * 1024;

/// What a device or the hub needs to know of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metainfo {
    pub infohash: Infohash,
    pub name: String,
    pub piece_length: u32,
    pub total_bytes: u64,
    /// One SHA-1 a piece, 20 bytes each.
    pieces: Vec<u8>,
    /// In order; offsets follow from the lengths. A single-file torrent has one, named as the torrent.
    pub files: Vec<File>,
    /// The files are below a directory `name`; otherwise there is one file, named `name`.
    pub directory: bool,
    pub private: bool,
    /// The `info` value as it came: what `ut_metadata` (BEP 9) sends.
    pub info_bytes: Vec<u8>,
    pub announce: Option<String>,
    pub web_seeds: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path components as they came, lossily decoded.
    pub path: Vec<String>,
    pub length: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    #[error("the metainfo is {0} bytes, more than the limit of {MAX_METAINFO_BYTES}")]
    TooLarge(usize),
    #[error("the metainfo is not valid bencoding: {0}")]
    Malformed(String),
    #[error("the metainfo {0}")]
    Invalid(&'static str),
    #[error("the metainfo is of {found}, not of {expected}")]
    WrongInfohash { expected: Infohash, found: Infohash },
}

#[derive(Deserialize)]
struct RawMetainfo<'a> {
    #[serde(borrow)]
    info: WithRawBytes<RawInfo, &'a Bytes>,
    announce: Option<ByteBuf>,
    #[serde(rename = "url-list", default)]
    url_list: Option<UrlList>,
}

/// BEP 19 allows one URL or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum UrlList {
    Many(Vec<ByteBuf>),
    One(ByteBuf),
}

#[derive(Deserialize)]
struct RawInfo {
    name: ByteBuf,
    #[serde(rename = "piece length")]
    piece_length: u64,
    pieces: ByteBuf,
    length: Option<u64>,
    files: Option<Vec<RawFile>>,
    private: Option<u64>,
}

#[derive(Deserialize)]
struct RawFile {
    length: u64,
    path: Vec<ByteBuf>,
}

impl Metainfo {
    pub fn parse(bytes: &[u8]) -> Result<Metainfo, MetainfoError> {
        if bytes.len() > MAX_METAINFO_BYTES {
            return Err(MetainfoError::TooLarge(bytes.len()));
        }
        let raw: RawMetainfo =
            bencoding::from_bytes(bytes).map_err(|e| MetainfoError::Malformed(e.to_string()))?;
        let info_bytes = raw.info.raw_bytes.to_vec();
        let info = raw.info.data;
        let name = lossy(&info.name);
        let files = info.files(&name)?;
        let total_bytes = files
            .iter()
            .try_fold(0u64, |sum, f| sum.checked_add(f.length))
            .ok_or(MetainfoError::Invalid("has files of impossible length"))?;
        let piece_length = info.checked_piece_length()?;
        if total_bytes == 0 {
            return Err(MetainfoError::Invalid("has no content"));
        }
        if info.pieces.len() as u64 != total_bytes.div_ceil(u64::from(piece_length)) * 20 {
            return Err(MetainfoError::Invalid("has a wrong number of piece hashes"));
        }
        Ok(Metainfo {
            infohash: Infohash::of_info(&info_bytes),
            name,
            piece_length,
            total_bytes,
            pieces: info.pieces.into_vec(),
            files,
            directory: info.files.is_some(),
            private: info.private == Some(1),
            info_bytes,
            announce: raw.announce.map(|a| lossy(&a)),
            web_seeds: match raw.url_list {
                Some(UrlList::Many(urls)) => urls.iter().map(|u| lossy(u)).collect(),
                Some(UrlList::One(url)) if !url.is_empty() => vec![lossy(&url)],
                _ => vec![],
            },
        })
    }

    /// Parses, and refuses anything but the content that was asked for.
    pub fn parse_expecting(bytes: &[u8], expected: Infohash) -> Result<Metainfo, MetainfoError> {
        let metainfo = Metainfo::parse(bytes)?;
        if metainfo.infohash != expected {
            return Err(MetainfoError::WrongInfohash { expected, found: metainfo.infohash });
        }
        Ok(metainfo)
    }

    pub fn piece_count(&self) -> u32 {
        (self.pieces.len() / 20) as u32
    }

    /// Length of a piece in bytes; the last may be shorter. `None` past the end.
    pub fn piece_bytes(&self, piece: u32) -> Option<u32> {
        let start = u64::from(piece) * u64::from(self.piece_length);
        let left = self.total_bytes.checked_sub(start).filter(|left| *left > 0)?;
        Some(left.min(u64::from(self.piece_length)) as u32)
    }

    pub fn piece_offset(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.piece_length)
    }

    /// SHA-1 of the piece. `None` past the end.
    pub fn piece_hash(&self, piece: u32) -> Option<&[u8]> {
        let at = piece as usize * 20;
        self.pieces.get(at..at + 20)
    }

    /// Whether `data` is this piece.
    pub fn verifies(&self, piece: u32, data: &[u8]) -> bool {
        self.piece_bytes(piece) == Some(data.len() as u32)
            && self.piece_hash(piece).is_some_and(|want| want == super::infohash::sha1(data))
    }
}

impl RawInfo {
    fn files(&self, name: &str) -> Result<Vec<File>, MetainfoError> {
        match (&self.length, &self.files) {
            (Some(length), None) => Ok(vec![File { path: vec![name.to_owned()], length: *length }]),
            (None, Some(files)) if files.len() > MAX_FILES => {
                Err(MetainfoError::Invalid("has too many files"))
            }
            (None, Some(files)) => Ok(files
                .iter()
                .map(|f| File { path: f.path.iter().map(|c| lossy(c)).collect(), length: f.length })
                .collect()),
            _ => Err(MetainfoError::Invalid("must have either a length or files (BEP 3)")),
        }
    }

    fn checked_piece_length(&self) -> Result<u32, MetainfoError> {
        match self.piece_length {
            n if n < u64::from(BLOCK_BYTES) || n > MAX_PIECE_LENGTH => {
                Err(MetainfoError::Invalid("has a piece length outside 16 KiB to 64 MiB"))
            }
            n => Ok(n as u32),
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Piece length by content size: about 1,000–2,000 pieces, never under 1 MiB for content above
/// 256 MiB (bitfields stay small, and flash is written in erase-block-sized runs).
pub fn piece_length_for(total_bytes: u64) -> u32 {
    let length = match total_bytes {
        ..=16_777_216 => 64 * KIB,
        ..=67_108_864 => 256 * KIB,
        ..=268_435_456 => 512 * KIB,
        ..=2_147_483_648 => MIB,
        ..=8_589_934_592 => 4 * MIB,
        ..=34_359_738_368 => 8 * MIB,
        _ => 16 * MIB,
    };
    length as u32
}

/// What goes into a new `.torrent`.
pub struct NewMetainfo<'a> {
    pub name: &'a str,
    pub piece_length: u32,
    /// Concatenated SHA-1 hashes.
    pub pieces: &'a [u8],
    /// One file named `name`, or files below a directory `name`.
    pub layout: NewLayout<'a>,
    pub private: bool,
    pub tracker_tiers: &'a [Vec<Url>],
    pub web_seeds: &'a [Url],
}

pub enum NewLayout<'a> {
    Single { length: u64 },
    Directory { files: &'a [File] },
}

// Bencoded dictionaries are sorted by key (BEP 3): keep the fields in that order.
#[derive(Serialize)]
struct WriteMetainfo<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    announce: Option<&'a str>,
    #[serde(rename = "announce-list", skip_serializing_if = "Vec::is_empty")]
    announce_list: Vec<Vec<&'a str>>,
    info: RawValue<&'a [u8]>,
    #[serde(rename = "url-list", skip_serializing_if = "Vec::is_empty")]
    url_list: Vec<&'a str>,
}

#[derive(Serialize)]
struct WriteInfo<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<WriteFile<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    name: &'a str,
    #[serde(rename = "piece length")]
    piece_length: u32,
    pieces: &'a Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    private: Option<u8>,
}

#[derive(Serialize)]
struct WriteFile<'a> {
    length: u64,
    path: &'a [String],
}

impl NewMetainfo<'_> {
    /// The `.torrent` file's bytes and the infohash.
    pub fn encode(&self) -> (Vec<u8>, Infohash) {
        let (files, length) = match &self.layout {
            NewLayout::Single { length } => (None, Some(*length)),
            NewLayout::Directory { files } => {
                let files =
                    files.iter().map(|f| WriteFile { length: f.length, path: &f.path }).collect();
                (Some(files), None)
            }
        };
        let info = encode(&WriteInfo {
            files,
            length,
            name: self.name,
            piece_length: self.piece_length,
            pieces: Bytes::new(self.pieces),
            private: self.private.then_some(1),
        });
        let torrent = wrap_info(&info, self.tracker_tiers, self.web_seeds);
        (torrent, Infohash::of_info(&info))
    }
}

/// The `.torrent` file around an `info` value that exists already: addresses may change, the
/// infohash stays.
pub fn wrap_info(info: &[u8], tracker_tiers: &[Vec<Url>], web_seeds: &[Url]) -> Vec<u8> {
    let announce_list: Vec<Vec<&str>> =
        tracker_tiers.iter().map(|tier| tier.iter().map(Url::as_str).collect()).collect();
    encode(&WriteMetainfo {
        announce: announce_list.iter().flatten().next().copied(),
        announce_list,
        info: RawValue(info),
        url_list: web_seeds.iter().map(Url::as_str).collect(),
    })
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    bencode::bencode_serialize_to_writer(value, &mut out)
        .expect("writing plain values to memory cannot fail");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(layout: NewLayout, total: u64) -> (Vec<u8>, Infohash) {
        let piece_length = piece_length_for(total);
        let pieces = vec![7; total.div_ceil(u64::from(piece_length)) as usize * 20];
        NewMetainfo {
            name: "film.mp4",
            piece_length,
            pieces: &pieces,
            layout,
            private: false,
            tracker_tiers: &[vec!["http://hub.example/announce".parse().expect("a URL")]],
            web_seeds: &["http://hub.example/origin/x".parse().expect("a URL")],
        }
        .encode()
    }

    #[test]
    fn reads_back_what_it_writes() {
        let (bytes, infohash) = build(NewLayout::Single { length: 100_000 }, 100_000);
        let read = Metainfo::parse_expecting(&bytes, infohash).expect("parses");
        assert_eq!(
            (read.name.as_str(), read.total_bytes, read.piece_count()),
            ("film.mp4", 100_000, 2)
        );
        assert!(!read.directory);
        assert_eq!(read.piece_bytes(1), Some(100_000 - 65_536));
        assert_eq!(read.piece_bytes(2), None);
        assert_eq!(read.announce.as_deref(), Some("http://hub.example/announce"));
        assert_eq!(read.web_seeds, ["http://hub.example/origin/x"]);
        assert_eq!(Infohash::of_info(&read.info_bytes), infohash);
        let moved = wrap_info(&read.info_bytes, &[], &[]);
        let moved = Metainfo::parse_expecting(&moved, infohash).expect("parses");
        assert_eq!((moved.announce, moved.web_seeds), (None, vec![]));
        assert!(matches!(
            Metainfo::parse_expecting(&bytes, Infohash([0; 20])),
            Err(MetainfoError::WrongInfohash { .. })
        ));
    }

    #[test]
    fn keeps_directories_in_order() {
        let files = [
            File { path: vec!["a".into(), "b.bin".into()], length: 70_000 },
            File { path: vec!["c.bin".into()], length: 30_000 },
        ];
        let (bytes, _) = build(NewLayout::Directory { files: &files }, 100_000);
        let read = Metainfo::parse(&bytes).expect("parses");
        assert_eq!(read.files, files);
        assert!(read.directory);
        assert_eq!(read.total_bytes, 100_000);
    }

    #[test]
    fn hostile_names_are_text_like_any_other() {
        let long = "x".repeat(100_000);
        let names: [&[&str]; 7] = [
            &["..", "..", "etc", "passwd"],
            &["/etc/passwd"],
            &["C:\\windows\\system32"],
            &["a\0b"],
            &[""],
            &["~root", ".ssh"],
            &[&long],
        ];
        let path = |p: &&[&str]| p.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let files: Vec<File> =
            names.iter().map(|p| File { path: path(p), length: 10_000 }).collect();
        let (bytes, _) = build(NewLayout::Directory { files: &files }, 70_000);
        assert_eq!(Metainfo::parse(&bytes).expect("parses").files, files);
        // What is no UTF-8 is shown as well as can be.
        let raw = b"d4:infod6:lengthi5e4:name3:\xff\xfe/12:piece lengthi65536e6:pieces20:";
        let bytes = [&raw[..], &[7; 20], b"ee"].concat();
        assert_eq!(Metainfo::parse(&bytes).expect("parses").name, "\u{fffd}\u{fffd}/");
    }

    #[test]
    fn refuses_what_cannot_be_right() {
        let (good, _) = build(NewLayout::Single { length: 100_000 }, 100_000);
        assert!(matches!(Metainfo::parse(b""), Err(MetainfoError::Malformed(_))));
        assert!(matches!(
            Metainfo::parse(&good[..good.len() - 1]),
            Err(MetainfoError::Malformed(_))
        ));
        let text = |s: &str| Metainfo::parse(s.as_bytes());
        assert_eq!(
            text("d4:infod6:lengthi0e4:name1:a12:piece lengthi65536e6:pieces0:ee"),
            Err(MetainfoError::Invalid("has no content"))
        );
        assert_eq!(
            text("d4:infod6:lengthi5e4:name1:a12:piece lengthi65536e6:pieces0:ee"),
            Err(MetainfoError::Invalid("has a wrong number of piece hashes"))
        );
        assert_eq!(
            text("d4:infod6:lengthi5e4:name1:a12:piece lengthi1e6:pieces0:ee"),
            Err(MetainfoError::Invalid("has a piece length outside 16 KiB to 64 MiB"))
        );
        assert_eq!(
            text("d4:infod4:name1:a12:piece lengthi65536e6:pieces0:ee"),
            Err(MetainfoError::Invalid("must have either a length or files (BEP 3)"))
        );
    }

    #[test]
    fn verifies_pieces_by_hash_and_length() {
        let data = vec![9u8; 65_536];
        let hash = crate::logic::infohash::sha1(&data);
        let (bytes, _) = NewMetainfo {
            name: "x",
            piece_length: 65_536,
            pieces: &hash,
            layout: NewLayout::Single { length: 65_536 },
            private: true,
            tracker_tiers: &[],
            web_seeds: &[],
        }
        .encode();
        let read = Metainfo::parse(&bytes).expect("parses");
        assert!(read.private);
        assert!(read.verifies(0, &data));
        assert!(!read.verifies(0, &data[1..]));
        assert!(!read.verifies(1, &data));
        assert!(!read.verifies(0, &vec![8u8; 65_536]));
    }
}
