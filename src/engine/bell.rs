//! Rung for a session's loop when another task has changed something; of a bell that is silent it costs the loop one look.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;

/// A bell with one listener, who hears each ring once.
///
/// `tokio::sync::Notify` says the same, but takes a lock each time that its listener is polled: for every message, here.
#[derive(Default)]
pub(super) struct Bell {
    is_rung: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Bell {
    /// Wakes the listener; one that does not listen yet finds that it was rung.
    pub(super) fn ring(&self) {
        self.is_rung.store(true, Release);
        let listener = self.lock().clone();
        if let Some(waker) = listener {
            waker.wake();
        }
    }

    /// Makes `waker` the one that is woken from now on, in place of any other; what was rung before is still to be [heard](Bell::is_heard).
    pub(super) fn listen(&self, waker: &Waker) {
        *self.lock() = Some(waker.clone());
    }

    /// Nobody listens any more: a waker keeps all the memory of its task.
    pub(super) fn leave(&self) {
        *self.lock() = None;
    }

    /// Whether it was rung since it was asked last.
    pub(super) fn is_heard(&self) -> bool {
        self.is_rung.load(Relaxed) && self.is_rung.swap(false, Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.listener.lock().expect("no code that can panic runs under this lock")
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("is_rung", &self.is_rung).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn who_is_woken_finds_that_it_was_rung() {
        struct Looks(Arc<Bell>, AtomicBool);
        impl Wake for Looks {
            fn wake(self: Arc<Self>) {
                self.1.store(self.0.is_heard(), Relaxed);
            }
        }
        let bell = Arc::new(Bell::default());
        let listener = Arc::new(Looks(Arc::clone(&bell), AtomicBool::new(false)));
        bell.listen(&Arc::clone(&listener).into());
        bell.ring();
        assert!(listener.1.load(Relaxed));
        bell.leave();
        assert_eq!(Arc::strong_count(&listener), 1);
    }

    #[test]
    fn each_ring_is_heard_once_and_wakes_whoever_listens_now() {
        let (bell, first, second) = (Bell::default(), Arc::new(Woken::default()), Arc::new(Woken::default()));
        let woken = || (first.0.load(Relaxed), second.0.load(Relaxed));
        bell.ring();
        bell.listen(&first.clone().into());
        assert_eq!((bell.is_heard(), bell.is_heard(), woken()), (true, false, (0, 0)));
        bell.ring();
        bell.ring();
        assert_eq!((bell.is_heard(), bell.is_heard(), woken()), (true, false, (2, 0)));
        bell.listen(&second.clone().into());
        bell.ring();
        assert_eq!((bell.is_heard(), woken()), (true, (2, 1)));
    }
}
