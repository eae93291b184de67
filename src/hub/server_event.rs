//! An event that one server of a cluster sends to the others.

use super::errors::EmitError;
use super::event::IntoArgs;
use crate::protocol::sio::Args;
use bytestring::ByteString;
use std::fmt;
use std::sync::{Arc, Mutex};

/// The reference's reserved names of such events.
const RESERVED: [&str; 3] = ["connect", "connection", "new_namespace"];

type Answer = Box<dyn FnOnce(Args) + Send>;

/// An event that another server of the cluster has sent to this one; no client hears of it. Clones are the same event.
#[derive(Clone)]
pub struct ServerEvent {
    namespace: ByteString,
    name: ByteString,
    args: Args,
    answer: Option<Arc<Mutex<Option<Answer>>>>,
}

impl ServerEvent {
    /// `answer` is called once, if the sender waits for it.
    pub(crate) fn new(namespace: ByteString, name: ByteString, args: Args, answer: Option<Answer>) -> Self {
        Self { namespace, name, args, answer: answer.map(|answer| Arc::new(Mutex::new(Some(answer)))) }
    }

    /// The namespace that it was sent in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What follows the name.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// Whether its sender waits for an acknowledgement.
    pub fn is_asked(&self) -> bool {
        self.answer.is_some()
    }

    /// Acknowledges it, once; the sender sees the first argument, as in the reference.
    ///
    /// # Errors
    /// The arguments have no form in JSON.
    pub fn acknowledge(&self, args: impl IntoArgs) -> Result<(), EmitError> {
        let args = args.into_args()?;
        let take = |answer: &Mutex<Option<Answer>>| answer.lock().expect("nothing panics under this lock").take();
        if let Some(answer) = self.answer.as_deref().and_then(take) {
            answer(args);
        }
        Ok(())
    }
}

impl fmt::Debug for ServerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerEvent").field("namespace", &self.namespace).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Checks a name that is about to be sent to servers.
pub(super) fn unreserved(name: &str) -> Result<(), EmitError> {
    if RESERVED.contains(&name) { Err(EmitError::Reserved(name.into())) } else { Ok(()) }
}
