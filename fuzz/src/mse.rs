//! The encrypted handshake (MSE). With an even first byte the rest comes as it is; with an odd one it
//! is what an initiator does right or wrong, so that the fuzzer gets past the key exchange.

use larder::logic::{
    bitfield::Bitfield,
    infohash::{Infohash, sha1},
    now::Monotonic,
    wire::{
        Close, Servable, Shelf,
        mse::{Envelope, Keyring, MseError, PAD_BYTES_MAX, Rc4, disguise},
    },
};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    Verdict,
    input::{Input, pieces},
};

const CONTENT: Infohash = Infohash([7; 20]);
const KEY_BYTES: usize = 96;
/// VC, crypto_select and the length of an empty PadD.
const CONFIRMATION_BYTES: usize = 14;
const PLAINTEXT: u32 = 1;
const RC4: u32 = 2;

pub fn check(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let honest_key = input.byte() % 2 == 1;
    let size = usize::from(input.byte());
    if honest_key {
        return initiate(&Initiator::choose(&mut input), size);
    }
    let stream = input.take_rest();
    let whole = feed(stream, 0);
    assert_eq!(feed(stream, size), whole, "in pieces of {size} it means something else");
    if whole.closed.is_none() { Verdict::Accepted } else { Verdict::Refused }
}

/// What a connection comes to.
#[derive(Debug, PartialEq)]
struct Outcome {
    opened: Vec<u8>,
    answer: Vec<u8>,
    encrypts: bool,
    closed: Option<Close>,
}

/// A fresh connection with a device that always draws the same keys.
fn feed(stream: &[u8], size: usize) -> Outcome {
    let mut shelf = Shelf::default();
    let servable = Servable {
        infohash: CONTENT,
        piece_length: 16_384,
        total_bytes: 16_384,
        info_bytes: vec![b'i'].into(),
        have: Bitfield::full(1),
    };
    shelf.add(servable).expect("fits");
    let mut keyring = Keyring::new(StdRng::seed_from_u64(5));
    let mut envelope = Envelope::default();
    let (mut opened, mut closed) = (vec![], None);
    for piece in pieces(stream, size) {
        let mut piece = piece.to_vec();
        match envelope.open(&mut piece, &shelf, &mut keyring, Monotonic::START) {
            Ok(part) => opened.extend([part.start, part.rest].concat()),
            Err(why) => {
                closed = Some(why);
                break;
            }
        }
    }
    let answer = envelope.answer().to_vec();
    assert!(answer.len() <= KEY_BYTES + PAD_BYTES_MAX + CONFIRMATION_BYTES);
    Outcome { opened, answer, encrypts: envelope.outgoing().is_some(), closed }
}

/// Who asks. Its private key is 1, its public key 2: so the shared secret is our public key.
struct Initiator {
    pad_a: usize,
    knows_content: bool,
    vc: u8,
    provide: u32,
    pad_c: u16,
    /// The length of IA that it names.
    initial: u16,
    payload: Vec<u8>,
}

impl Initiator {
    fn choose(input: &mut Input<'_>) -> Initiator {
        Initiator {
            pad_a: usize::from(input.word()) % (PAD_BYTES_MAX + 10),
            knows_content: !input.byte().is_multiple_of(8),
            vc: if input.byte().is_multiple_of(8) { input.byte() } else { 0 },
            provide: u32::from_be_bytes([input.byte(), 0, 0, input.byte()]),
            pad_c: input.word() % (PAD_BYTES_MAX as u16 + 10),
            initial: input.word() % 1_000,
            payload: input.take_rest().to_vec(),
        }
    }

    fn hello(&self) -> Vec<u8> {
        let mut bytes = vec![0; KEY_BYTES];
        bytes[KEY_BYTES - 1] = 2;
        bytes.resize(KEY_BYTES + self.pad_a, 0xa5);
        bytes
    }

    /// All that it sends.
    fn stream(&self, secret: &[u8]) -> Vec<u8> {
        let content = if self.knows_content { CONTENT } else { Infohash([8; 20]) };
        let mut bytes = self.hello();
        bytes.extend(hash(b"req1", secret, &[]));
        let mask = hash(b"req3", secret, &[]);
        bytes.extend(disguise(content).iter().zip(mask).map(|(a, b)| a ^ b));
        let mut cipher = Rc4::after_discard(&hash(b"keyA", secret, &content.0));
        let encrypted = bytes.len();
        bytes.extend([0, 0, 0, self.vc, 0, 0, 0, 0]);
        bytes.extend(self.provide.to_be_bytes());
        bytes.extend(self.pad_c.to_be_bytes());
        bytes.resize(bytes.len() + usize::from(self.pad_c), 0x5a);
        bytes.extend(self.initial.to_be_bytes());
        let (initial, after) =
            self.payload.split_at(usize::from(self.initial).min(self.payload.len()));
        bytes.extend(initial);
        if self.provide & PLAINTEXT == 0 {
            bytes.extend(after);
        }
        cipher.apply(&mut bytes[encrypted..]);
        if self.provide & PLAINTEXT != 0 {
            bytes.extend(after);
        }
        bytes
    }

    fn deserves(&self) -> Result<u32, Close> {
        if self.pad_a > PAD_BYTES_MAX {
            return Err(MseError::NoMarker.into());
        }
        if !self.knows_content {
            return Err(Close::UnknownInfohash);
        }
        if self.vc != 0 {
            return Err(MseError::WrongKey.into());
        }
        let method = match self.provide {
            provide if provide & PLAINTEXT != 0 => PLAINTEXT,
            provide if provide & RC4 != 0 => RC4,
            provide => return Err(MseError::NoMethod(provide).into()),
        };
        if usize::from(self.pad_c) > PAD_BYTES_MAX {
            return Err(MseError::Padding(self.pad_c.into()).into());
        }
        Ok(method)
    }
}

fn initiate(initiator: &Initiator, size: usize) -> Verdict {
    let hello = feed(&initiator.hello(), 0);
    assert_eq!(hello.opened, b"");
    let secret = &hello.answer[..KEY_BYTES];
    let stream = initiator.stream(secret);
    let whole = feed(&stream, 0);
    assert_eq!(feed(&stream, size), whole, "in pieces of {size} it means something else");
    assert!(whole.answer.starts_with(&hello.answer), "the same keys and padding");
    let method = match initiator.deserves() {
        Ok(method) => method,
        Err(why) => {
            assert_eq!((whole.closed, &whole.opened[..]), (Some(why), &b""[..]));
            return Verdict::Refused;
        }
    };
    assert_eq!((whole.closed, whole.encrypts), (None, method == RC4));
    assert_eq!(whole.opened, initiator.payload);
    let mut confirmation = whole.answer[hello.answer.len()..].to_vec();
    Rc4::after_discard(&hash(b"keyB", secret, &CONTENT.0)).apply(&mut confirmation);
    assert_eq!(confirmation, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, method as u8, 0, 0]);
    Verdict::Accepted
}

/// MSE's HASH of the name, the secret and perhaps the content.
fn hash(name: &[u8], secret: &[u8], content: &[u8]) -> [u8; 20] {
    sha1(&[name, secret, content].concat())
}
