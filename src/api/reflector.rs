//! The reflector's datagrams: a device times how long one takes to the hub and back. Fixed size and no
//! content, so that nobody gains by asking in another's name. docs/reflector.md describes them.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0–5 | `larder` |
//! | 6 | version, 1 |
//! | 7 | 1: question, 2: answer |
//! | 8–23 | nonce of the asker, returned as it came |
//! | 24–31 | zero |

pub const DATAGRAM_BYTES: usize = 32;
pub const NONCE_BYTES: usize = 16;

const MAGIC: &[u8; 6] = b"larder";
const VERSION: u8 = 1;
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;

pub type Datagram = [u8; DATAGRAM_BYTES];

pub fn question(nonce: &[u8; NONCE_BYTES]) -> Datagram {
    datagram(QUESTION, nonce)
}

/// The answer to a question; `None` for anything else, an answer included: two reflectors that were
/// made to speak to each other fall silent at once.
pub fn answer(question: &[u8]) -> Option<Datagram> {
    nonce_of(QUESTION, question).map(|nonce| datagram(ANSWER, &nonce))
}

/// The nonce that an answer returns.
pub fn answered_nonce(answer: &[u8]) -> Option<[u8; NONCE_BYTES]> {
    nonce_of(ANSWER, answer)
}

fn datagram(kind: u8, nonce: &[u8; NONCE_BYTES]) -> Datagram {
    let mut bytes = [0; DATAGRAM_BYTES];
    bytes[..6].copy_from_slice(MAGIC);
    bytes[6] = VERSION;
    bytes[7] = kind;
    bytes[8..24].copy_from_slice(nonce);
    bytes
}

fn nonce_of(kind: u8, bytes: &[u8]) -> Option<[u8; NONCE_BYTES]> {
    let nonce: [u8; NONCE_BYTES] = bytes.get(8..24)?.try_into().ok()?;
    (bytes == datagram(kind, &nonce)).then_some(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_a_question_with_its_nonce_and_nothing_else() {
        let asked = question(b"0123456789abcdef");
        let answered = answer(&asked).expect("an answer");
        assert_eq!(answered_nonce(&answered), Some(*b"0123456789abcdef"));
        assert_eq!(answer(&answered), None, "an answer is no question");
        assert_eq!(answered_nonce(&asked), None);
        assert_eq!(answer(&asked[..31]), None);
        assert_eq!(answer(&[&asked[..], &[0]].concat()), None);
        for at in [0, 6, 7, 31] {
            let mut other = asked;
            other[at] ^= 0x80;
            assert_eq!(answer(&other), None, "byte {at}");
        }
    }
}
