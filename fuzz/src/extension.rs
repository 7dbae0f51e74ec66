//! The extension handshake (BEP 10, 21): theirs as it may come, and ours read back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use larder::logic::wire::{ExtensionHandshake, OurExtensionHandshake};

use super::{Verdict, input::Input};

const CLIENT_NAME_CHARS_MAX: usize = 64;
const METADATA_BYTES_MAX: u32 = 32 * 1024 * 1024;

pub fn check(data: &[u8]) -> Verdict {
    ours_reads_back(data);
    let Ok(theirs) = ExtensionHandshake::parse(data) else { return Verdict::Refused };
    assert_ne!(theirs.ut_metadata, Some(0));
    assert_ne!(theirs.reqq, Some(0));
    assert!(theirs.metadata_size.is_none_or(|bytes| bytes > 0 && bytes <= METADATA_BYTES_MAX));
    if let Some(name) = &theirs.client {
        assert!(name.chars().count() <= CLIENT_NAME_CHARS_MAX);
        assert!(!name.chars().any(char::is_control), "{name:?} could deface a log");
    }
    Verdict::Accepted
}

/// Takes the same bytes as material for our own.
fn ours_reads_back(data: &[u8]) {
    let mut input = Input::new(data);
    let (port, metadata_bytes) = (input.word(), input.word());
    let peer = if input.byte().is_multiple_of(2) {
        IpAddr::V4(Ipv4Addr::from_bits(u32::from(input.word())))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(input.word()) | 0x2001 << 112))
    };
    let client: String = String::from_utf8_lossy(input.take_rest())
        .chars()
        .filter(|c| !c.is_control())
        .take(CLIENT_NAME_CHARS_MAX)
        .collect();
    let ours = OurExtensionHandshake::encode(&client, port, usize::from(metadata_bytes), peer);
    let read = ExtensionHandshake::parse(&ours).expect("ours is well formed");
    assert_eq!(read.client, Some(client));
    assert_eq!(read.metadata_size, Some(u32::from(metadata_bytes)).filter(|n| *n > 0));
    assert_eq!(read.your_ip, Some(peer));
    assert!(read.upload_only && read.ut_metadata.is_some() && read.reqq.is_some());
}
