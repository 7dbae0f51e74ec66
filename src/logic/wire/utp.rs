//! A "no" to µTP (BEP 29), which we do not speak. Many clients try it first, and some (Transmission
//! 3) only turn to TCP once they are refused or have waited long. Answers one kind of datagram, never
//! with more bytes than it got.

/// Version 1 of BEP 29, types in the upper half of the first byte.
const SYN: u8 = 0x41;
const RESET: u8 = 0x31;
pub const UTP_HEADER_BYTES: usize = 20;

/// The reset that refuses a connection; `None` for anything but the start of one.
pub fn utp_refusal(datagram: &[u8]) -> Option<[u8; UTP_HEADER_BYTES]> {
    let header = datagram.first_chunk::<UTP_HEADER_BYTES>()?;
    if header[0] != SYN {
        return None;
    }
    let mut reset = [0; UTP_HEADER_BYTES];
    reset[0] = RESET;
    // Connection id, then at the end: our sequence number (none) and the one that we answer.
    reset[2..4].copy_from_slice(&header[2..4]);
    reset[18..20].copy_from_slice(&header[16..18]);
    Some(reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_connections_and_ignores_everything_else() {
        let mut syn = [0; 24];
        syn[0] = SYN;
        syn[2..4].copy_from_slice(&[0xab, 0xcd]);
        syn[16..18].copy_from_slice(&[0, 7]);
        let reset = utp_refusal(&syn).expect("an answer");
        assert_eq!(reset[..4], [RESET, 0, 0xab, 0xcd]);
        assert_eq!(reset[16..], [0, 0, 0, 7]);
        assert_eq!(utp_refusal(&reset), None, "two refusers do not talk for ever");
        assert_eq!(utp_refusal(&syn[..19]), None);
        assert_eq!(utp_refusal(b"d1:ad2:id20:abcdefghij0123456789e1:q4:pinge"), None);
    }
}
