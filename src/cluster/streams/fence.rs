//! How the node to which a client comes back ends the client's former session on the node that still has it, and learns that this is done.

use super::super::wire::{Bounds, WireError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// How long the name of a node or of a question may be: twice as long as ours are.
const NAME: usize = 32;

/// What a node tells another one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cluster) enum Fence {
    /// A client is here now: `from` is to be told when there is nothing left of it.
    Release { namespace: String, pid: String, id: String, from: String },
    /// There is nothing left.
    Free { id: String },
}

impl Fence {
    pub(in crate::cluster) fn written(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts are JSON")
    }

    /// # Errors
    /// It is none, or so long that none of ours has written it.
    pub(in crate::cluster) fn read(message: &[u8], bounds: &Bounds) -> Result<Self, WireError> {
        if message.len() > bounds.bytes {
            return Err(WireError::TooLong);
        }
        let fence = serde_json::from_slice(message).map_err(|_| WireError::Malformed)?;
        // Both are said again, in a channel's name and in an answer.
        let names = match &fence {
            Self::Release { id, from, .. } => [&**id, from],
            Self::Free { id } => [&**id, ""],
        };
        if names.iter().all(|name| name.len() <= NAME) { Ok(fence) } else { Err(WireError::TooLong) }
    }
}

/// Those that were asked for and not answered.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Fences(Mutex<HashMap<String, oneshot::Sender<()>>>);

impl Fences {
    /// Waits for an answer, as long as the value that is returned lives.
    pub(super) fn open(&self, id: String) -> (Waiting<'_>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(id.clone(), sender);
        (Waiting { fences: self, id }, receiver)
    }

    pub(in crate::cluster) fn answered(&self, id: &str) {
        if let Some(sender) = self.lock().remove(id) {
            // Who has waited long enough does not wait any more.
            let _ = sender.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<()>>> {
        self.0.lock().expect("no code that can panic runs under this lock")
    }
}

pub(super) struct Waiting<'a> {
    fences: &'a Fences,
    id: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.fences.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_none_of_ours_has_written_is_refused() {
        let bounds = Bounds { bytes: 200, rooms: 10, attachments: 10 };
        let release = |text: &str, name: &str| {
            let [namespace, pid, id, from] = [text, text, name, name].map(str::to_owned);
            Fence::read(&Fence::Release { namespace, pid, id, from }.written(), &bounds).err()
        };
        let (short, long) = ("x".repeat(NAME), "x".repeat(NAME + 1));
        assert_eq!(release("/", &short), None);
        assert_eq!(release("/", &long), Some(WireError::TooLong));
        assert_eq!(release(&"x".repeat(100), "x"), Some(WireError::TooLong));
        assert_eq!(Fence::read(&Fence::Free { id: long }.written(), &bounds).err(), Some(WireError::TooLong));
        assert_eq!(Fence::read(b"{}", &bounds).err(), Some(WireError::Malformed));
    }
}
