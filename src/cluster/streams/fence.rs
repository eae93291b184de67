//! How the node to which a client comes back ends the client's former session on the node that still has it, and learns that this is done.

use super::super::wire::WireError;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::oneshot;

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

    pub(in crate::cluster) fn read(message: &[u8]) -> Result<Self, WireError> {
        serde_json::from_slice(message).map_err(|_| WireError::Malformed)
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
