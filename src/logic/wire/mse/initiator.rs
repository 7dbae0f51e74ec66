//! The asking side of an MSE handshake, for tests: says what it is told to say, right or wrong.

use super::{
    dh::{CHAIN_SEED_BYTES, KeyBytes, KeyChain},
    rc4::Rc4,
    responder::hash,
};
use crate::logic::infohash::Infohash;

pub struct Initiator {
    pub seed: [u8; CHAIN_SEED_BYTES],
    pub infohash: Infohash,
    /// Bits: 1 plaintext, 2 RC4.
    pub crypto_provide: u32,
    pub pad_a: usize,
    pub pad_c: usize,
    /// IA, plain.
    pub payload: Vec<u8>,
}

/// Its third message, and what it expects from then on.
pub struct Reply {
    pub bytes: Vec<u8>,
    /// After the initial payload.
    pub outgoing: Rc4,
    /// After the answer's VC.
    pub incoming: Rc4,
    /// The answer's VC, which comes after PadB.
    pub marker: [u8; 8],
}

impl Initiator {
    pub fn to(infohash: Infohash, crypto_provide: u32) -> Initiator {
        let seed = [3; CHAIN_SEED_BYTES];
        Initiator { seed, infohash, crypto_provide, pad_a: 100, pad_c: 20, payload: vec![] }
    }

    /// Ya and PadA.
    pub fn hello(&self) -> Vec<u8> {
        let (mut out, _) = self.agree(&[7; 96]);
        out.resize(out.len() + self.pad_a, 0xa5);
        out
    }

    /// All of the third message.
    pub fn reply(&self, theirs: &KeyBytes) -> Reply {
        let (_, secret) = self.agree(theirs);
        let cipher = |name| Rc4::after_discard(&hash(&[name, &secret, &self.infohash.0]));
        let (mut outgoing, mut incoming) = (cipher(b"keyA"), cipher(b"keyB"));
        let mut bytes = hash(&[b"req1", &secret]).to_vec();
        let (req2, req3) = (hash(&[b"req2", &self.infohash.0]), hash(&[b"req3", &secret]));
        bytes.extend(req2.iter().zip(req3).map(|(a, b)| a ^ b));
        let start = bytes.len();
        bytes.extend([0; 8]);
        bytes.extend(self.crypto_provide.to_be_bytes());
        bytes.extend((self.pad_c as u16).to_be_bytes());
        bytes.resize(bytes.len() + self.pad_c, 0x5a);
        bytes.extend((self.payload.len() as u16).to_be_bytes());
        bytes.extend(&self.payload);
        outgoing.apply(&mut bytes[start..]);
        let mut marker = [0; 8];
        incoming.apply(&mut marker);
        Reply { bytes, outgoing, incoming, marker }
    }

    fn agree(&self, theirs: &KeyBytes) -> (Vec<u8>, KeyBytes) {
        let (ours, secret) = KeyChain::new(&self.seed).agree(theirs).expect("a fine key");
        (ours.to_vec(), secret)
    }
}

impl Reply {
    /// crypto_select and len(PadD), as they come.
    pub fn read_selection(&mut self, mut bytes: [u8; 6]) -> (u32, u16) {
        self.incoming.apply(&mut bytes);
        let [a, b, c, d, e, f] = bytes;
        (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]))
    }
}
