//! The bencoded parts: the extension handshake (BEP 10, with BEP 21's `upload_only`) and
//! `ut_metadata` (BEP 9). Fields of a wrong type count as absent; only broken bencoding is an error.

use std::net::IpAddr;

use bencode::{BencodeValue, ByteBuf};
use serde::Serialize;
use serde_bytes::Bytes;

use super::{MAX_QUEUED_REQUESTS, METADATA_PIECE_BYTES, WireError};
use crate::logic::bencoding;

/// The id under which peers send us `ut_metadata`.
pub const OUR_METADATA_ID: u8 = 1;
/// BEP 10: the id of the extension handshake itself.
pub const HANDSHAKE_ID: u8 = 0;
/// Metadata that a client would believe; `metadata_size` above it is nonsense.
const MAX_METADATA_BYTES: i64 = 32 * 1024 * 1024;
/// Client names are for logs.
const MAX_CLIENT_NAME_CHARS: usize = 64;

/// What a peer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionHandshake {
    /// The id under which it wants `ut_metadata`; `None` also for 0, which switches it off.
    pub ut_metadata: Option<u8>,
    pub metadata_size: Option<u32>,
    /// Requests that it would queue.
    pub reqq: Option<u32>,
    /// BEP 21: it will not request anything.
    pub upload_only: bool,
    /// Client name and version, cut and without control characters.
    pub client: Option<String>,
    /// Our own address as the peer sees it.
    pub your_ip: Option<IpAddr>,
}

impl ExtensionHandshake {
    pub fn parse(payload: &[u8]) -> Result<ExtensionHandshake, WireError> {
        let (value, _rest) = bencoding::from_bytes_with_rest::<BencodeValue<ByteBuf<'_>>>(payload)
            .map_err(|_| WireError::Bencoding)?;
        let ids = get(&value, b"m");
        let positive = |key: &[u8]| {
            integer(&value, key).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
        };
        Ok(ExtensionHandshake {
            ut_metadata: ids
                .and_then(|ids| integer(ids, b"ut_metadata"))
                .and_then(|id| u8::try_from(id).ok())
                .filter(|id| *id != 0),
            metadata_size: positive(b"metadata_size")
                .filter(|n| i64::from(*n) <= MAX_METADATA_BYTES),
            reqq: positive(b"reqq"),
            upload_only: integer(&value, b"upload_only").is_some_and(|n| n != 0),
            client: bytes(&value, b"v").map(client_name),
            your_ip: bytes(&value, b"yourip").and_then(ip),
        })
    }
}

fn get<'a, 'b>(
    value: &'a BencodeValue<ByteBuf<'b>>,
    key: &[u8],
) -> Option<&'a BencodeValue<ByteBuf<'b>>> {
    match value {
        BencodeValue::Dict(dict) => dict.get(key),
        _ => None,
    }
}

fn integer(value: &BencodeValue<ByteBuf<'_>>, key: &[u8]) -> Option<i64> {
    match get(value, key)? {
        BencodeValue::Integer(n) => Some(*n),
        _ => None,
    }
}

fn bytes<'a>(value: &'a BencodeValue<ByteBuf<'_>>, key: &[u8]) -> Option<&'a [u8]> {
    match get(value, key)? {
        BencodeValue::Bytes(b) => Some(b.0),
        _ => None,
    }
}

fn client_name(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    text.chars().filter(|c| !c.is_control()).take(MAX_CLIENT_NAME_CHARS).collect()
}

fn ip(raw: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(raw) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(raw).ok().map(IpAddr::from)
}

/// What we say of ourselves. Keys in the order that bencoding wants: sorted.
#[derive(Serialize)]
pub struct OurExtensionHandshake<'a> {
    m: OurIds,
    metadata_size: u64,
    /// The port that we listen on.
    p: u16,
    reqq: u64,
    /// BEP 21. Always: nothing is ever downloaded over these connections, complete or not.
    upload_only: u8,
    v: &'a str,
    yourip: &'a Bytes,
}

#[derive(Serialize)]
struct OurIds {
    ut_metadata: u8,
}

impl OurExtensionHandshake<'_> {
    /// The payload, after the message id 20 and the extended id 0.
    pub fn encode(client: &str, listen_port: u16, metadata_bytes: usize, peer: IpAddr) -> Vec<u8> {
        let address = match peer.to_canonical() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        bencoded(&OurExtensionHandshake {
            m: OurIds { ut_metadata: OUR_METADATA_ID },
            metadata_size: metadata_bytes as u64,
            p: listen_port,
            reqq: MAX_QUEUED_REQUESTS as u64,
            upload_only: 1,
            v: client,
            yourip: Bytes::new(&address),
        })
    }
}

/// BEP 9, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataMessage<'a> {
    Request {
        piece: u32,
    },
    Data {
        piece: u32,
        total_bytes: u32,
        data: &'a [u8],
    },
    Reject {
        piece: u32,
    },
    /// "In order to support future extensibility, an unrecognized message ID MUST be ignored."
    Unknown,
}

#[derive(Serialize)]
struct RawMetadataMessage {
    msg_type: u8,
    piece: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_size: Option<u32>,
}

