//! Values of settings that have a unit: what one is written as reads as itself.

use stickyport::options::{duration, size};

pub fn setting(data: &[u8]) {
    let text = super::eio::lossy(data);
    if let Some(read) = duration::parse(&text) {
        assert_eq!(duration::parse(&duration::render(read)), Some(read));
        assert!(read.as_millis() == 0 || text.starts_with(|c: char| c.is_ascii_digit()));
    }
    if let Some(read) = size::parse(&text) {
        assert_eq!(size::parse(&size::render(read)), Some(read));
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        assert!(digits.parse::<usize>().is_ok_and(|number| read.checked_rem(number).unwrap_or(0) == 0));
    }
}
