//! The id of an entry of a stream, which is its place in the order of all: `<milliseconds>-<number>`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
pub(in crate::cluster) struct Id {
    milliseconds: u64,
    number: u64,
}

impl FromStr for Id {
    type Err = ();

    /// As the reference takes it from a client: two numbers of digits alone.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (milliseconds, number) = text.split_once('-').ok_or(())?;
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten().ok_or(());
        Ok(Self { milliseconds: digits(milliseconds)?, number: digits(number)? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order() {
        let id = |text: &str| text.parse::<Id>();
        assert!(id("9-9") < id("10-0") && id("10-0") < id("10-1") && id("10-9") < id("10-10"));
        assert_eq!(id("1795174663007-0").map(|id| id.to_string()), Ok("1795174663007-0".to_owned()));
        for text in ["", "-", "1", "1-", "-1", "+1-1", "1-1-1", "a-1", "1- 1", "$", "99999999999999999999-0"] {
            assert_eq!(id(text), Err(()), "{text}");
        }
    }
}
