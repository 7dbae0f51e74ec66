//! What all encrypted handshakes of a device share: its keys, its padding, and how many of them it
//! takes on in a second. Its random generator comes from the shell, seeded.

use std::time::Duration;

use rand::{Rng, RngExt, rngs::StdRng};

use super::{
    MseError, PAD_BYTES_MAX,
    dh::{CHAIN_SEED_BYTES, KeyBytes, KeyChain},
};
use crate::logic::now::Monotonic;

/// Encrypted handshakes that are taken on in a second, and as many at once after a quiet one. Each is
/// one modular exponentiation, some 2 ms of a 32-bit router's core (docs/adr/0013): a flood gets 4 %
/// of it and no more. Peers that a swarm names come by the dozen, and those turned away come again.
pub const HANDSHAKES_PER_SECOND_MAX: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(1000 / HANDSHAKES_PER_SECOND_MAX as u64);

#[derive(Debug)]
pub struct Keyring {
    rng: StdRng,
    /// Made for the first handshake: a device that meets no encrypted peer pays nothing.
    chain: Option<KeyChain>,
    /// When as many have been taken on as may be until then, spread evenly.
    booked_until: Monotonic,
}

impl Keyring {
    pub fn new(rng: StdRng) -> Keyring {
        Keyring { rng, chain: None, booked_until: Monotonic::START }
    }

    /// Our next public key, and the secret that it shares with the peer's.
    pub(super) fn agree(
        &mut self,
        theirs: &KeyBytes,
        now: Monotonic,
    ) -> Result<(KeyBytes, KeyBytes), MseError> {
        let booked = self.booked_until.max(now);
        if booked.saturating_since(now) > Duration::from_secs(1) - INTERVAL {
            return Err(MseError::TooMany);
        }
        self.booked_until = booked + INTERVAL;
        let rng = &mut self.rng;
        let chain = self.chain.get_or_insert_with(|| {
            let mut seed = [0; CHAIN_SEED_BYTES];
            rng.fill_bytes(&mut seed);
            KeyChain::new(&seed)
        });
        chain.agree(theirs).ok_or(MseError::WeakKey)
    }

    /// 0 to 512 random bytes, so that no length of ours gives the handshake away.
    pub(super) fn pad(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.rng.random_range(0..=PAD_BYTES_MAX), 0);
        self.rng.fill_bytes(&mut out[start..]);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic(Duration::from_millis(millis))
    }

    #[test]
    fn takes_on_so_many_handshakes_a_second_and_no_more() {
        let mut keyring = Keyring::new(StdRng::seed_from_u64(1));
        let theirs = [7; 96];
        let mut taken = |from: u64, to: u64| {
            let tries = (from..to).flat_map(|ms| [ms; 3]);
            tries.filter(|ms| keyring.agree(&theirs, at(*ms)).is_ok()).count() as u32
        };
        assert_eq!(taken(5_000, 5_010), HANDSHAKES_PER_SECOND_MAX, "at once, after a rest");
        let next = taken(5_010, 7_010);
        assert!(next.abs_diff(2 * HANDSHAKES_PER_SECOND_MAX) <= 1, "{next} in two seconds");
    }

    #[test]
    fn a_key_that_is_refused_counts_too() {
        let mut keyring = Keyring::new(StdRng::seed_from_u64(1));
        for _ in 0..HANDSHAKES_PER_SECOND_MAX {
            assert_eq!(keyring.agree(&[0; 96], at(0)), Err(MseError::WeakKey));
        }
        assert_eq!(keyring.agree(&[7; 96], at(0)), Err(MseError::TooMany));
    }

    #[test]
    fn pads_have_all_lengths_up_to_the_limit() {
        let mut keyring = Keyring::new(StdRng::seed_from_u64(2));
        let lengths: Vec<_> = (0..5_000)
            .map(|_| {
                let mut pad = vec![];
                keyring.pad(&mut pad);
                pad.len()
            })
            .collect();
        assert_eq!(lengths.iter().min(), Some(&0));
        assert_eq!(lengths.iter().max(), Some(&PAD_BYTES_MAX));
    }
}
