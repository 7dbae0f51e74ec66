//! One-time claim codes: made for people to read aloud and type, kept only as hashes.

use crate::hub::keys::sha256_hex;

/// 32 symbols, so that five random bits choose one without bias; no 0/O, no 1/I.
const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";

/// 60 random bits as `XXXX-XXXX-XXXX`.
pub fn generate() -> String {
    let mut random = [0u8; 12];
    aws_lc_rs::rand::fill(&mut random).expect("the system's random source works");
    let mut code = String::with_capacity(14);
    for (n, byte) in random.iter().enumerate() {
        if n == 4 || n == 8 {
            code.push('-');
        }
        code.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    code
}

/// The same for every way of typing a code: case, hyphens and spaces do not matter.
pub fn hash(code: &str) -> String {
    let plain: String =
        code.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_ascii_uppercase()).collect();
    sha256_hex(plain.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_can_be_read_aloud() {
        let code = generate();
        assert_eq!(code.len(), 14);
        for (n, c) in code.bytes().enumerate() {
            assert!(if n % 5 == 4 { c == b'-' } else { ALPHABET.contains(&c) }, "{code}");
        }
        assert_ne!(code, generate());
        assert_eq!(hash(&code), hash(&code.to_lowercase().replace('-', " ")));
        assert_ne!(hash(&code), hash(&generate()));
    }
}
