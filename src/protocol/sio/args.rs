//! The arguments of an event or acknowledgement: JSON that is passed on as it stands, and typed values on request.

use super::json::{Elements, placeholders_fit};
use super::serialize::{Written, write};
use super::{decode, deserialize};
use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The arguments of an event or acknowledgement.
///
/// They are kept as JSON and their attachments: what is only passed on is never parsed again.
///
/// Bytes, wherever serde meets them as such ([`bytes::Bytes`], `serde_bytes`), become attachments and are read from them. What serde
/// buffers before it knows the type (untagged and internally tagged enums, `flatten`) sees the placeholder
/// `{"_placeholder":true,"num":0}` instead, and so does [`serde_json::Value`].
///
/// JavaScript's strings may hold half a character (a lone surrogate); a typed read shows U+FFFD in its place.
///
/// ```
/// use bytes::Bytes;
/// use stickyport::protocol::sio::Args;
///
/// let args = Args::new(&("photo", 7, Bytes::from_static(b"\x89PNG")))?;
/// assert_eq!(args.json(), r#"["photo",7,{"_placeholder":true,"num":0}]"#);
///
/// assert_eq!(args.first::<String>()?, "photo");
/// assert_eq!(args.get::<Option<u8>>(3)?, None);
/// let (_, id, image): (String, u32, Bytes) = args.all()?;
/// assert_eq!((id, image.len()), (7, 4));
/// # Ok::<_, stickyport::protocol::sio::ArgsError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    tail: ByteString,
    len: usize,
    attachments: Vec<Bytes>,
}

/// Why arguments could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// The value has no form in JSON, such as a map whose keys are lists.
    #[error("the value cannot be written as JSON")]
    Write(#[source] serde_json::Error),
    /// The text is not a JSON array.
    #[error("not a JSON array")]
    NotAnArray(#[source] serde_json::Error),
    /// A placeholder names an attachment that is not there.
    #[error("illegal attachments")]
    IllegalAttachments,
    /// An argument is missing or of another type.
    #[error("argument {index} is not of the type that was asked for")]
    Argument {
        /// Counted from 0.
        index: usize,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The arguments as a whole are of other types.
    #[error("the arguments are not of the types that were asked for")]
    Arguments(#[source] serde_json::Error),
}

impl Args {
    /// No arguments.
    pub const fn none() -> Self {
        Self { tail: ByteString::new(), len: 0, attachments: Vec::new() }
    }

    /// A tuple is several arguments, `()` none, and anything else one.
    ///
    /// Only the outermost value counts: `Some((1, 2))` is one argument, a list. An array of Rust is a tuple to serde, a slice or `Vec` is not.
    ///
    /// # Errors
    /// [`ArgsError::Write`].
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, ArgsError> {
        let Written { json, several, attachments } = write(value).map_err(ArgsError::Write)?;
        let json = ByteString::from(json);
        Ok(match several {
            None => Self { tail: json, len: 1, attachments },
            Some(len) => Self { tail: decode::without_brackets(&json), len, attachments },
        })
    }

    /// Arguments that are JSON already: `[1,{"_placeholder":true,"num":0}]` and one attachment.
    ///
    /// # Errors
    /// [`ArgsError::NotAnArray`], [`ArgsError::IllegalAttachments`].
    pub fn from_raw(json_array: &str, attachments: Vec<Bytes>) -> Result<Self, ArgsError> {
        let json = ByteString::from(json_array);
        let len = decode::validate_array(&json).map_err(ArgsError::NotAnArray)?;
        if !attachments.is_empty() && !placeholders_fit(&json, attachments.len()) {
            return Err(ArgsError::IllegalAttachments);
        }
        Ok(Self { tail: decode::without_brackets(&json), len, attachments })
    }

    /// From a list without brackets that was validated and counted.
    pub(super) fn validated(tail: ByteString, len: usize) -> Self {
        Self { tail, len, attachments: Vec::new() }
    }

    /// Adds what a placeholder already names.
    pub(super) fn attach(&mut self, bytes: Bytes) {
        self.attachments.push(bytes);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes that placeholders name by their place.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// The arguments as a JSON array.
    pub fn json(&self) -> String {
        format!("[{}]", self.tail)
    }

    /// The arguments as JSON without the brackets; empty when there are none.
    pub(super) fn tail(&self) -> &str {
        &self.tail
    }

    /// Each argument as JSON.
    pub fn raw(&self) -> Vec<&RawValue> {
        Elements::of(&self.tail).map(|json| serde_json::from_str(json).expect("validated when the arguments were made")).collect()
    }

    /// One argument, counted from 0; one that is missing reads as null, so an `Option` takes it.
    ///
    /// # Errors
    /// [`ArgsError::Argument`].
    pub fn get<T: DeserializeOwned>(&self, index: usize) -> Result<T, ArgsError> {
        let mut elements = Elements::of(&self.tail);
        elements.by_ref().take(index).for_each(drop);
        let json = if elements.rest().is_empty() { "null" } else { elements.rest() };
        deserialize::read_first(json, &self.attachments).map_err(|source| ArgsError::Argument { index, source })
    }

    /// The first argument, as [`Args::get`] reads it.
    ///
    /// # Errors
    /// [`ArgsError::Argument`].
    pub fn first<T: DeserializeOwned>(&self) -> Result<T, ArgsError> {
        self.get(0)
    }

    /// All arguments as a tuple, a `Vec`, or another type that reads from a list.
    ///
    /// As in JavaScript, a tuple reads null for those that are missing, and leaves out those beyond its length.
    ///
    /// # Errors
    /// [`ArgsError::Arguments`].
    pub fn all<T: DeserializeOwned>(&self) -> Result<T, ArgsError> {
        deserialize::read_list(&self.tail, &self.attachments).map_err(ArgsError::Arguments)
    }
}
