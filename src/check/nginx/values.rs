//! How nginx writes times and sizes.

use std::time::Duration;

/// A time such as `55s`, `500ms` or `1h 30m`; a number alone is seconds.
pub(in crate::check) fn time(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 8] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
        ("w", 604_800_000),
        ("M", 2_592_000_000),
        ("y", 31_536_000_000),
    ];
    let mut rest = text.trim();
    let mut millis = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        let size = if unit.is_empty() { 1000 } else { UNITS.iter().find(|(name, _)| *name == unit)?.1 };
        millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(size)?)?;
        rest = after.trim_start();
    }
    Some(Duration::from_millis(millis))
}

/// A size such as `1m`, `64k` or `8192`.
pub(in crate::check) fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_nginxs() {
        for (text, millis) in [("55s", 55_000), ("60", 60_000), ("500ms", 500), ("1h30m", 5_400_000), ("1m 5s", 65_000)] {
            assert_eq!(time(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5x", "1.5s", "99999999999999999999", "٣s"] {
            assert_eq!(time(text), None, "{text}");
        }
        assert_eq!([size("1m"), size("8k"), size("10"), size("1x"), size("")], [Some(1 << 20), Some(8192), Some(10), None, None]);
    }
}
