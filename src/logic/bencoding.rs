//! Reads bencoding (BEP 3) with `librqbit-bencode`, after a look at its numbers: that library lets a
//! number that is too large wrap round, or panics when overflow is checked, and a stranger's message
//! would mean here something else than elsewhere. Limits on size are the caller's.

use serde::Deserialize;

/// BEP 3 names no limit; every client's numbers have 64 bits with a sign. Leading zeros count: BEP 3
/// forbids them.
const MAX_DIGITS: usize = 19;

#[derive(Debug, thiserror::Error)]
pub enum BencodingError {
    #[error("the number at byte {0} is too large")]
    Number(usize),
    #[error("{0}")]
    Malformed(String),
}

/// All of `bytes`.
pub fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BencodingError> {
    check_numbers(bytes)?;
    bencode::from_bytes(bytes).map_err(|e| BencodingError::Malformed(e.to_string()))
}

/// The value at the start of `bytes`, and what follows it.
pub fn from_bytes_with_rest<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), BencodingError> {
    check_numbers(bytes)?;
    bencode::from_bytes_with_rest(bytes).map_err(|e| BencodingError::Malformed(e.to_string()))
}

/// Goes from one token to the next, up to the end of the first value or to what is no token: that is
/// the library's to refuse.
fn check_numbers(bytes: &[u8]) -> Result<(), BencodingError> {
    let (mut at, mut depth) = (0, 0u32);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'd' | b'l' => {
                depth += 1;
                at += 1;
            }
            b'e' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'i' => {
                let sign = usize::from(matches!(bytes.get(at + 1), Some(b'-' | b'+')));
                at += 1 + sign;
                at += digits(bytes, at)?.1 + 1;
            }
            b'0'..=b'9' => {
                let (length, count) = digits(bytes, at)?;
                let skipped = usize::try_from(length).ok().and_then(|n| n.checked_add(count + 1));
                at = skipped.and_then(|n| n.checked_add(at)).ok_or(BencodingError::Number(at))?;
            }
            _ => return Ok(()),
        }
        if depth == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// The number that starts there, and how many digits it has.
fn digits(bytes: &[u8], at: usize) -> Result<(i64, usize), BencodingError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let count = rest.iter().take(MAX_DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
    let add = |sum: i64, byte: &u8| sum.checked_mul(10)?.checked_add(i64::from(byte - b'0'));
    let number = rest[..count].iter().try_fold(0i64, add).filter(|_| count <= MAX_DIGITS);
    number.map(|number| (number, count)).ok_or(BencodingError::Number(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Result<i64, BencodingError> {
        from_bytes(bytes)
    }

    #[test]
    fn refuses_numbers_that_would_wrap_round() {
        assert_eq!(number(b"i9223372036854775807e").ok(), Some(i64::MAX));
        assert_eq!(number(b"i-9223372036854775807e").ok(), Some(-i64::MAX));
        for bad in ["i9223372036854775808e", "i18446744073709551617e", "i-99999999999999999999e"] {
            assert!(matches!(number(bad.as_bytes()), Err(BencodingError::Number(_))), "{bad}");
        }
        for bad in
            ["18446744073709551617:a", "d18446744073709551617:ai1ee", "l9223372036854775807:"]
        {
            let read = from_bytes_with_rest::<Vec<i64>>(bad.as_bytes());
            assert!(read.is_err(), "{bad}");
        }
    }

    #[test]
    fn looks_neither_into_strings_nor_behind_the_value() {
        let digits = "9".repeat(30);
        let text = format!("l30:{digits}e{digits}");
        let (list, rest): (Vec<serde_bytes::ByteBuf>, _) =
            from_bytes_with_rest(text.as_bytes()).expect("well formed");
        assert_eq!((&list[0][..], rest), (digits.as_bytes(), digits.as_bytes()));
    }
}
