//! Where the random bits of ids come from: the operating system, or the seed of a simulation.

use std::fmt;
use std::sync::Arc;

/// Where the random bits of ids come from; clones are the same source.
#[derive(Clone)]
pub struct Entropy(Arc<dyn Fn() -> u128 + Send + Sync>);

impl Entropy {
    /// Bits from `source`: ids that can be guessed are for tests.
    pub fn new(source: impl Fn() -> u128 + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The bits of one id.
    pub fn bits(&self) -> u128 {
        (self.0)()
    }
}

impl Default for Entropy {
    /// The operating system.
    fn default() -> Self {
        Self::new(|| {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).expect("the operating system has entropy, and without it there is no going on");
            u128::from_ne_bytes(bytes)
        })
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive()
    }
}
