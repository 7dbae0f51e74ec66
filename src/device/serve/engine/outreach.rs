//! Calls leechers that trackers name, when there is room to serve another and the pure part says whom.

use std::net::SocketAddr;

use super::Loop;
use crate::{
    device::serve::connection::Connection,
    logic::{
        choke::slots_for,
        infohash::Infohash,
        now::Monotonic,
        outreach::{Call, End},
        usage::PeerClass,
        wire::Close,
    },
};

impl Loop {
    /// Only contents that are served are called for, and nobody at home: who is there finds us.
    pub(super) fn hear_of(&mut self, infohash: Infohash, leechers: &[SocketAddr], now: Monotonic) {
        if self.shelf.find(infohash).is_none() {
            return;
        }
        self.lan.refresh(now);
        let lan = &self.lan;
        self.outreach.handle_named(infohash, leechers, |address| lan.is_ours(address), now);
    }

    pub(super) fn call_leechers(&mut self, now: Monotonic) {
        while self.has_room_to_call() {
            let admission = &self.admission;
            let is_here = |group| admission.has_guest_from(group);
            let Some(call) = self.outreach.poll_call(is_here, now) else {
                return;
            };
            if let Err(error) = self.call(call, now) {
                tracing::debug!(address = %call.address, %error, "a call cannot be made");
                self.outreach.handle_ended(call.address, End::Failed, now);
            }
        }
    }

    /// When to look again whom to call.
    pub(super) fn call_at(&self) -> Option<Monotonic> {
        self.outreach.poll_timeout().filter(|_| self.has_room_to_call())
    }

    pub(super) fn note_end_of_call(&mut self, connection: &Connection, why: Close, now: Monotonic) {
        let Some(address) = connection.called() else { return };
        let end = match why {
            Close::Seed | Close::SelfConnection => End::Needless,
            _ if why.is_abuse() => End::Needless,
            _ if connection.session.content().is_some() => End::Visited,
            _ => End::Failed,
        };
        self.outreach.handle_ended(address, end, now);
    }

    /// A slot for it, now, and a place.
    fn has_room_to_call(&self) -> bool {
        let allowance = self.pacer.allowance();
        !allowance.is_paused()
            && self.choker.unchoked() < slots_for(allowance)
            && !self.admission.is_full()
    }

    fn call(&mut self, call: Call, now: Monotonic) -> std::io::Result<()> {
        self.generation = self.generation.wrapping_add(1);
        let class = PeerClass::Wan;
        let connection = Connection::calling(call, &self.us, class, self.generation, now)?;
        tracing::debug!(address = %call.address, infohash = %call.infohash, "calling a leecher");
        match self.take_in(Box::new(connection), now) {
            true => Ok(()),
            false => Err(std::io::Error::other("no place for it")),
        }
    }
}
