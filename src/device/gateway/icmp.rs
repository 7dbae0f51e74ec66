//! ICMP messages (RFC 792, RFC 4443) as bytes: builds an echo request, reads what may answer it. What
//! comes in is hostile. Opens no sockets.

/// Random in each probe, so that nobody can answer one that he has not seen.
pub const NONCE_BYTES: usize = 16;
const HEADER_BYTES: usize = 8;
pub const ECHO_BYTES: usize = HEADER_BYTES + NONCE_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    const fn echo_request(self) -> u8 {
        match self {
            Family::V4 => 8,
            Family::V6 => 128,
        }
    }

    const fn echo_reply(self) -> u8 {
        match self {
            Family::V4 => 0,
            Family::V6 => 129,
        }
    }

    pub const fn time_exceeded(self) -> u8 {
        match self {
            Family::V4 => 11,
            Family::V6 => 3,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// What was asked has come back.
    Reply { ident: u16, sequence: u16, nonce: [u8; NONCE_BYTES] },
    /// A router on the way has dropped our request; it quotes the beginning.
    TimeExceeded { ident: u16, sequence: u16 },
}

/// With IPv6, and on an unprivileged socket, the kernel fills in the checksum; it is right anyway.
pub fn echo_request(
    family: Family,
    ident: u16,
    sequence: u16,
    nonce: &[u8; NONCE_BYTES],
) -> [u8; ECHO_BYTES] {
    let mut bytes = [0; ECHO_BYTES];
    bytes[0] = family.echo_request();
    bytes[4..6].copy_from_slice(&ident.to_be_bytes());
    bytes[6..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..].copy_from_slice(nonce);
    let checksum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Without an IP header in front.
pub fn parse(family: Family, bytes: &[u8]) -> Option<Message> {
    match *bytes.first()? {
        kind if kind == family.echo_reply() => {
            let (ident, sequence) = ident_and_sequence(bytes)?;
            let nonce = bytes.get(HEADER_BYTES..ECHO_BYTES)?.try_into().ok()?;
            Some(Message::Reply { ident, sequence, nonce })
        }
        kind if kind == family.time_exceeded() => {
            let quoted_packet = bytes.get(HEADER_BYTES..)?;
            let quoted = match family {
                Family::V4 => skip_ipv4_header(quoted_packet)?,
                Family::V6 => quoted_packet.get(40..)?,
            };
            let (ident, sequence) = quoted_request(family, quoted)?;
            Some(Message::TimeExceeded { ident, sequence })
        }
        _ => None,
    }
}

/// The ident and sequence of an echo request of ours that somebody quotes.
pub fn quoted_request(family: Family, bytes: &[u8]) -> Option<(u16, u16)> {
    let is_request = *bytes.first()? == family.echo_request();
    ident_and_sequence(bytes).filter(|_| is_request)
}

/// A raw IPv4 socket delivers the IP header too.
pub fn skip_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && length >= 20).then(|| packet.get(length..))?
}

fn ident_and_sequence(bytes: &[u8]) -> Option<(u16, u16)> {
    let ident = bytes.get(4..6)?.try_into().ok()?;
    let sequence = bytes.get(6..8)?.try_into().ok()?;
    Some((u16::from_be_bytes(ident), u16::from_be_bytes(sequence)))
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: [u8; NONCE_BYTES] = *b"nonce of a probe";

    #[test]
    fn checksum_is_the_one_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&echo_request(Family::V4, 7, 9, &NONCE)), 0, "its own makes it zero");
    }

    #[test]
    fn reads_the_reply_to_its_own_request() {
        for family in [Family::V4, Family::V6] {
            let mut bytes = echo_request(family, 0x1234, 0xfffe, &NONCE);
            assert_eq!(parse(family, &bytes), None, "a request is no reply");
            bytes[0] = family.echo_reply();
            let reply = Message::Reply { ident: 0x1234, sequence: 0xfffe, nonce: NONCE };
            assert_eq!(parse(family, &bytes), Some(reply));
            assert_eq!(parse(family, &bytes[..ECHO_BYTES - 1]), None);
        }
    }

    #[test]
    fn finds_its_request_in_what_a_router_quotes() {
        let request = echo_request(Family::V4, 5, 6, &NONCE);
        let mut ip = [0; 24];
        ip[0] = 0x46; // with four bytes of options
        let exceeded = [&[11, 0, 0, 0, 0, 0, 0, 0][..], &ip, &request[..8]].concat();
        let found = Some(Message::TimeExceeded { ident: 5, sequence: 6 });
        assert_eq!(parse(Family::V4, &exceeded), found);
        let request = echo_request(Family::V6, 5, 6, &NONCE);
        let exceeded = [&[3, 0, 0, 0, 0, 0, 0, 0][..], &[0x60; 40], &request].concat();
        assert_eq!(parse(Family::V6, &exceeded), found);
    }

    proptest! {
        #[test]
        fn reads_anything_without_panicking(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            for family in [Family::V4, Family::V6] {
                let _ = parse(family, &bytes);
            }
            let _ = skip_ipv4_header(&bytes);
        }
    }
}
