//! Namespaces that are made when a client asks for them.

use super::handshake::Handshake;
use super::namespace::Behaviour;
use bytestring::ByteString;
use regex::Regex;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

type Allow = Box<dyn Fn(NamespaceRequest) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Which names a declaration speaks of.
pub(super) enum Address {
    Name(ByteString),
    Pattern(Regex),
    Function(Allow),
}

/// A client asks for a namespace that does not exist.
#[derive(Debug, Clone)]
pub struct NamespaceRequest {
    pub(super) name: ByteString,
    pub(super) handshake: Handshake,
}

impl NamespaceRequest {
    /// The namespace that is asked for, as the client wrote it: with its slash, and perhaps a `?query`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client's request, and its `auth`.
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }
}

/// The namespaces of one declaration.
pub(super) struct Family {
    address: Address,
    label: Option<String>,
    pub(super) behaviour: Arc<Behaviour>,
}

impl Family {
    pub(super) fn new(address: Address, label: Option<String>, behaviour: Arc<Behaviour>) -> Self {
        Self { address, label, behaviour }
    }

    /// Whether `name` belongs to it without asking anyone.
    pub(super) fn matches(&self, name: &str) -> bool {
        matches!(&self.address, Address::Pattern(pattern) if pattern.is_match(name))
    }

    pub(super) async fn allows(&self, name: &ByteString, handshake: &Handshake) -> bool {
        match &self.address {
            Address::Function(allow) => allow(NamespaceRequest { name: name.clone(), handshake: handshake.clone() }).await,
            _ => self.matches(name),
        }
    }

    pub(super) fn is_labelled(&self, label: &str) -> bool {
        match (&self.label, &self.address) {
            (Some(own), _) => own == label,
            (None, Address::Pattern(pattern)) => pattern.as_str() == label,
            _ => false,
        }
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("label", &self.label).finish_non_exhaustive()
    }
}
