//! The stream cipher of MSE, which its wire format prescribes. It hides traffic from middleboxes and
//! protects nothing: do not use it for anything else.
//!
//! Our own because it is two loops, and RustCrypto's `rc4` costs five crates for the same and cannot
//! be copied to take back what a socket did not.

use std::fmt;

/// What MSE throws away of a new key stream: its start leaks the key.
const DISCARDED_BYTES: usize = 1024;

/// A position in a key stream: 258 bytes. A copy of it goes on from the same place.
#[derive(Clone)]
pub struct Rc4 {
    state: [u8; 256],
    i: u8,
    j: u8,
}

impl Rc4 {
    /// At the start of the key stream as MSE counts it, 1024 bytes in.
    pub fn after_discard(key: &[u8; 20]) -> Rc4 {
        let mut cipher = Rc4::new(key);
        cipher.skip(DISCARDED_BYTES);
        cipher
    }

    /// Encrypts or decrypts, which is the same, and moves on.
    pub fn apply(&mut self, data: &mut [u8]) {
        data.iter_mut().for_each(|byte| *byte ^= self.next());
    }

    /// Moves on as `apply` would.
    pub fn skip(&mut self, bytes: usize) {
        for _ in 0..bytes {
            self.next();
        }
    }

    fn new(key: &[u8]) -> Rc4 {
        let mut state = std::array::from_fn(|n| n as u8);
        let mut j = 0u8;
        for i in 0..state.len() {
            j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
            state.swap(i, usize::from(j));
        }
        Rc4 { state, i: 0, j: 0 }
    }

    fn next(&mut self) -> u8 {
        self.i = self.i.wrapping_add(1);
        let a = self.state[usize::from(self.i)];
        self.j = self.j.wrapping_add(a);
        let b = self.state[usize::from(self.j)];
        self.state[usize::from(self.i)] = b;
        self.state[usize::from(self.j)] = a;
        self.state[usize::from(a.wrapping_add(b))]
    }
}

/// The state is the key.
impl fmt::Debug for Rc4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rc4")
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn stream(mut cipher: Rc4, from: usize) -> String {
        let mut bytes = [0; 16];
        cipher.skip(from);
        cipher.apply(&mut bytes);
        HEXLOWER.encode(&bytes)
    }

    /// RFC 6229, section 2: the keys of 40, 128 and 256 bits that count up from 1.
    #[test]
    fn gives_the_key_streams_of_rfc_6229() {
        let counting: Vec<u8> = (1..=32).collect();
        let known = [
            (5, 0, "b2396305f03dc027ccc3524a0a1118a8"),
            (5, 1024, "30abbcc7c20b01609f23ee2d5f6bb7df"),
            (16, 0, "9ac7cc9a609d1ef7b2932899cde41b97"),
            (16, 1024, "bdf0324e6083dcc6d3cedd3ca8c53c16"),
            (32, 0, "eaa6bd25880bf93d3f5d1e4ca2611d91"),
        ];
        for (key_bytes, from, expected) in known {
            assert_eq!(stream(Rc4::new(&counting[..key_bytes]), from), expected, "{key_bytes}");
        }
    }

    #[test]
    fn starts_where_mse_starts() {
        let key = [9; 20];
        assert_eq!(stream(Rc4::after_discard(&key), 0), stream(Rc4::new(&key), 1024));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_bytes(data: Vec<u8>, key: [u8; 20], at: prop::sample::Index) {
            let (mut whole, mut split) = (data.clone(), data.clone());
            let at = at.index(data.len() + 1);
            Rc4::after_discard(&key).apply(&mut whole);
            let mut cipher = Rc4::after_discard(&key);
            cipher.apply(&mut split[..at]);
            cipher.clone().skip(7);
            cipher.apply(&mut split[at..]);
            prop_assert_eq!(&whole, &split);
            Rc4::after_discard(&key).apply(&mut whole);
            prop_assert_eq!(whole, data);
        }
    }
}
