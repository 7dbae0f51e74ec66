//! The first 68 bytes of a plain connection (BEP 3).

use larder::logic::wire::{HANDSHAKE_BYTES, Handshake};

use super::Verdict;

/// The eight bytes of flags, of which two bits mean something to us.
const RESERVED: std::ops::Range<usize> = 20..28;

pub fn check(data: &[u8]) -> Verdict {
    let whole = Handshake::parse(data);
    for cut in 0..data.len().min(HANDSHAKE_BYTES) {
        match Handshake::parse(&data[..cut]) {
            Ok(None) => {}
            Ok(Some(_)) => panic!("a handshake of {cut} bytes"),
            // Once it is wrong it stays wrong.
            early => assert_eq!(early, whole),
        }
    }
    let Ok(Some(shake)) = whole else { return Verdict::Refused };
    let written = shake.encode();
    assert_eq!(Handshake::parse(&written), Ok(Some(shake)));
    assert_eq!(written[..RESERVED.start], data[..RESERVED.start]);
    assert_eq!(written[RESERVED.end..], data[RESERVED.end..HANDSHAKE_BYTES]);
    Verdict::Accepted
}
