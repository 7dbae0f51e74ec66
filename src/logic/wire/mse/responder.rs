//! The answering side of an MSE handshake: gathers one field after the other, from whatever splits of
//! the stream, in a fixed 96 bytes. It neither sends nor waits, and asks for one key agreement.
//!
//! In the words of the specification (A is the peer, B is us):
//! 1. A → B: Ya, PadA
//! 2. B → A: Yb, PadB
//! 3. A → B: HASH('req1', S), HASH('req2', SKEY) xor HASH('req3', S),
//!    ENCRYPT(VC, crypto_provide, len(PadC), PadC, len(IA)), ENCRYPT(IA)
//! 4. B → A: ENCRYPT(VC, crypto_select, len(PadD), PadD), then the payload stream

use super::{
    Keyring, MseError, PAD_BYTES_MAX,
    dh::{KEY_BYTES, KeyBytes},
    rc4::Rc4,
};
use crate::logic::{
    infohash::{Infohash, sha1},
    now::Monotonic,
    wire::{Close, ContentKey, Shelf},
};

const HASH_BYTES: usize = 20;
/// VC: eight zeros, which show that both sides have the same keys.
const VC: [u8; 8] = [0; 8];
/// VC, crypto_provide and len(PadC).
const OFFER_BYTES: usize = VC.len() + 4 + 2;
const LENGTH_BYTES: usize = 2;

/// How the peer protocol goes on after the handshake: a bit of crypto_provide and crypto_select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As it is: blocks can go from the page cache to the socket.
    Plaintext = 1,
    Rc4 = 2,
}

/// What the handshake came to. The initial payload (IA) is encrypted with either method.
#[derive(Debug)]
pub struct Agreement {
    /// The content that the peer named; it stands for the key SKEY.
    pub content: ContentKey,
    pub method: Method,
    pub incoming: Rc4,
    pub outgoing: Rc4,
    pub payload_bytes: u16,
}

pub enum Progress {
    More(Box<Responder>),
    Agreed(Box<Agreement>),
}

#[derive(Debug)]
pub struct Responder {
    step: Step,
    /// The field that the step waits for, as far as it has come.
    field: [u8; KEY_BYTES],
    gathered: usize,
    /// Bytes of PadC that are still to be passed over.
    padding: usize,
}

/// What is being waited for.
#[derive(Debug)]
enum Step {
    PublicKey,
    /// HASH('req1', S), after at most 512 bytes of PadA, of which so many have `passed`.
    Marker {
        secret: Box<KeyBytes>,
        marker: [u8; HASH_BYTES],
        passed: usize,
    },
    Content {
        secret: Box<KeyBytes>,
    },
    Offer(Box<Agreement>),
    PayloadLength(Box<Agreement>),
}

impl Responder {
    /// `start` has come already: the first bytes of a key, fewer than 20.
    pub fn after(start: &[u8]) -> Box<Responder> {
        let mut field = [0; KEY_BYTES];
        field[..start.len()].copy_from_slice(start);
        Box::new(Responder { step: Step::PublicKey, field, gathered: start.len(), padding: 0 })
    }

