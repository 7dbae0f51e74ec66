//! Sizes, money and how both are shown. Must not round money anywhere but in `rating`.

use std::fmt;

use serde::{Deserialize, Serialize};

pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;
pub const GIB: u64 = 1024 * MIB;
/// Prices are per decimal gigabyte, as carriers and CDNs bill.
pub const GB: u64 = 1_000_000_000;

/// An amount in millionths of the currency's unit: 1 CNY = 1,000,000 micros.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    pub fn saturating_add(self, other: Micros) -> Micros {
        Micros(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for Micros {
    fn sum<I: Iterator<Item = Micros>>(iter: I) -> Micros {
        iter.fold(Micros(0), Micros::saturating_add)
    }
}

/// Six decimals, always: `0.006710`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// `1.5 MiB` for people; never parse it back.
pub struct HumanBytes(pub u64);

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            b if b >= GIB => (GIB, "GiB"),
            b if b >= MIB => (MIB, "MiB"),
            b if b >= KIB => (KIB, "KiB"),
            b => return write!(f, "{b} B"),
        };
        write!(f, "{:.1} {name}", self.0 as f64 / unit as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_money_with_six_decimals() {
        assert_eq!(Micros(6_710).to_string(), "0.006710");
        assert_eq!(Micros(12_000_000).to_string(), "12.000000");
    }

    #[test]
    fn shows_sizes_in_binary_units() {
        assert_eq!(HumanBytes(512).to_string(), "512 B");
        assert_eq!(HumanBytes(64 * MIB).to_string(), "64.0 MiB");
    }
}
