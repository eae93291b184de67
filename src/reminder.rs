//! Something worth saying again, though not with every time that it happens.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What goes on is said again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// One kind of news in the log: said at once, and then no more than once a minute.
#[derive(Debug, Default)]
pub struct Reminder(Mutex<Option<Instant>>);

impl Reminder {
    /// Whether to speak of it now; `true` counts as said.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut said = self.0.lock().expect("nothing panics while it is held");
        let is_due = said.is_none_or(|last| now.saturating_duration_since(last) >= AGAIN);
        if is_due {
            *said = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_said_once_a_minute() {
        let (reminder, start) = (Reminder::default(), Instant::now());
        let said = [0, 0, 1, 59, 60, 61, 119, 120].map(|at| reminder.is_due(start + Duration::from_secs(at)));
        assert_eq!(said, [true, false, false, false, true, false, false, true]);
    }
}
