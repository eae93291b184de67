//! A request's headers, kept as long as its session lives.

use http::HeaderMap;
use std::fmt;

/// A request's headers, in one piece of memory of their size.
///
/// A `HeaderMap` takes ten times as much, and each value in it keeps all that was read with it.
#[derive(Clone, Default)]
pub struct Headers(Box<[u8]>);

impl Headers {
    /// The value of the first header of that name, in whatever case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find_map(|(other, value)| other.eq_ignore_ascii_case(name).then_some(value))
    }

    /// Names in lower case and values; those of one name follow each other.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.split(|byte| *byte == b'\n').filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            Some((std::str::from_utf8(name).ok()?, value.get(1..)?))
        })
    }
}

impl From<&HeaderMap> for Headers {
    fn from(headers: &HeaderMap) -> Self {
        let mut lines = Vec::with_capacity(headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 2).sum());
        for (name, value) in headers {
            // Neither a name with a colon nor a value with a line break is one (RFC 9110, section 5).
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.push(b':');
            lines.extend_from_slice(value.as_bytes());
            lines.push(b'\n');
        }
        Self(lines.into())
    }
}

impl fmt::Debug for Headers {
    /// Only the names: values may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_came_is_there(lines in prop::collection::vec(("[a-z][a-z0-9-]{0,8}", "[\t -~\u{80}-\u{ff}]{0,20}"), 0..20)) {
            let map: HeaderMap = lines
                .iter()
                .map(|(name, value)| (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_bytes(value.as_bytes()).expect("a value")))
                .collect();
            let headers = Headers::from(&map);
            let expected: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            prop_assert_eq!(headers.iter().collect::<Vec<_>>(), expected);
            for name in map.keys() {
                prop_assert_eq!(headers.get(name.as_str()), map.get(name).map(HeaderValue::as_bytes));
            }
            prop_assert_eq!(headers.get("nobody-sends-this"), None);
        }
    }
}
