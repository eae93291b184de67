//! What a setting is: a field with a sentence, a default and a unit, declared once for serde, for the example file and for rustdoc.

use serde::{Deserialize, Serialize};

/// One setting as the example file shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// The key below its table.
    pub key: &'static str,
    /// The documentation of the field, a line each.
    pub doc: &'static [&'static str],
}

/// A table of settings that can describe itself; `options!` implements it.
pub trait Describe: Serialize + Default {
    /// The sentence above the table.
    const DOC: &'static [&'static str];
    /// The settings in the order of their declaration.
    const SETTINGS: &'static [Setting];
}

/// Declares a table of settings: the struct, its defaults, and what [`Describe`] tells of it.
///
/// Unknown keys are refused, missing ones take their default.
#[macro_export]
macro_rules! options {
    (
        $(#[doc = $table_doc:literal])+
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)*)])*
                pub $field:ident: $ty:ty = $default:expr
            ),* $(,)?
        }
    ) => {
        $(#[doc = $table_doc])+
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                $(#[serde($($serde)*)])*
                pub $field: $ty
            ),*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::options::Describe for $name {
            const DOC: &'static [&'static str] = &[$($table_doc),+];
            const SETTINGS: &'static [$crate::options::Setting] = &[
                $($crate::options::Setting { key: stringify!($field), doc: &[$($doc),+] }),*
            ];
        }
    };
}

/// A length of time, written `"25s"`, `"500ms"`, `"2m"` or `"1h"`; for `#[serde(with = "options::duration")]`.
pub mod duration {
    use super::{Deserialize, Serialize};
    use serde::{Deserializer, Serializer, de::Error};
    use std::time::Duration;

    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

    /// Writes the largest unit that divides the duration.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        render(*value).serialize(serializer)
    }

    /// Reads a number with its unit.
    ///
    /// # Errors
    /// A value without a unit or with one that is unknown.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not a duration such as \"25s\" or \"500ms\"")))
    }

    /// The text of a duration, to the millisecond.
    pub fn render(value: Duration) -> String {
        let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return "0s".to_owned();
        }
        let (unit, size) =
            UNITS.iter().rev().find(|(_, size)| millis.is_multiple_of(*size)).expect("every number is a multiple of 1 ms");
        format!("{}{unit}", millis / size)
    }

    /// The duration that a text names, or `None`.
    pub fn parse(text: &str) -> Option<Duration> {
        let split = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(split)?;
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        number.parse::<u64>().ok()?.checked_mul(*size).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::duration::{parse, render};
    use std::time::Duration;

    #[test]
    fn a_duration_reads_as_it_was_written() {
        for (text, millis) in [("25s", 25_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0), ("90s", 90_000)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
            assert_eq!(parse(&render(Duration::from_millis(millis))), Some(Duration::from_millis(millis)));
        }
    }

    #[test]
    fn a_duration_needs_a_known_unit() {
        for text in ["", "25", "s", "25 days", "-1s", "1.5s", "٣s", "18446744073709551615h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
