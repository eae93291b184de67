//! An event: its name, its arguments, and the acknowledgement that is asked for.

use super::ack::AckSender;
use super::errors::EmitError;
use crate::protocol::sio::{Args, ArgsError};
use serde::Serialize;
use smol_str::SmolStr;

/// An event that came from a client or goes to one.
#[derive(Debug, Clone)]
pub struct Event {
    name: SmolStr,
    args: Args,
    ack: AckSender,
}

impl Event {
    /// An event that asks for no acknowledgement.
    ///
    /// # Errors
    /// The arguments have no form in JSON.
    pub fn new(name: impl Into<SmolStr>, args: impl IntoArgs) -> Result<Self, ArgsError> {
        Ok(Self { name: name.into(), args: args.into_args()?, ack: AckSender::unasked() })
    }

    pub(super) fn received(name: SmolStr, args: Args, ack: AckSender) -> Self {
        Self { name, args, ack }
    }

    pub(super) fn sent(name: &str, args: &Args) -> Self {
        Self { name: name.into(), args: args.clone(), ack: AckSender::unasked() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its arguments.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// Where the client waits for an acknowledgement, if it does.
    pub fn ack(&self) -> &AckSender {
        &self.ack
    }

    /// The same event under another name.
    #[must_use]
    pub fn with_name(self, name: impl Into<SmolStr>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The same event with other arguments.
    ///
    /// # Errors
    /// The arguments have no form in JSON.
    pub fn with_args(self, args: impl IntoArgs) -> Result<Self, ArgsError> {
        Ok(Self { args: args.into_args()?, ..self })
    }
}

/// What can be sent with an event: [`Args`] as they are, or any serde value.
///
/// A tuple is several arguments, and so is an array (`[1, 2]`), which serde cannot tell from one; `()` is none, anything else one: a slice or `Vec` is a list.
/// Bytes anywhere inside travel as attachments.
pub trait IntoArgs {
    /// The arguments.
    ///
    /// # Errors
    /// The value has no form in JSON.
    fn into_args(self) -> Result<Args, ArgsError>;
}

impl IntoArgs for Args {
    fn into_args(self) -> Result<Args, ArgsError> {
        Ok(self)
    }
}

impl IntoArgs for &Args {
    fn into_args(self) -> Result<Args, ArgsError> {
        Ok(self.clone())
    }
}

impl<T: Serialize> IntoArgs for T {
    fn into_args(self) -> Result<Args, ArgsError> {
        Args::new(&self)
    }
}

/// The reference's `RESERVED_EVENTS`.
const RESERVED: [&str; 6] = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Checks a name that is about to be sent.
pub(crate) fn unreserved(name: &str) -> Result<&str, EmitError> {
    if RESERVED.contains(&name) { Err(EmitError::Reserved(name.into())) } else { Ok(name) }
}

pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}
