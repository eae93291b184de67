//! Reads decisions from an input: a byte each, as long as there are any.

use std::time::Duration;

/// What is left of an input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte; `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One of so many, 0 at the end.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte().unwrap_or_default()) % count
    }

    /// One of these, the first at the end.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// From nothing to 36 hours, short times as finely as milliseconds.
    pub fn time(&mut self) -> Duration {
        let byte = self.byte().unwrap_or_default();
        let (mantissa, exponent) = (u32::from(byte & 0x0f), u32::from(byte >> 4));
        Duration::from_millis(u64::from(mantissa)) * 2_u32.pow(exponent) * if exponent > 9 { 9 } else { 1 }
    }

    /// So many bytes as the next one says, or what there is.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = self.below(64).min(self.0.len());
        let (now, rest) = self.0.split_at(length);
        self.0 = rest;
        now
    }

    /// The same as text.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}
