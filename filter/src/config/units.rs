//! Durations and sizes as a person writes them: `"250ms"`, `"64KiB"`.

use std::fmt;
use std::time::Duration;

use super::read::{At, Read};

/// A length of time, written with its unit: `"250ms"`, `"5s"`, `"2m"`, `"1h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub const fn get(self) -> Duration {
        self.0
    }

    /// `None` for `"0s"`, which turns a limit off.
    pub fn unless_zero(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }

    /// The problem to tell if this is not between `least` and `most`.
    pub fn within(self, least: Self, most: Self) -> Result<(), String> {
        if (least..=most).contains(&self) {
            return Ok(());
        }
        Err(format!("{self} is out of range, expected {least} to {most}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(digits.len()))?;
        let number: u64 = number.parse().ok()?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        number.checked_mul(millis).map(Self::from_millis)
    }
}

/// In the largest unit that leaves no rest, so that reading it gives the same span.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if let (Some(0), Some(count)) = (millis.checked_rem(unit), millis.checked_div(unit))
                && (count > 0 || name == "s")
            {
                return write!(f, "{count}{name}");
            }
        }
        write!(f, "{millis}ms")
    }
}

impl Read for Span {
    fn read(at: &At<'_>) -> Option<Self> {
        let span = at.text().and_then(Self::parse);
        span.or_else(|| at.mismatch(r#"a duration such as "250ms", "5s", "2m" or "1h""#))
    }
}

/// A number of bytes, plain or with a unit: `65536`, `"64KiB"`, `"4MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u32);

impl Size {
    pub const fn from_bytes(bytes: u32) -> Self {
        Self(bytes)
    }

    pub const fn from_kib(kib: u16) -> Self {
        // At most 65,535 × 1,024, which fits.
        Self((kib as u32).saturating_mul(1024))
    }

    /// In bytes.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// `None` for 0, which turns a limit off.
    pub const fn unless_zero(self) -> Option<usize> {
        if self.0 == 0 { None } else { Some(self.0 as usize) }
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(digits.len()))?;
        let number: u32 = number.parse().ok()?;
        let bytes = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(bytes).map(Self)
    }
}

/// In the largest unit that leaves no rest, so that reading it gives the same size.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, name) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            let count = self.0.wrapping_shr(shift);
            if count > 0 && count.wrapping_shl(shift) == self.0 {
                return write!(f, "{count}{name}");
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Read for Size {
    fn read(at: &At<'_>) -> Option<Self> {
        let bytes = at.whole().and_then(|bytes| u32::try_from(bytes).ok()).map(Self);
        let size = bytes.or_else(|| at.text().and_then(Self::parse));
        size.or_else(|| at.mismatch(r#"a size such as 65536, "64KiB" or "4MiB", below 4 GiB"#))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(Span::parse("250ms"), Some(Span::from_millis(250)));
        assert_eq!(Span::parse("2m"), Some(Span::from_millis(120_000)));
        for wrong in ["", "5", "s", "5 s", "-5s", "1.5s", "5sec", "99999999999999999999s", "5s5s"] {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two() {
        assert_eq!(Size::parse("64KiB"), Some(Size::from_kib(64)));
        assert_eq!(Size::parse("12B"), Some(Size::from_bytes(12)));
        for wrong in ["", "64", "64KB", "64kib", "4GiB", "1.5MiB", "-1B"] {
            assert_eq!(Size::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn both_print_as_they_are_read() {
        for text in ["0s", "1ms", "1500ms", "90s", "2m", "36h"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        for text in ["0B", "1B", "1025B", "64KiB", "3MiB", "1GiB"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
    }
}
