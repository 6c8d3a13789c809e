//! Durations as people write them on a command line: `90s`, `15m`, `12h`, `7d`.

use std::time::Duration;

pub fn parse(text: &str) -> Result<Duration, String> {
    let help = || format!("`{text}` is no duration: write 90s, 15m, 12h or 7d");
    let unit = text.chars().next_back().ok_or_else(help)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(help()),
    };
    let number = text.strip_suffix(unit).ok_or_else(help)?;
    let count: u64 = number.parse().map_err(|_| help())?;
    if count == 0 {
        return Err(format!("`{text}`: a duration must be more than nothing"));
    }
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(help)
}

/// The same, or `0s` for none at all.
pub fn parse_or_none(text: &str) -> Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { parse(text) }
}

/// The two largest units, for tables: `2h 5m`.
pub fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}d {hours}h")
    } else if hours > 0 {
        format!("{hours}h {minutes}m")
    } else if minutes > 0 {
        format!("{minutes}m {rest}s")
    } else {
        format!("{rest}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("2d"), Ok(Duration::from_secs(172_800)));
        for bad in [
            "",
            "s",
            "5",
            "1.5h",
            "-1s",
            "0s",
            "5 m",
            "9é",
            "99999999999999999999s",
            "300000000000000000d",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn none_at_all_has_one_spelling() {
        assert_eq!(parse_or_none("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_or_none("1m"), Ok(Duration::from_secs(60)));
        assert!(parse_or_none("0m").is_err());
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let show = |seconds| show(Duration::from_secs(seconds));
        assert_eq!(
            [show(5), show(65), show(7500), show(90_000)],
            ["5s", "1m 5s", "2h 5m", "1d 1h"]
        );
    }
}
