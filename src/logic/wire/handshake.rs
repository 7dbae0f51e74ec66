//! The first 68 bytes of a connection (BEP 3), in both directions.

use data_encoding::BASE32_NOPAD;

use super::{WireError, reserved};
use crate::logic::infohash::Infohash;

/// What tells a plain connection from an encrypted one.
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
pub const HANDSHAKE_BYTES: usize = 68;
/// BEP 20, Azureus style: `LD`, version 0.1.0.0.
const PEER_ID_PREFIX: &[u8; 8] = b"-LD0100-";

/// The peer id of a device: the same for life, from a hash of its key. The letter O becomes an 8, which
/// base 32 does not use otherwise: PeerBanHelper bans ids that have `cacao` in them, and in a large
/// fleet some would.
pub fn peer_id(hash: &[u8; 16]) -> [u8; 20] {
    let text = BASE32_NOPAD.encode(hash).replace('O', "8");
    let mut peer_id = [0; 20];
    peer_id[..8].copy_from_slice(PEER_ID_PREFIX);
    peer_id[8..].copy_from_slice(&text.as_bytes()[..12]);
    peer_id
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    pub infohash: Infohash,
    pub peer_id: [u8; 20],
    /// BEP 6.
    pub fast: bool,
    /// BEP 10.
    pub extensions: bool,
}

impl Handshake {
    /// `None` until all 68 bytes are there; a wrong start is told as early as it shows.
    pub fn parse(bytes: &[u8]) -> Result<Option<Handshake>, WireError> {
        let start = bytes.len().min(PROTOCOL.len());
        if bytes[..start] != PROTOCOL[..start] {
            return Err(WireError::NotBitTorrent);
        }
        let Some(bytes) = bytes.first_chunk::<HANDSHAKE_BYTES>() else { return Ok(None) };
        let array = |at: usize| {
            let mut out = [0; 20];
            out.copy_from_slice(&bytes[at..at + 20]);
            out
        };
        let bit = |(byte, mask): (usize, u8)| bytes[20 + byte] & mask != 0;
        Ok(Some(Handshake {
            infohash: Infohash(array(28)),
            peer_id: array(48),
            fast: bit(reserved::FAST),
            extensions: bit(reserved::EXTENSIONS),
        }))
    }

    pub fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut out = [0; HANDSHAKE_BYTES];
        out[..20].copy_from_slice(PROTOCOL);
        let mut set = |on: bool, (byte, mask): (usize, u8)| {
            if on {
                out[20 + byte] |= mask;
            }
        };
        set(self.fast, reserved::FAST);
        set(self.extensions, reserved::EXTENSIONS);
        out[28..48].copy_from_slice(&self.infohash.0);
        out[48..].copy_from_slice(&self.peer_id);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_it_writes(hash: [u8; 20], peer_id: [u8; 20], fast: bool, extensions: bool) {
            let shake = Handshake { infohash: Infohash(hash), peer_id, fast, extensions };
            let bytes = shake.encode();
            prop_assert_eq!(Handshake::parse(&bytes), Ok(Some(shake)));
            for cut in 0..HANDSHAKE_BYTES {
                prop_assert_eq!(Handshake::parse(&bytes[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn refuses_another_protocol_at_its_first_wrong_byte() {
        assert_eq!(Handshake::parse(b"G"), Err(WireError::NotBitTorrent));
        assert_eq!(Handshake::parse(b"\x13BitTorrent Protocol"), Err(WireError::NotBitTorrent));
        assert_eq!(Handshake::parse(b""), Ok(None));
    }
}
