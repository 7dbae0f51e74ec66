//! What a stretch of a TCP stream costs on the wire. An estimate: it does not see retransmissions
//! and bare acknowledgements, and counts nothing below IP.

use std::net::IpAddr;

/// 20 bytes of TCP header and 12 of the timestamp option, as every current system has it.
const TCP_HEADER_BYTES: u32 = 32;
const IPV4_HEADER_BYTES: u32 = 20;
const IPV6_HEADER_BYTES: u32 = 40;
/// No path carries less: IPv4's smallest packet that must pass whole has 576 bytes, IPv6's 1280. A peer
/// that asks for smaller segments wants many headers sent for few bytes.
pub const MIN_SEGMENT_PAYLOAD_BYTES: u32 = 512;
/// On a usual line, of which peers are told before one is there: Ethernet's packets over IPv4.
const USUAL_SEGMENT_PAYLOAD_BYTES: u32 = 1448;

/// How a connection's stream is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireCost {
    segment_payload_bytes: u32,
    segment_header_bytes: u32,
}

impl WireCost {
    /// `segment_payload_bytes` is what the kernel says (TCP_MAXSEG of tcp(7)), if it does.
    pub fn to(peer: IpAddr, segment_payload_bytes: Option<u32>) -> WireCost {
        let ip = match peer.to_canonical() {
            IpAddr::V4(_) => IPV4_HEADER_BYTES,
            IpAddr::V6(_) => IPV6_HEADER_BYTES,
        };
        let payload = segment_payload_bytes.unwrap_or(USUAL_SEGMENT_PAYLOAD_BYTES);
        WireCost {
            segment_payload_bytes: payload.max(MIN_SEGMENT_PAYLOAD_BYTES),
            segment_header_bytes: ip + TCP_HEADER_BYTES,
        }
    }

    /// Wire bytes of a long stretch of a stream, in full segments.
    pub fn of_stretch(self, stream_bytes: u64) -> u64 {
        let headers = u128::from(stream_bytes) * u128::from(self.segment_header_bytes)
            / u128::from(self.segment_payload_bytes);
        stream_bytes.saturating_add(u64::try_from(headers).unwrap_or(u64::MAX))
    }

    /// Wire bytes of `stream_bytes` that are written in one go.
    pub fn of(self, stream_bytes: u64) -> u64 {
        let segments = stream_bytes.div_ceil(u64::from(self.segment_payload_bytes));
        stream_bytes.saturating_add(segments.saturating_mul(u64::from(self.segment_header_bytes)))
    }

    /// How much of a rate on the wire is left for the stream.
    pub fn stream_part(self, wire_rate: u64) -> u64 {
        let (payload, header) = (self.segment_payload_bytes, self.segment_header_bytes);
        let part = u128::from(wire_rate) * u128::from(payload) / u128::from(payload + header);
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_a_header_for_every_started_segment() {
        let to = |ip: &str, payload| WireCost::to(ip.parse().expect("an address"), payload);
        let v4 = to("192.0.2.1", None);
        assert_eq!(v4.of(0), 0);
        assert_eq!(v4.of(1), 53);
        assert_eq!(v4.of(1448), 1500);
        assert_eq!(v4.of_stretch(144_800), 150_000);
        assert_eq!(v4.stream_part(15_000), 14_480);
        let v6 = to("2001:db8::1", Some(1428));
        assert_eq!(v6.of(1429), 1429 + 2 * 72);
        assert_eq!(to("::ffff:192.0.2.1", None), v4);
        assert_eq!(to("192.0.2.1", Some(36)).of(512), 512 + 52);
    }
}
