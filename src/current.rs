//! A value that may be replaced while others read it: a setting that a running process takes anew.

use arc_swap::ArcSwap;
use std::ops::Deref;
use std::sync::Arc;

/// A value that may be replaced as a whole; clones share it.
///
/// Whoever reads it writes to nothing that another thread reads, so that a look at it for each request costs all of them the same: next to nothing.
#[derive(Debug)]
pub struct Current<T>(Arc<ArcSwap<T>>);

impl<T> Current<T> {
    /// The value as it is now, for a look that does not outlive a wait.
    pub fn get(&self) -> impl Deref<Target = Arc<T>> {
        self.0.load()
    }

    /// The value as it is now, to be kept by what shall not see it change.
    pub fn snapshot(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Replaces the value for everybody who looks from now on.
    pub fn set(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

impl<T> From<T> for Current<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_sees_the_new_value_and_who_kept_one_the_old() {
        let here = Current::from(1);
        let there = here.clone();
        let kept = there.snapshot();
        here.set(2);
        assert_eq!((*kept, **there.get()), (1, 2));
    }
}