impl<'a> MetadataMessage<'a> {
    pub fn parse(payload: &'a [u8]) -> Result<MetadataMessage<'a>, WireError> {
        let (value, data) = bencoding::from_bytes_with_rest::<BencodeValue<ByteBuf<'_>>>(payload)
            .map_err(|_| WireError::Bencoding)?;
        let word = |key: &[u8]| {
            integer(&value, key).and_then(|n| u32::try_from(n).ok()).ok_or(WireError::Bencoding)
        };
        match integer(&value, b"msg_type") {
            Some(0) => Ok(MetadataMessage::Request { piece: word(b"piece")? }),
            Some(1) => Ok(MetadataMessage::Data {
                piece: word(b"piece")?,
                total_bytes: word(b"total_size")?,
                data,
            }),
            Some(2) => Ok(MetadataMessage::Reject { piece: word(b"piece")? }),
            Some(_) => Ok(MetadataMessage::Unknown),
            None => Err(WireError::Bencoding),
        }
    }

    /// The payload, after the message id 20 and the peer's extended id.
    pub fn encode(&self) -> Vec<u8> {
        let raw = |msg_type, piece, total_size| {
            bencoded(&RawMetadataMessage { msg_type, piece, total_size })
        };
        match *self {
            MetadataMessage::Request { piece } => raw(0, piece, None),
            MetadataMessage::Data { piece, total_bytes, data } => {
                let mut out = raw(1, piece, Some(total_bytes));
                out.extend_from_slice(data);
                out
            }
            MetadataMessage::Reject { piece } => raw(2, piece, None),
            MetadataMessage::Unknown => vec![],
        }
    }

    /// The answer to a request: the piece of `info`, or a rejection when there is no such piece.
    pub fn answer(info: &'a [u8], piece: u32) -> MetadataMessage<'a> {
        match info.chunks(METADATA_PIECE_BYTES).nth(piece as usize) {
            Some(data) => MetadataMessage::Data { piece, total_bytes: info.len() as u32, data },
            None => MetadataMessage::Reject { piece },
        }
    }
}

fn bencoded<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = vec![];
    bencode::bencode_serialize_to_writer(value, &mut out)
        .expect("plain fields written to memory always serialise");
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn says_what_bep_10_and_21_ask_for() {
        let peer = "::ffff:10.0.0.1".parse().expect("an address");
        let payload = OurExtensionHandshake::encode("Larder/1.0", 6881, 500, peer);
        assert_eq!(
            String::from_utf8_lossy(&payload),
            "d1:md11:ut_metadatai1ee13:metadata_sizei500e1:pi6881e4:reqqi1000e11:upload_onlyi1e\
             1:v10:Larder/1.06:yourip4:\n\0\0\u{1}e"
        );
        let read = ExtensionHandshake::parse(&payload).expect("our own");
        assert_eq!(read.ut_metadata, Some(1));
        assert_eq!(read.metadata_size, Some(500));
        assert_eq!(read.reqq, Some(MAX_QUEUED_REQUESTS as u32));
        assert!(read.upload_only);
        assert_eq!(read.client.as_deref(), Some("Larder/1.0"));
        assert_eq!(read.your_ip, Some("10.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn odd_fields_count_as_absent_and_broken_bencoding_is_an_error() {
        let odd = b"d1:md11:ut_metadata1:xe13:metadata_sizei-1e4:reqqle6:yourip3:abce";
        assert_eq!(ExtensionHandshake::parse(odd), Ok(ExtensionHandshake::default()));
        let off = ExtensionHandshake::parse(b"d1:md11:ut_metadatai0eee").expect("parses");
        assert_eq!(off.ut_metadata, None);
        assert_eq!(ExtensionHandshake::parse(b"le"), Ok(ExtensionHandshake::default()));
        for broken in
            [&b""[..], b"d", b"d1:m", b"i", b"999999999999:x", &[b'l'; 5000], &[b'd'; 5000]]
        {
            assert_eq!(ExtensionHandshake::parse(broken), Err(WireError::Bencoding));
        }
    }

    #[test]
    fn cuts_metadata_into_pieces_of_16_kib() {
        let info = vec![9; METADATA_PIECE_BYTES + 5];
        let MetadataMessage::Data { total_bytes, data, .. } = MetadataMessage::answer(&info, 1)
        else {
            panic!("the second piece exists")
        };
        assert_eq!((total_bytes as usize, data.len()), (METADATA_PIECE_BYTES + 5, 5));
        assert_eq!(MetadataMessage::answer(&info, 2), MetadataMessage::Reject { piece: 2 });
    }

    proptest! {
        #[test]
        fn reads_the_metadata_messages_it_writes(piece: u32, total_bytes: u32, data: Vec<u8>) {
            for message in [
                MetadataMessage::Request { piece },
                MetadataMessage::Reject { piece },
                MetadataMessage::Data { piece, total_bytes, data: &data },
            ] {
                let payload = message.encode();
                prop_assert_eq!(MetadataMessage::parse(&payload), Ok(message));
            }
        }

        #[test]
        fn survives_any_bytes(payload: Vec<u8>) {
            let _ = ExtensionHandshake::parse(&payload);
            let _ = MetadataMessage::parse(&payload);
        }
    }
}
