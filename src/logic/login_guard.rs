//! How often someone may guess: five tries, then a wait that doubles, for each address and for all
//! addresses together. Counts tries only; it never sees a password and reads no clock.
//!
//! A try counts as failed from the moment it begins, so a hundred tries at once get no further than
//! a hundred in a row; a right answer takes back what its address had failed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::now::Monotonic;

/// People mistype; programs do not stop at five.
pub const FREE_TRIES: u32 = 5;
/// For all addresses together: a household of four mistyping at once stays under it.
pub const FREE_TRIES_IN_ALL: u32 = 20;
/// After the last free try; doubles with each failure.
pub const FIRST_WAIT: Duration = Duration::from_secs(10);
/// 24 guesses a day from one address.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Short, because a hostile gadget in the LAN must not lock the owner out for long; still only
/// 1,440 guesses a day.
pub const LONGEST_WAIT_IN_ALL: Duration = Duration::from_secs(60);
/// Without a failure for this long, the count starts again.
pub const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);
/// A LAN has a few dozen; the rest is someone making addresses up, whom the total stops.
pub const MAX_ADDRESSES: usize = 1024;

/// Come back after `wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wrong tries: wait {} s, then try again", .wait.as_secs().max(1))]
pub struct TooManyTries {
    pub wait: Duration,
}

#[derive(Debug, Default)]
pub struct LoginGuard {
    by_address: BTreeMap<IpAddr, Failures>,
    in_all: Failures,
}

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    last: Monotonic,
}

impl LoginGuard {
    pub fn new() -> LoginGuard {
        LoginGuard::default()
    }

    /// Ask before looking at the answer. A refused try counts for nothing and lengthens no wait.
    pub fn begin_try(&mut self, address: IpAddr, now: Monotonic) -> Result<(), TooManyTries> {
        let address = owner_of(address);
        self.forget(now);
        let own = self.by_address.get(&address).copied().unwrap_or_default();
        let wait = own.wait(FREE_TRIES, LONGEST_WAIT, now).max(self.in_all.wait(
            FREE_TRIES_IN_ALL,
            LONGEST_WAIT_IN_ALL,
            now,
        ));
        if !wait.is_zero() {
            return Err(TooManyTries { wait });
        }
        if !self.by_address.contains_key(&address) {
            self.make_room();
        }
        self.by_address.entry(address).or_default().add(now);
        self.in_all.add(now);
        Ok(())
    }

    /// The answer was right: what this address had failed is forgiven.
    pub fn succeeded(&mut self, address: IpAddr) {
        if let Some(own) = self.by_address.remove(&owner_of(address)) {
            self.in_all.count = self.in_all.count.saturating_sub(own.count);
        }
    }

    fn forget(&mut self, now: Monotonic) {
        let stale = |f: &Failures| now.saturating_since(f.last) >= FORGET_AFTER;
        self.by_address.retain(|_, failures| !stale(failures));
        if stale(&self.in_all) {
            self.in_all = Failures::default();
        }
    }

    /// Drops the address that failed longest ago.
    fn make_room(&mut self) {
        if self.by_address.len() < MAX_ADDRESSES {
            return;
        }
        let oldest = self.by_address.iter().min_by_key(|(_, f)| f.last).map(|(a, _)| *a);
        if let Some(address) = oldest {
            self.by_address.remove(&address);
        }
    }
}

impl Failures {
    fn add(&mut self, now: Monotonic) {
        self.count = self.count.saturating_add(1);
        self.last = now;
    }

    fn wait(self, free: u32, longest: Duration, now: Monotonic) -> Duration {
        let Some(over) = self.count.checked_sub(free) else { return Duration::ZERO };
        let bound = FIRST_WAIT.saturating_mul(1 << over.min(20)).min(longest);
        bound.saturating_sub(now.saturating_since(self.last))
    }
}