    /// Takes the handshake's bytes from the front of `input`, and leaves what follows it. What the
    /// peer is to get goes into `answer`.
    pub fn advance(
        mut self: Box<Self>,
        input: &mut &mut [u8],
        shelf: &Shelf,
        keyring: &mut Keyring,
        answer: &mut Vec<u8>,
        now: Monotonic,
    ) -> Result<Progress, Close> {
        while self.gather(input) {
            let field = &mut self.field;
            let mut kept = 0;
            self.step = match self.step {
                Step::PublicKey => {
                    let (ours, secret) = keyring.agree(field, now)?;
                    answer.extend_from_slice(&ours);
                    keyring.pad(answer);
                    let marker = hash(&[b"req1", &secret]);
                    Step::Marker { secret: Box::new(secret), marker, passed: 0 }
                }
                Step::Marker { secret, marker, .. } if field[..HASH_BYTES] == marker => {
                    Step::Content { secret }
                }
                Step::Marker { passed: PAD_BYTES_MAX, .. } => return Err(MseError::NoMarker.into()),
                Step::Marker { secret, marker, passed } => {
                    field.copy_within(1..HASH_BYTES, 0);
                    kept = HASH_BYTES - 1;
                    Step::Marker { secret, marker, passed: passed + 1 }
                }
                Step::Content { secret } => {
                    let disguised = xor(&field[..HASH_BYTES], &hash(&[b"req3", &*secret]));
                    let content = shelf.find_disguised(&disguised).ok_or(Close::UnknownInfohash)?;
                    let infohash = shelf.get(content).ok_or(Close::UnknownInfohash)?.infohash();
                    let cipher = |name| Rc4::after_discard(&hash(&[name, &*secret, &infohash.0]));
                    Step::Offer(Box::new(Agreement {
                        content,
                        method: Method::Plaintext,
                        incoming: cipher(b"keyA"),
                        outgoing: cipher(b"keyB"),
                        payload_bytes: 0,
                    }))
                }
                Step::Offer(mut agreement) => {
                    self.padding = agreement.choose(&mut field[..OFFER_BYTES])?;
                    agreement.incoming.skip(self.padding);
                    Step::PayloadLength(agreement)
                }
                Step::PayloadLength(mut agreement) => {
                    agreement.incoming.apply(&mut field[..LENGTH_BYTES]);
                    agreement.payload_bytes = u16::from_be_bytes([field[0], field[1]]);
                    agreement.confirm(answer);
                    return Ok(Progress::Agreed(agreement));
                }
            };
            self.gathered = kept;
        }
        Ok(Progress::More(self))
    }
}

impl Responder {
    /// Passes over padding and fills the field that the step waits for; whether it is whole.
    fn gather(&mut self, input: &mut &mut [u8]) -> bool {
        let skipped = self.padding.min(input.len());
        self.padding -= skipped;
        advance(input, skipped);
        let wanted = match self.step {
            Step::PublicKey => KEY_BYTES,
            Step::Marker { .. } | Step::Content { .. } => HASH_BYTES,
            Step::Offer(_) => OFFER_BYTES,
            Step::PayloadLength(_) => LENGTH_BYTES,
        };
        let taken = (wanted - self.gathered).min(input.len());
        self.field[self.gathered..][..taken].copy_from_slice(&input[..taken]);
        self.gathered += taken;
        advance(input, taken);
        self.padding == 0 && self.gathered == wanted
    }
}

impl Agreement {
    /// Reads the peer's offer and takes the cheaper of what it has; answers the length of PadC.
    fn choose(&mut self, offer: &mut [u8]) -> Result<usize, MseError> {
        self.incoming.apply(offer);
        let (vc, rest) = offer.split_at(VC.len());
        if vc != VC {
            return Err(MseError::WrongKey);
        }
        let provided = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
        let offers = |method: Method| provided & method as u32 != 0;
        self.method = if offers(Method::Plaintext) {
            Method::Plaintext
        } else if offers(Method::Rc4) {
            Method::Rc4
        } else {
            return Err(MseError::NoMethod(provided));
        };
        let padding = usize::from(u16::from_be_bytes([rest[4], rest[5]]));
        if padding > PAD_BYTES_MAX {
            return Err(MseError::Padding(padding));
        }
        Ok(padding)
    }

    /// Our last word in the handshake. PadD is reserved for extensions, and empty.
    fn confirm(&mut self, answer: &mut Vec<u8>) {
        let start = answer.len();
        answer.extend_from_slice(&VC);
        answer.extend_from_slice(&(self.method as u32).to_be_bytes());
        answer.extend_from_slice(&[0; LENGTH_BYTES]);
        self.outgoing.apply(&mut answer[start..]);
    }
}

/// MSE's HASH of the parts, one after the other.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    sha1(&parts.concat())
}

/// HASH('req2', SKEY): what the shelf knows a content by. Together with a hash of the shared secret
/// it names the content to those alone who know it already.
pub fn disguise(infohash: Infohash) -> [u8; HASH_BYTES] {
    hash(&[b"req2", &infohash.0])
}

fn xor(a: &[u8], b: &[u8; HASH_BYTES]) -> [u8; HASH_BYTES] {
    std::array::from_fn(|n| a[n] ^ b[n])
}

/// Drops the first `bytes`.
pub(super) fn advance(input: &mut &mut [u8], bytes: usize) {
    *input = &mut std::mem::take(input)[bytes..];
}
