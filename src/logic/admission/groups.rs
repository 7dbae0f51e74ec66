//! What is remembered of each address group (an IPv4 address or an IPv6 /64): its connections, how
//! often it comes, the metadata it takes, and its offences. Bounded; bans nobody for anything but
//! breaking the protocol, and nobody for ever.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::Refusal;
use crate::logic::{
    meter::{Meter, Rate},
    now::Monotonic,
};

/// How long a group stays away, by its offences so far. A household or a whole village may share an
/// address: the first offence costs its connection and nothing more.
const BANS: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(3600)];
/// So long after a ban without a new offence, the last one is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3600);
/// Groups without a connection that are remembered, about 100 bytes each. Whoever has more addresses
/// pushes out those whose time is over soonest, so the long bans stay.
pub const REMEMBERED_MAX: usize = 1024;
/// Forgotten at once when there are more, so that a flood does not sort the table for each arrival.
const FORGOTTEN_AT_ONCE: usize = REMEMBERED_MAX / 8;
/// Connections a group may open: twice what it may hold at once, then one a second. Clients try a
/// peer again after some ten seconds.
const ARRIVALS_PER_SECOND: u32 = 1;
const ARRIVALS_AT_ONCE_MIN: u32 = 32;
/// Pieces of metadata (16 KiB, BEP 9) a group may take: 1 MiB, some ten times what a magnet link of a
/// film costs, then 16 KiB a second. It is neither paid nor content.
pub const METADATA: Rate = Rate { at_once: 64, per_second: 1 };

#[derive(Debug)]
pub struct Groups {
    by_address: BTreeMap<IpAddr, Group>,
    connections_max: u32,
    arrivals: Rate,
    /// Of `by_address`, those without a connection.
    absent: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    connections: u32,
    offences: u32,
    banned_until: Monotonic,
    arrivals: Meter,
    metadata: Meter,
}

impl Groups {
    /// `connections_max` is for each.
    pub fn new(connections_max: u32) -> Groups {
        let at_once = connections_max.saturating_mul(2).max(ARRIVALS_AT_ONCE_MIN);
        Groups {
            by_address: BTreeMap::new(),
            connections_max,
            arrivals: Rate { at_once, per_second: ARRIVALS_PER_SECOND },
            absent: 0,
        }
    }

    /// Whether one more connection of this group may come in; it is not counted as held yet.
    pub fn handle_arrival(&mut self, address: IpAddr, now: Monotonic) -> Result<(), Refusal> {
        let arrivals = self.arrivals;
        let connections_max = self.connections_max;
        let group = self.group(address, now);
        if now < group.banned_until {
            return Err(Refusal::Banned);
        }
        if group.connections >= connections_max {
            return Err(Refusal::GroupFull);
        }
        if !group.arrivals.take(1, arrivals, now) {
            return Err(Refusal::TooOften);
        }
        Ok(())
    }

    pub fn handle_opened(&mut self, address: IpAddr, now: Monotonic) {
        let group = self.group(address, now);
        group.connections += 1;
        if group.connections == 1 {
            self.absent -= 1;
        }
    }

    pub fn handle_closed(&mut self, address: IpAddr, now: Monotonic) {
        let Some(group) = self.by_address.get_mut(&address) else { return };
        group.connections = group.connections.saturating_sub(1);
        if group.connections > 0 {
            return;
        }
        if group.forgotten_at() <= now {
            self.by_address.remove(&address);
        } else {
            self.absent += 1;
            self.forget_some(now);
        }
    }

    /// A peer of this group broke the protocol. What it had open when a ban began adds nothing to it,
    /// so that sixteen connections that do wrong together are one offence.
    pub fn handle_offence(&mut self, address: IpAddr, now: Monotonic) {
        let group = self.group(address, now);
        if now < group.banned_until {
            return;
        }
        group.offences = group.unforgiven(now) + 1;
        group.banned_until = now + BANS[(group.offences as usize).min(BANS.len()) - 1];
    }

    /// How many of `pieces` of metadata it may have now.
    pub fn take_metadata(&mut self, address: IpAddr, pieces: u32, now: Monotonic) -> u32 {
        self.group(address, now).metadata.take_some(pieces, METADATA, now)
    }

    pub fn connections(&self, address: IpAddr) -> u32 {
        self.by_address.get(&address).map_or(0, |group| group.connections)
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.by_address.len()
    }

    fn group(&mut self, address: IpAddr, now: Monotonic) -> &mut Group {
        if !self.by_address.contains_key(&address) {
            self.absent += 1;
            self.forget_some(now);
        }
        self.by_address.entry(address).or_default()
    }

    /// When there are too many: those who have nothing to be remembered for, then the soonest.
    fn forget_some(&mut self, now: Monotonic) {
        if self.absent <= REMEMBERED_MAX {
            return;
        }
        let absent = self.by_address.iter().filter(|(_, g)| g.connections == 0);
        let mut by_time: Vec<_> = absent.map(|(a, g)| (g.forgotten_at(), *a)).collect();
        by_time.sort_unstable();
        for (i, (at, address)) in by_time.into_iter().enumerate() {
            if i >= FORGOTTEN_AT_ONCE && at > now {
                break;
            }
            self.by_address.remove(&address);
            self.absent -= 1;
        }
    }
}

