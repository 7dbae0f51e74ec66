//! The Diffie-Hellman exchange of MSE: 768 bits, generator 2, private keys of 160 bits. Enough to
//! keep a middlebox from reading along, not to keep a secret. Draws no randomness: it comes in.

use std::fmt;

use crypto_bigint::{U192, U768, const_monty_params, modular::ConstMontyForm};

/// A public key or a shared secret, big-endian.
pub const KEY_BYTES: usize = 96;
pub type KeyBytes = [u8; KEY_BYTES];

const PRIVATE_KEY_BYTES: usize = 20;
/// Private keys start with 160 bits and then count up (see `KeyChain`); no device lives to see the
/// second carry.
const PRIVATE_KEY_BITS: u32 = 161;
const STEP_BYTES: usize = 8;
/// What a `KeyChain` is made of.
pub const CHAIN_SEED_BYTES: usize = PRIVATE_KEY_BYTES + STEP_BYTES;

const_monty_params!(
    MsePrime,
    U768,
    concat!(
        "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74",
        "020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437",
        "4fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
    ),
    "The prime of MSE, a safe one: its only small subgroups are 1 and -1."
);
type Element = ConstMontyForm<MsePrime, { U768::LIMBS }>;

const GENERATOR: Element = Element::new(&U768::from_u8(2));

/// A key pair for each connection, one after the other. The private keys count up in secret steps, so
/// that the next public key costs one multiplication; what is left is one exponentiation for each
/// connection, the one that uses the peer's key.
///
/// No key is used twice: with a key that stays, whoever replays a peer's half of a handshake gets the
/// same key stream again, and a middlebox could know us by it.
pub struct KeyChain {
    private: U192,
    public: Element,
    step: U192,
    stride: Element,
}

impl KeyChain {
    pub fn new(random: &[u8; CHAIN_SEED_BYTES]) -> KeyChain {
        let (key, step) = random.split_at(PRIVATE_KEY_BYTES);
        let private = from_bytes(key);
        // A step of zero would be one key for ever.
        let step = from_bytes(step).wrapping_add(&U192::ONE);
        KeyChain {
            private,
            public: power(&GENERATOR, &private),
            step,
            stride: power(&GENERATOR, &step),
        }
    }

    /// Uses up a key pair: our public key and the secret shared with whoever has the private key of
    /// `theirs`. `None` if nobody can have drawn `theirs` at random: the secret would be known to all.
    pub fn agree(&mut self, theirs: &KeyBytes) -> Option<(KeyBytes, KeyBytes)> {
        let theirs = U768::from_be_slice(theirs);
        let last = Element::MODULUS.as_ref().wrapping_sub(&U768::ONE);
        if theirs <= U768::ONE || theirs >= last {
            return None;
        }
        let secret = power(&Element::new(&theirs), &self.private);
        let ours = to_bytes(&self.public);
        self.private = self.private.wrapping_add(&self.step);
        self.public = self.public.mul(&self.stride);
        Some((ours, to_bytes(&secret)))
    }
}

impl fmt::Debug for KeyChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyChain")
    }
}

fn power(base: &Element, exponent: &U192) -> Element {
    base.pow_bounded_exp(exponent, PRIVATE_KEY_BITS)
}

fn to_bytes(element: &Element) -> KeyBytes {
    let mut out = [0; KEY_BYTES];
    out.copy_from_slice(element.retrieve().to_be_bytes().as_slice());
    out
}

fn from_bytes(bytes: &[u8]) -> U192 {
    let mut out = [0; U192::BYTES];
    out[U192::BYTES - bytes.len()..].copy_from_slice(bytes);
    U192::from_be_slice(&out)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    /// 2 to the powers 0x0102…14 and 0x6566…78, and to both, as Python's `pow` has them.
    const PUBLIC: [&str; 2] = [
        concat!(
            "96e112dab29e8c5272accb9b17b26887ce54a144a4e3b697c7d159b7a817e556",
            "b0918db2b4c658e02a87f7e5fb14b18a553e084cbf3dad2d30f16596ccb982d4",
            "06258c61b30c5c1dae2ddc60bdbd48d79896312aad63238c39e1a633821eb693",
        ),
        concat!(
            "d32ae8cedd0de9ca4fe67e35626bb8c7cdb0966727d899f6a62fdb2b68817f9d",
            "dc4b684e3eb34030b8dba4e028b7cff3264020340cb4eab61923cdc4e4216ba8",
            "73368d83f0a38e497f1f6b4e3d2012eb91a3ee6056f966f9eae732089b6fa46e",
        ),
    ];
    const SHARED: &str = concat!(
        "d05ed96a95215a89b44073afe5d0b1626289ac01cff7849392948b2470b34654",
        "7e944d7562a897ae86976bc389999083ec09572dbdc8ed7f6a0a86a1aa42a3ca",
        "04209b72d8239890360435640643b76479ed7836f1857963fcc7cb72084c3ab4",
    );

    /// The private key counts up from `first`, byte by byte.
    fn chain(first: u8) -> KeyChain {
        KeyChain::new(&std::array::from_fn(|n| first + n as u8))
    }

    fn key(hex: &str) -> KeyBytes {
        let bytes = HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal");
        bytes.try_into().expect("96 bytes")
    }

    #[test]
    fn agrees_with_known_answers() {
        let (public, shared) = chain(1).agree(&key(PUBLIC[1])).expect("a fine key");
        assert_eq!(HEXLOWER.encode(&public), PUBLIC[0]);
        assert_eq!(HEXLOWER.encode(&shared), SHARED);
        let (public, shared) = chain(101).agree(&key(PUBLIC[0])).expect("a fine key");
        assert_eq!(HEXLOWER.encode(&public), PUBLIC[1]);
        assert_eq!(HEXLOWER.encode(&shared), SHARED);
    }

    #[test]
    fn refuses_keys_whose_secret_everybody_knows() {
        let mut one = [0; KEY_BYTES];
        one[KEY_BYTES - 1] = 1;
        let prime = Element::MODULUS.as_ref();
        let near = |n: U768| {
            let mut out = [0; KEY_BYTES];
            out.copy_from_slice(n.to_be_bytes().as_slice());
            out
        };
        let minus_one = near(prime.wrapping_sub(&U768::ONE));
        let minus_two = near(prime.wrapping_sub(&U768::from_u8(2)));
        for theirs in [[0; KEY_BYTES], one, minus_one, near(*prime), [255; KEY_BYTES]] {
            assert_eq!(chain(1).agree(&theirs), None);
        }
        assert!(chain(1).agree(&minus_two).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn both_sides_share_a_secret_at_every_link(
            seeds: [[u8; CHAIN_SEED_BYTES]; 2],
            links in 1..6,
        ) {
            let mut chains = seeds.map(|seed| KeyChain::new(&seed));
            let mut seen = vec![];
            for _ in 0..links {
                let publics = [to_bytes(&chains[0].public), to_bytes(&chains[1].public)];
                let (ours, secret) = chains[0].agree(&publics[1]).expect("a fine key");
                let (theirs, same) = chains[1].agree(&publics[0]).expect("a fine key");
                prop_assert_eq!([ours, theirs], publics);
                prop_assert_eq!(secret, same);
                prop_assert!(!seen.contains(&ours), "no key twice");
                seen.push(ours);
            }
        }
    }
}