/// One host can take any address of an IPv6 /64, so a /64 counts as one.
fn owner_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 20));
    const TABLET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 21));

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn wait_seconds(guard: &mut LoginGuard, address: IpAddr, now: Monotonic) -> u64 {
        guard.begin_try(address, now).expect_err("must wait").wait.as_secs()
    }

    fn fail(guard: &mut LoginGuard, address: IpAddr, times: u32, now: Monotonic) {
        for _ in 0..times {
            guard.begin_try(address, now).expect("a free try");
        }
    }

    #[test]
    fn makes_the_sixth_try_wait_and_others_not() {
        let mut guard = LoginGuard::new();
        fail(&mut guard, PHONE, FREE_TRIES, at(0));
        assert_eq!(wait_seconds(&mut guard, PHONE, at(3)), 7);
        assert_eq!(guard.begin_try(TABLET, at(3)), Ok(()));
        assert_eq!(guard.begin_try(PHONE, at(10)), Ok(()));
    }

    #[test]
    fn doubles_the_wait_up_to_the_longest() {
        let mut guard = LoginGuard::new();
        let mut now = at(0);
        fail(&mut guard, PHONE, FREE_TRIES, now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = guard.begin_try(PHONE, now).expect_err("must wait").wait;
            waits.push(wait.as_secs());
            now = now + wait;
            guard.begin_try(PHONE, now).expect("waited long enough");
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]);
    }

    #[test]
    fn a_try_that_was_refused_lengthens_nothing() {
        let mut guard = LoginGuard::new();
        fail(&mut guard, PHONE, FREE_TRIES, at(0));
        for _ in 0..50 {
            wait_seconds(&mut guard, PHONE, at(1));
        }
        assert_eq!(guard.begin_try(PHONE, at(10)), Ok(()));
    }

    #[test]
    fn stops_a_guesser_with_many_addresses() {
        let mut guard = LoginGuard::new();
        let made_up = |i: u32| IpAddr::V4((0x0a00_0000 + i).into());
        let tries = (0..10_000).filter(|i| guard.begin_try(made_up(*i), at(0)).is_ok()).count();
        assert_eq!(tries, FREE_TRIES_IN_ALL as usize);
        assert_eq!(wait_seconds(&mut guard, PHONE, at(0)), FIRST_WAIT.as_secs());

        let mut guard = LoginGuard::new();
        let hours = 0..3 * 3600;
        let tries = hours.filter(|t| guard.begin_try(made_up(*t), at((*t).into())).is_ok());
        assert!(tries.count() <= FREE_TRIES_IN_ALL as usize + 3 * 60 + 3);
        assert!(guard.by_address.len() <= MAX_ADDRESSES);
    }

    #[test]
    fn counts_a_whole_ipv6_network_as_one() {
        let mut guard = LoginGuard::new();
        for i in 1..=5u16 {
            let address = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, i).into();
            assert_eq!(guard.begin_try(address, at(0)), Ok(()));
        }
        assert!(guard.begin_try("fd00:0:0:1::99".parse().expect("v6"), at(0)).is_err());
        assert!(guard.begin_try("fd00:0:0:2::99".parse().expect("v6"), at(0)).is_ok());
    }

    #[test]
    fn takes_an_ipv4_address_in_ipv6_form_for_the_same() {
        let mut guard = LoginGuard::new();
        fail(&mut guard, PHONE, FREE_TRIES, at(0));
        assert!(guard.begin_try("::ffff:192.168.1.20".parse().expect("v6"), at(0)).is_err());
    }

    #[test]
    fn forgives_the_typos_of_whoever_gets_in() {
        let mut guard = LoginGuard::new();
        fail(&mut guard, PHONE, FREE_TRIES, at(0));
        guard.succeeded(PHONE);
        fail(&mut guard, PHONE, FREE_TRIES, at(1));
        assert_eq!(guard.in_all.count, FREE_TRIES);
    }

    #[test]
    fn starts_again_after_a_quiet_day() {
        let mut guard = LoginGuard::new();
        fail(&mut guard, PHONE, FREE_TRIES, at(0));
        let later = Monotonic(FORGET_AFTER);
        fail(&mut guard, PHONE, FREE_TRIES, later);
        assert_eq!(guard.in_all.count, FREE_TRIES);
    }
}
