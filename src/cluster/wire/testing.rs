//! What the tests of the wire forms share.

use super::Bounds;
use crate::hub::Room;
use bytes::Bytes;

pub(super) const BOUNDS: Bounds = Bounds { bytes: 1 << 20, rooms: 100, attachments: 10 };

pub(super) fn rooms(names: &[impl AsRef<str>]) -> Vec<Room> {
    names.iter().map(|name| Room::from(name.as_ref())).collect()
}

pub(super) fn unhex(hex: &str) -> Bytes {
    let hex = hex.replace(' ', "");
    let digit = |at| hex.get(at..at + 2).and_then(|byte| u8::from_str_radix(byte, 16).ok()).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digit).collect()
}
