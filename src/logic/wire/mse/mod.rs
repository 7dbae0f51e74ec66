//! Message Stream Encryption (MSE, also PE), as the answering side of a connection speaks it: hides
//! the peer protocol from middleboxes. `Envelope` is what a connection wraps its bytes in, which for
//! most is nothing. It opens no connections, and promises no secrecy: the keys are small, the cipher
//! is old, and whoever knows an infohash can join.
//!
//! Every length that a stranger chooses has a limit: a handshake half done holds 300 bytes and at
//! most 608 for the answer, or 900 bytes once the ciphers are made; a connection after it, nothing or
//! the two cipher states.

mod dh;
#[cfg(test)]
pub(crate) mod initiator;
mod keyring;
mod rc4;
mod responder;
#[cfg(test)]
mod tests;

use self::responder::{Agreement, Method, Progress, Responder, advance};
pub use self::{
    keyring::{HANDSHAKES_PER_SECOND_MAX, Keyring},
    rc4::Rc4,
    responder::disguise,
};
use super::{Close, ContentKey, Shelf, handshake::PROTOCOL};
use crate::logic::now::Monotonic;

/// PadA to PadD may have so many bytes each.
pub const PAD_BYTES_MAX: usize = 512;

/// Why an encrypted handshake fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MseError {
    #[error("more than {HANDSHAKES_PER_SECOND_MAX} encrypted handshakes in a second")]
    TooMany,
    #[error("its key is one that nobody draws at random")]
    WeakKey,
    #[error(
        "neither BitTorrent nor an encrypted handshake: no marker within {PAD_BYTES_MAX} bytes"
    )]
    NoMarker,
    #[error("it has another key than we do")]
    WrongKey,
    #[error("it offers no way to go on that we know (crypto_provide is {0:#x})")]
    NoMethod(u32),
    #[error("padding of {0} bytes, more than the limit of {PAD_BYTES_MAX}")]
    Padding(usize),
    #[error("it asks for another content than its encryption was for")]
    OtherContent,
}

/// What a connection wraps the peer protocol in.
#[derive(Debug)]
pub struct Envelope {
    state: State,
    /// Our side of the handshake, as far as it has not left.
    answer: Vec<u8>,
    /// The content that the encrypted handshake named.
    content: Option<ContentKey>,
}

#[derive(Debug)]
enum State {
    /// Too early to tell: so many bytes have come, and a plain handshake starts with the same.
    Undecided(usize),
    Negotiating(Box<Responder>),
    /// Plaintext was agreed, but so many bytes of the initial payload still come encrypted.
    Ending(Box<Rc4>, usize),
    Plain,
    Encrypted(Box<Ciphers>),
    /// After an error. Nothing more is taken.
    Failed,
}

#[derive(Debug)]
struct Ciphers {
    incoming: Rc4,
    outgoing: Rc4,
}

/// What came in, for the peer protocol: first `start`, then `rest`.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Held back until it was clear that it is not the start of a key.
    pub start: &'static [u8],
    pub rest: &'a [u8],
}

impl Default for Envelope {
    fn default() -> Envelope {
        Envelope { state: State::Undecided(0), answer: Vec::new(), content: None }
    }
}

impl Envelope {
    /// Nothing: for connections on which we speak first.
    pub fn plain() -> Envelope {
        Envelope { state: State::Plain, ..Envelope::default() }
    }

    /// Takes the wrapping off what the peer sent, in place. At most once in the life of a connection
    /// this costs a modular exponentiation.
    pub fn open<'a>(
        &mut self,
        mut input: &'a mut [u8],
        shelf: &Shelf,
        keyring: &mut Keyring,
        now: Monotonic,
    ) -> Result<Opened<'a>, Close> {
        if let State::Undecided(matched) = self.state {
            let rest = &PROTOCOL[matched..];
            let same = rest.iter().zip(input.iter()).take_while(|(a, b)| a == b).count();
            advance(&mut input, same);
            if same == rest.len() {
                self.state = State::Plain;
                return Ok(Opened { start: PROTOCOL, rest: input });
            }
            self.state = State::Undecided(matched + same);
            if !input.is_empty() {
                self.state = State::Negotiating(Responder::after(&PROTOCOL[..matched + same]));
            }
        }
        if matches!(self.state, State::Negotiating(_)) {
            self.negotiate(&mut input, shelf, keyring, now)?;
        }
        Ok(Opened { start: &[], rest: self.decrypt(input) })
    }

    /// Our side of the handshake: it leaves before anything else, as it is.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    pub fn handle_answer_sent(&mut self, bytes: usize) {
        self.answer.drain(..bytes.min(self.answer.len()));
        if self.answer.is_empty() {
            self.answer = Vec::new();
        }
    }

    /// What everything but the answer has to pass through on its way out, in the order in which it
    /// leaves. `None` if it leaves as it is.
    pub fn outgoing(&mut self) -> Option<&mut Rc4> {
        match &mut self.state {
            State::Encrypted(ciphers) => Some(&mut ciphers.outgoing),
            _ => None,
        }
    }

    /// Whether all that is to leave leaves as it is, and nothing of our own handshake waits.
    pub fn is_plain(&self) -> bool {
        self.answer.is_empty() && !matches!(self.state, State::Encrypted(_))
    }

    /// The content that the encrypted handshake named; the plain one inside must name it too.
    pub fn content(&self) -> Option<ContentKey> {
        self.content
    }

    /// Memory behind the pointers: a handshake half done, or the ciphers.
    pub fn kept_bytes(&self) -> usize {
        let state = match &self.state {
            State::Undecided(_) | State::Plain | State::Failed => 0,
            State::Negotiating(_) => size_of::<Responder>() + size_of::<Agreement>(),
            State::Ending(..) => size_of::<Rc4>(),
            State::Encrypted(_) => size_of::<Ciphers>(),
        };
        state + self.answer.capacity()
    }

    fn negotiate(
        &mut self,
        input: &mut &mut [u8],
        shelf: &Shelf,
        keyring: &mut Keyring,
        now: Monotonic,
    ) -> Result<(), Close> {
        let State::Negotiating(responder) = std::mem::replace(&mut self.state, State::Failed)
        else {
            return Ok(());
        };
        self.state = match responder.advance(input, shelf, keyring, &mut self.answer, now)? {
            Progress::More(responder) => State::Negotiating(responder),
            Progress::Agreed(agreement) => {
                let Agreement { content, method, incoming, outgoing, payload_bytes } = *agreement;
                self.content = Some(content);
                match method {
                    Method::Plaintext => State::Ending(Box::new(incoming), payload_bytes.into()),
                    Method::Rc4 => State::Encrypted(Box::new(Ciphers { incoming, outgoing })),
                }
            }
        };
        Ok(())
    }

    fn decrypt<'a>(&mut self, input: &'a mut [u8]) -> &'a [u8] {
        match &mut self.state {
            State::Undecided(_) | State::Negotiating(_) | State::Failed => return &[],
            State::Plain => {}
            State::Encrypted(ciphers) => ciphers.incoming.apply(input),
            State::Ending(incoming, left) => {
                let encrypted = input.len().min(*left);
                incoming.apply(&mut input[..encrypted]);
                *left -= encrypted;
                if *left == 0 {
                    self.state = State::Plain;
                }
            }
        }
        input
    }
}
