//! The name of a content everywhere in Larder: SHA-1 of the metainfo's `info` value (BEP 3).

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// 20 bytes; 40 lower-case hex digits in text, JSON and paths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Infohash(pub [u8; 20]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an infohash is 40 hexadecimal digits")]
pub struct NotAnInfohash;

impl Infohash {
    /// Hashes the bencoded `info` value.
    pub fn of_info(info: &[u8]) -> Infohash {
        Infohash(sha1(info))
    }
}

/// SHA-1 as BEP 3 needs it. Not for anything but BitTorrent's own hashes.
pub fn sha1(data: &[u8]) -> [u8; 20] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, data);
    let mut out = [0; 20];
    out.copy_from_slice(digest.as_ref());
    out
}

/// `sha1` of data that comes in parts.
pub struct Sha1(aws_lc_rs::digest::Context);

impl Default for Sha1 {
    fn default() -> Sha1 {
        Sha1(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY))
    }
}

impl Sha1 {
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    pub fn finish(self) -> [u8; 20] {
        let mut out = [0; 20];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl FromStr for Infohash {
    type Err = NotAnInfohash;
    fn from_str(s: &str) -> Result<Self, NotAnInfohash> {
        let mut out = [0; 20];
        if s.len() != 40 {
            return Err(NotAnInfohash);
        }
        HEXLOWER_PERMISSIVE.decode_mut(s.as_bytes(), &mut out).map_err(|_| NotAnInfohash)?;
        Ok(Infohash(out))
    }
}

impl fmt::Display for Infohash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Infohash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Infohash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Infohash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let hash = Infohash::of_info(b"d4:name1:ae");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
        for bad in
            ["", "abc", &"g".repeat(40), &"a".repeat(39), &"a".repeat(41), "../../etc/passwd"]
        {
            assert_eq!(bad.parse::<Infohash>(), Err(NotAnInfohash), "{bad}");
        }
    }
}
