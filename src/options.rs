//! What a setting is: a field with a sentence, a default and a unit, declared once for serde, for the example file and for rustdoc.

use serde::Serialize;

/// One setting as the example file shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// The key below its table.
    pub key: &'static str,
    /// The documentation of the field, a line each.
    pub doc: &'static [&'static str],
}

/// A table inside another one, as the example file shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Its name.
    pub key: &'static str,
    /// The sentence above it.
    pub doc: &'static [&'static str],
    /// Its settings in the order of their declaration.
    pub settings: &'static [Setting],
}

/// A table of settings that can describe itself; `options!` implements it.
pub trait Describe: Serialize + Default {
    /// The sentence above the table.
    const DOC: &'static [&'static str];
    /// The settings in the order of their declaration.
    const SETTINGS: &'static [Setting];
    /// The tables inside this one, after its settings.
    const TABLES: &'static [Table] = &[];
}

/// Declares a table of settings: the struct, its defaults, and what [`Describe`] tells of it.
///
/// Unknown keys are refused, missing ones take their default. Tables inside the table follow it as `tables { name: Type, … }`.
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
        $(tables {
            $( $table:ident: $table_ty:ty ),* $(,)?
        })?
    ) => {
        $(#[doc = $table_doc])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                $(#[serde($($serde)*)])*
                pub $field: $ty,
            )*
            $($(
                #[doc = concat!("The table `[", stringify!($table), "]`.")]
                pub $table: $table_ty,
            )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* $($($table: <$table_ty>::default(),)*)? }
            }
        }

        impl $crate::options::Describe for $name {
            const DOC: &'static [&'static str] = &[$($table_doc),+];
            const SETTINGS: &'static [$crate::options::Setting] = &[
                $($crate::options::Setting { key: stringify!($field), doc: &[$($doc),+] }),*
            ];
            $(const TABLES: &'static [$crate::options::Table] = &[
                $($crate::options::Table {
                    key: stringify!($table),
                    doc: <$table_ty as $crate::options::Describe>::DOC,
                    settings: <$table_ty as $crate::options::Describe>::SETTINGS,
                }),*
            ];)?
        }
    };
}

/// A length of time, written `"25s"`, `"500ms"`, `"2m"` or `"1h"`; for `#[serde(with = "options::duration")]`.
pub mod duration {
    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serialize, Serializer};
    use std::fmt;
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
        deserializer.deserialize_str(Text)
    }

    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration such as \"25s\" or \"500ms\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
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

/// A number of bytes, written `"1MB"`, `"64KiB"`, `"2GiB"` or as a plain number; for `#[serde(with = "options::size")]`.
pub mod size {
    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serialize, Serializer};
    use std::fmt;

    const UNITS: [(&str, usize); 7] =
        [("B", 1), ("KB", 1_000), ("KiB", 1 << 10), ("MB", 1_000_000), ("MiB", 1 << 20), ("GB", 1_000_000_000), ("GiB", 1 << 30)];

    /// Writes the largest unit that divides the number.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        render(*value).serialize(serializer)
    }

    /// Reads a number of bytes, or a number with its unit.
    ///
    /// # Errors
    /// A unit that is unknown, or no number at all.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(Text)
    }

    struct Text;

    impl Visitor<'_> for Text {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes such as 1000, \"1MB\" or \"64KiB\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
            parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<usize, E> {
            usize::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<usize, E> {
            usize::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
        }
    }

    /// The text of a number of bytes.
    pub fn render(bytes: usize) -> String {
        if bytes == 0 {
            return "0B".to_owned();
        }
        let (unit, size) =
            UNITS.iter().rev().find(|(_, size)| bytes.is_multiple_of(*size)).expect("every number is a multiple of 1 B");
        format!("{}{unit}", bytes / size)
    }

    /// The number of bytes that a text names, or `None`.
    pub fn parse(text: &str) -> Option<usize> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(split)?;
        let unit = if unit.is_empty() { "B" } else { unit.trim_start() };
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<usize>().ok()?.checked_mul(*size)
    }
}

#[cfg(test)]
mod tests {
    use super::duration::{parse, render};
    use super::size;
    use std::time::Duration;

    #[test]
    fn a_size_reads_as_it_was_written() {
        for (text, bytes) in [("1MB", 1_000_000), ("64KiB", 65_536), ("1GiB", 1 << 30), ("1001B", 1_001), ("0B", 0)] {
            assert_eq!(size::parse(text), Some(bytes), "{text}");
            assert_eq!(size::render(bytes), text);
        }
        assert_eq!(size::parse("1024"), Some(1024));
        assert_eq!(size::parse("1 KiB"), Some(1024));
        for text in ["", "MB", "1mb", "1.5MB", "-1", "1 TB", "99999999999GiB", "٣"] {
            assert_eq!(size::parse(text), None, "{text}");
        }
    }

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
