//! What has arrived and cannot be handed on yet: bounded over all sessions, because each of them may hold a message of full size.

use crate::metrics::Metrics;
use crate::protocol::limits::Limits;
use std::sync::Arc;

/// So much is never too much: clients that behave leave it over between two reads.
const LITTLE: usize = 16 * 1024;

/// Bytes that are counted for as long as they are held.
#[derive(Debug)]
pub struct Intake {
    metrics: Arc<Metrics>,
    most: usize,
    held: usize,
}

/// All sessions together hold too much, and this one is not among those that hold little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much has begun to arrive on this instance")]
pub struct Overflow;

impl Intake {
    /// Nothing is held.
    pub fn new(metrics: &Arc<Metrics>, limits: &Limits) -> Self {
        Self { metrics: Arc::clone(metrics), most: limits.inbound_bytes, held: 0 }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Holds so many bytes in place of those that were held.
    ///
    /// # Errors
    /// They are more, and too many; they are counted all the same.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Overflow> {
        let is_more = bytes > self.held;
        self.set(bytes);
        if is_more && self.is_too_much() {
            self.metrics.limit_inbound.inc();
            return Err(Overflow);
        }
        Ok(())
    }

    /// The same, for who looks by himself whether it is too much.
    pub fn set(&mut self, bytes: usize) {
        if bytes != self.held {
            self.metrics.inbound_bytes.add(bytes as i64 - self.held as i64);
            self.held = bytes;
        }
    }

    /// Whether all sessions together hold too much, and this one is not among those that hold little.
    pub fn is_too_much(&self) -> bool {
        self.held > LITTLE && usize::try_from(self.metrics.inbound_bytes.get()).is_ok_and(|total| total > self.most)
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_much_is_refused_more_and_who_holds_little_is_not() {
        let metrics = Arc::new(Metrics::default());
        let limits = Limits { inbound_bytes: 100_000, ..Limits::default() };
        let [mut much, mut more, mut little] = [(); 3].map(|()| Intake::new(&metrics, &limits));
        assert_eq!((much.hold(60_000), more.hold(60_000), little.hold(LITTLE)), (Ok(()), Err(Overflow), Ok(())));
        assert_eq!((metrics.inbound_bytes.get(), metrics.limit_inbound.get()), (120_000 + LITTLE as i64, 1));
        assert_eq!((more.hold(50_000), much.is_too_much(), more.hold(20_000), much.is_too_much()), (Ok(()), true, Ok(()), false));
        drop((much, more, little));
        assert_eq!(metrics.inbound_bytes.get(), 0);
    }
}