impl Group {
    fn unforgiven(&self, now: Monotonic) -> u32 {
        let good = now.saturating_since(self.banned_until).as_secs() / FORGIVEN_AFTER.as_secs();
        self.offences.saturating_sub(u32::try_from(good).unwrap_or(u32::MAX))
    }

    fn forgotten_at(&self) -> Monotonic {
        let forgiven = self.banned_until + FORGIVEN_AFTER.saturating_mul(self.offences);
        forgiven.max(self.arrivals.quiet_at()).max(self.metadata.quiet_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn made_up(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    /// Seconds until it may come again.
    fn ban(groups: &mut Groups, from: u64) -> u64 {
        (0..).find(|s| groups.handle_arrival(HOME, at(from + s)) != Err(Refusal::Banned)).unwrap()
    }

    #[test]
    fn the_first_offence_is_a_warning_and_later_ones_last_longer() {
        let mut groups = Groups::new(100);
        let mut now = 0;
        let mut bans = vec![];
        for _ in 0..6 {
            groups.handle_offence(HOME, at(now));
            let ban = ban(&mut groups, now);
            bans.push(ban);
            now += ban;
        }
        assert_eq!(bans, [0, 60, 600, 3600, 3600, 3600]);
    }

    #[test]
    fn offences_of_one_burst_count_as_one_ban() {
        let mut groups = Groups::new(16);
        (0..16).for_each(|_| groups.handle_offence(HOME, at(0)));
        assert_eq!(ban(&mut groups, 0), 60);
    }

    #[test]
    fn offences_are_forgiven_one_an_hour_and_then_forgotten() {
        let mut groups = Groups::new(16);
        for now in [0, 0, 60] {
            groups.handle_offence(HOME, at(now));
        }
        // The third ban ended at 660; one hour later two offences are left, so this is the third.
        let mut later = 660 + 3600;
        groups.handle_offence(HOME, at(later));
        assert_eq!(ban(&mut groups, later), 600);
        later += 600 + 4 * 3600;
        groups.handle_opened(HOME, at(later));
        groups.handle_closed(HOME, at(later));
        assert_eq!(groups.remembered(), 0);
    }

    #[test]
    fn a_ban_does_not_touch_the_neighbours() {
        let mut groups = Groups::new(16);
        (0..3).for_each(|_| groups.handle_offence(HOME, at(0)));
        assert_eq!(groups.handle_arrival(HOME, at(1)), Err(Refusal::Banned));
        assert_eq!(groups.handle_arrival(made_up(1), at(1)), Ok(()));
    }

    #[test]
    fn one_group_holds_so_many_connections_and_opens_so_many_a_second() {
        let mut groups = Groups::new(4);
        let open = |groups: &mut Groups, now| {
            groups.handle_arrival(HOME, now).map(|()| groups.handle_opened(HOME, now))
        };
        (0..4).for_each(|_| open(&mut groups, at(0)).expect("has a place"));
        assert_eq!(open(&mut groups, at(0)), Err(Refusal::GroupFull));
        let mut come_and_go = 0;
        while groups.by_address[&HOME].connections > 0 {
            groups.handle_closed(HOME, at(0));
            come_and_go += usize::from(open(&mut groups, at(0)).is_ok());
        }
        assert_eq!(come_and_go, ARRIVALS_AT_ONCE_MIN as usize - 4);
        assert_eq!(open(&mut groups, at(0)), Err(Refusal::TooOften));
        assert_eq!(open(&mut groups, at(1)), Ok(()));
    }

    #[test]
    fn metadata_has_a_budget_for_all_connections_of_a_group() {
        let mut groups = Groups::new(16);
        assert_eq!(groups.take_metadata(HOME, 50, at(0)), 50);
        assert_eq!(groups.take_metadata(HOME, 50, at(0)), 14);
        assert_eq!(groups.take_metadata(HOME, 50, at(5)), 5);
        assert_eq!(groups.take_metadata(made_up(1), 7, at(5)), 7);
    }

    #[test]
    fn the_table_is_bounded_and_long_bans_outlive_a_flood_of_addresses() {
        let mut groups = Groups::new(16);
        for _ in 0..4 {
            let now = groups.by_address.get(&HOME).map_or(at(0), |g| g.banned_until);
            groups.handle_offence(HOME, now);
        }
        for n in 0..50_000 {
            let now = at(700);
            assert_eq!(groups.handle_arrival(made_up(n), now), Ok(()));
            groups.handle_opened(made_up(n), now);
            groups.handle_offence(made_up(n), now);
            groups.handle_closed(made_up(n), now);
            assert!(groups.remembered() <= REMEMBERED_MAX + 1);
            assert_eq!(groups.absent, groups.remembered());
        }
        assert_eq!(groups.handle_arrival(HOME, at(701)), Err(Refusal::Banned));
    }
}
