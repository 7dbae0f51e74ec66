//! The start of a connection: the peer's handshake and ours, whoever called whom.

use super::{
    Close, Content, ContentKey, HANDSHAKE_BYTES, HANDSHAKE_ID, Handshake, LocalPeer, Message,
    MseError, OurExtensionHandshake, PeerSession, Shelf,
};
use crate::logic::{infohash::Infohash, now::Monotonic, wire::mse::Envelope};
use std::net::IpAddr;

impl PeerSession {
    /// A connection that we open, for one content: our handshake goes first, in plain.
    pub fn calling(
        peer: IpAddr,
        infohash: Infohash,
        us: &LocalPeer,
        now: Monotonic,
    ) -> PeerSession {
        let mut session = PeerSession::new(peer, now);
        session.envelope = Envelope::plain();
        session.called_for = Some(infohash);
        session.say_handshake(infohash, us);
        session
    }

    /// Why a connection ends on which no handshake came. Whom we called owes us none.
    pub(super) fn no_handshake(&self) -> Close {
        if self.called_for.is_some() { Close::NoAnswer } else { Close::HandshakeTimeout }
    }

    pub(super) fn handle_greeting(
        &mut self,
        input: &mut &[u8],
        us: &LocalPeer,
        shelf: &Shelf,
    ) -> Result<Option<ContentKey>, Close> {
        let n = input.len().min(HANDSHAKE_BYTES - self.greeting.len());
        self.greeting.extend_from_slice(&input[..n]);
        *input = &input[n..];
        let theirs = match (Handshake::parse(&self.greeting), self.called_for) {
            (Ok(Some(theirs)), None) => theirs,
            (Ok(Some(theirs)), Some(infohash)) if theirs.infohash == infohash => theirs,
            (Ok(None), _) => return Ok(None),
            (Err(error), None) => return Err(error.into()),
            (_, Some(_)) => return Err(Close::NoAnswer),
        };
        self.greeting = Vec::new();
        if theirs.peer_id == us.peer_id {
            return Err(Close::SelfConnection);
        }
        let key = shelf.find(theirs.infohash).ok_or(Close::UnknownInfohash)?;
        let content = shelf.get(key).ok_or(Close::UnknownInfohash)?;
        if self.envelope.content().is_some_and(|named| named != key) {
            return Err(MseError::OtherContent.into());
        }
        self.content = Some(key);
        self.peer_id = theirs.peer_id;
        self.fast = theirs.fast;
        self.haves_told = content.completed().len();
        self.greet(&theirs, us, content);
        Ok(Some(key))
    }

    /// Our handshake, if it has not gone first, and what must follow it at once.
    fn greet(&mut self, theirs: &Handshake, us: &LocalPeer, content: &Content) {
        if self.called_for.is_none() {
            self.say_handshake(theirs.infohash, us);
        }
        let held = content.held();
        match (theirs.fast, held.is_complete(), held.is_empty()) {
            (true, true, _) => self.say(Message::HaveAll),
            (true, _, true) => self.say(Message::HaveNone),
            // BEP 3: may be left out when there is nothing to show.
            (false, _, true) => {}
            _ => self.say(Message::Bitfield(held.as_bytes())),
        }
        if theirs.extensions {
            let payload = OurExtensionHandshake::encode(
                &us.client_name,
                us.listen_port,
                content.info_bytes().len(),
                self.peer,
            );
            self.say(Message::Extended { id: HANDSHAKE_ID, payload: &payload });
        }
    }

    fn say_handshake(&mut self, infohash: Infohash, us: &LocalPeer) {
        let ours = Handshake { infohash, peer_id: us.peer_id, fast: true, extensions: true };
        self.outbox.extend_from_slice(&ours.encode());
    }
}
