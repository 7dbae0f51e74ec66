//! The reflector: answers a device's datagram with one of the same size, so that the device can time
//! the way to here (docs/reflector.md). It must not be of use to anybody else: a question gets one
//! answer at most, no larger than itself, and an address only so many a second.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::net::UdpSocket;

use crate::{
    api::reflector::{DATAGRAM_BYTES, answer},
    logic::governor::address_group,
};

/// Four devices of one household, or a few households behind one address, ask 50 times a second each.
const ANSWERS_PER_SECOND: u32 = 200;
/// Of a second that came all at once.
const BURST: u32 = 100;
/// Households that are told apart at the same time; a few MiB.
const ADDRESSES_MAX: usize = 50_000;
/// To everybody: 32 bytes of payload are 60 on the wire, so this is 12 MB/s.
const ANSWERS_PER_SECOND_IN_ALL: u32 = 200_000;
/// Something is wrong with the socket; asking again at once would only burn time.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Until the task is dropped.
pub async fn serve(socket: UdpSocket) {
    let mut limits = Limits::new(Instant::now());
    // One byte more than a question has, to see that a datagram is longer.
    let mut buffer = [0; DATAGRAM_BYTES + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                if let Some(answer) = answer(&buffer[..length])
                    && limits.may_answer(from.ip(), Instant::now())
                {
                    // A full queue drops it, as any router on the way might.
                    let _ = socket.try_send_to(&answer, from);
                }
            }
            // An earlier answer met a closed port.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                tracing::warn!("the reflector cannot receive: {error}");
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

pub async fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(address).await
}

/// What each address may still get.
struct Limits {
    by_address: BTreeMap<IpAddr, Bucket>,
    in_all: Bucket,
}

impl Limits {
    fn new(now: Instant) -> Limits {
        let in_all = Bucket { left: f64::from(ANSWERS_PER_SECOND_IN_ALL), at: now };
        Limits { by_address: BTreeMap::new(), in_all }
    }

    fn may_answer(&mut self, from: IpAddr, now: Instant) -> bool {
        let group = address_group(from);
        let full = self.by_address.len() >= ADDRESSES_MAX;
        if full && !self.by_address.contains_key(&group) {
            // Who has a full bucket again is not told apart from a newcomer.
            self.by_address.retain(|_, bucket| bucket.at + Duration::from_secs(1) > now);
            if self.by_address.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let new = || Bucket { left: f64::from(BURST), at: now };
        let bucket = self.by_address.entry(group).or_insert_with(new);
        bucket.take(ANSWERS_PER_SECOND, BURST, now)
            && self.in_all.take(ANSWERS_PER_SECOND_IN_ALL, ANSWERS_PER_SECOND_IN_ALL, now)
    }
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, per_second: u32, most: u32, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + elapsed * f64::from(per_second)).min(f64::from(most));
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::api::reflector::{answered_nonce, question};

    #[test]
    fn an_address_gets_its_share_and_takes_none_from_others() {
        let start = Instant::now();
        let mut limits = Limits::new(start);
        let [one, other] = [1, 2].map(|n| IpAddr::from([203, 0, 113, n]));
        let flood = |limits: &mut Limits, from, at| {
            (0..10_000).filter(|_| limits.may_answer(from, at)).count()
        };
        assert_eq!(flood(&mut limits, one, start), BURST as usize);
        let later = start + Duration::from_millis(100);
        assert_eq!(flood(&mut limits, one, later), 20);
        assert_eq!(flood(&mut limits, other, later), BURST as usize);
    }

    #[test]
    fn more_addresses_than_it_can_tell_apart_wait_for_a_second() {
        let start = Instant::now();
        let mut limits = Limits::new(start);
        let address = |n: u32| IpAddr::V4(Ipv4Addr::from(n));
        for n in 0..ADDRESSES_MAX as u32 {
            assert!(limits.may_answer(address(n), start));
        }
        assert!(!limits.may_answer(address(u32::MAX), start));
        assert!(limits.may_answer(address(1), start), "who is known is served");
        assert!(limits.may_answer(address(u32::MAX), start + Duration::from_secs(2)));
        assert_eq!(limits.by_address.len(), 1);
    }

    #[tokio::test]
    async fn answers_questions_and_ignores_the_rest() {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(serve(socket));
        let device = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let long = [&question(&[1; 16])[..], &[0; 100]].concat();
        let not_ours = answer(&question(&[2; 16])).expect("an answer");
        for datagram in [&long[..], &not_ours, b"", &question(&[3; 16])] {
            device.send_to(datagram, address).await.unwrap();
        }
        let mut buffer = [0; 100];
        let (length, from) = device.recv_from(&mut buffer).await.unwrap();
        assert_eq!((length, from), (DATAGRAM_BYTES, address));
        assert_eq!(
            answered_nonce(&buffer[..length]),
            Some([3; 16]),
            "only the last was a question"
        );
    }
}
