//! The arguments of an event or acknowledgement: JSON that is passed on as it stands, and typed values on request.

use super::json::{Elements, placeholders_fit};
use super::serialize::{Written, write};
use super::{decode, deserialize};
use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;

/// The arguments of an event or acknowledgement.
///
/// They are kept as JSON and their attachments: what is only passed on is never parsed again.
///
/// Bytes, wherever serde meets them as such ([`bytes::Bytes`], `serde_bytes`; a `Vec<u8>` is a list of numbers to it), become
/// attachments and are read from them. What serde buffers before it knows the type (untagged and internally tagged enums,
/// `flatten`) sees the placeholder `{"_placeholder":true,"num":0}` instead, and so does [`serde_json::Value`].
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
#[derive(Clone, Default)]
pub struct Args {
    /// As it came, so that what it came in is neither copied nor shared.
    text: ByteString,
    /// Where in it the list is that they are, without its brackets.
    tail: Range<usize>,
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
        Self { text: ByteString::new(), tail: 0..0, len: 0, attachments: Vec::new() }
    }

    /// A tuple is several arguments, `()` none, and anything else one.
    ///
    /// Only the outermost value counts: `Some((1, 2))` is one argument, a list. An array of Rust is a tuple to serde; a slice or
    /// `Vec` is not.
    ///
    /// # Errors
    /// [`ArgsError::Write`].
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, ArgsError> {
        let Written { json, several, attachments } = write(value).map_err(ArgsError::Write)?;
        let json = ByteString::from(json);
        Ok(match several {
            None => Self::whole(json, 1, attachments),
            Some(len) => Self { tail: decode::without_brackets(&json), text: json, len, attachments },
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
        Ok(Self { tail: decode::without_brackets(&json), text: json, len, attachments })
    }

    /// From a text that has in it, at `tail`, a list without brackets that was validated and counted.
    pub(super) fn validated(text: ByteString, tail: Range<usize>, len: usize) -> Self {
        Self { text, tail, len, attachments: Vec::new() }
    }

    /// From a list without brackets that was validated and counted.
    pub(super) fn whole(text: ByteString, len: usize, attachments: Vec<Bytes>) -> Self {
        Self { tail: 0..text.len(), text, len, attachments }
    }

    /// Adds what a placeholder already names.
    pub(super) fn attach(&mut self, bytes: Bytes) {
        self.attachments.push(bytes);
    }

    /// The same with one text more.
    #[must_use]
    pub fn and(&self, text: &str) -> Self {
        let text = serde_json::to_string(text).expect("a string is JSON");
        let tail = if self.is_empty() { text } else { format!("{},{text}", self.tail()) };
        Self::whole(tail.into(), self.len + 1, self.attachments.clone())
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
        format!("[{}]", self.tail())
    }

    /// The arguments as JSON without the brackets; empty when there are none.
    pub(crate) fn tail(&self) -> &str {
        self.text.get(self.tail.clone()).expect("it was found there")
    }

    /// Each argument as JSON.
    pub fn raw(&self) -> Vec<&RawValue> {
        Elements::of(self.tail())
            .map(|json| serde_json::from_str(json).expect("validated when the arguments were made"))
            .collect()
    }

    /// One argument, counted from 0; one that is missing reads as null, so an `Option` takes it.
    ///
    /// # Errors
    /// [`ArgsError::Argument`].
    pub fn get<T: DeserializeOwned>(&self, index: usize) -> Result<T, ArgsError> {
        let mut elements = Elements::of(self.tail());
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
        deserialize::read_list(self.tail(), &self.attachments).map_err(ArgsError::Arguments)
    }
}

impl PartialEq for Args {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.tail() == other.tail() && self.attachments == other.attachments
    }
}

impl Eq for Args {}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Args").field("tail", &self.tail()).field("attachments", &self.attachments).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::{Value, json};
    use std::collections::HashMap;
    use std::error::Error as _;

    #[test]
    fn a_tuple_is_several_arguments() -> Result<(), ArgsError> {
        #[derive(Serialize)]
        struct Pair(u8, &'static str);
        #[derive(Serialize)]
        struct Wrapped((u8, u8));
        #[derive(Serialize)]
        struct Unit;

        for (args, json, len) in [
            (Args::none(), "[]", 0),
            (Args::new(&())?, "[]", 0),
            (Args::new(&Unit)?, "[null]", 1),
            (Args::new("a")?, r#"["a"]"#, 1),
            (Args::new(&(1,))?, "[1]", 1),
            (Args::new(&(1, (2, 3)))?, "[1,[2,3]]", 2),
            (Args::new(&&Box::new((1, ())))?, "[1,null]", 2),
            (Args::new(&Pair(1, "b"))?, r#"[1,"b"]"#, 2),
            (Args::new(&Wrapped((1, 2)))?, "[[1,2]]", 1),
            (Args::new(&[1, 2])?, "[1,2]", 2),
            (Args::new(&[1, 2][..])?, "[[1,2]]", 1),
            (Args::new(&vec![1, 2])?, "[[1,2]]", 1),
            (Args::new(&Some((1, 2)))?, "[[1,2]]", 1),
            (Args::new(&None::<u8>)?, "[null]", 1),
            (Args::new(&f64::NAN)?, "[null]", 1),
            (Args::new(&json!({"a": [1]}))?, r#"[{"a":[1]}]"#, 1),
            (Args::new(&RawValue::from_string("[ 1 ]".to_owned()).expect("JSON"))?, "[[ 1 ]]", 1),
        ] {
            assert_eq!((args.json().as_str(), args.len(), args.is_empty()), (json, len, len == 0));
            assert_eq!(args.raw().len(), len, "{json}");
        }
        Ok(())
    }

    #[test]
    fn one_more_text_is_the_last() -> Result<(), ArgsError> {
        let args = Args::new(&(1, Bytes::from_static(b"b")))?.and("a\"b");
        assert_eq!(args.json(), r#"[1,{"_placeholder":true,"num":0},"a\"b"]"#);
        assert_eq!((args.len(), args.attachments().len(), Args::none().and("x").json().as_str()), (3, 1, r#"["x"]"#));
        Ok(())
    }

    #[test]
    fn bytes_become_attachments_wherever_they_are() -> Result<(), ArgsError> {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum Part {
            One(Bytes),
            Two(Bytes, u8),
            Named { bytes: Bytes },
            Unit,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Post {
            title: String,
            parts: Vec<Part>,
            by_name: HashMap<String, Option<Bytes>>,
            number: i128,
        }
        let bytes = |byte: u8| Bytes::from(vec![byte; 3]);
        let post = Post {
            title: "é".to_owned(),
            parts: vec![Part::One(bytes(0)), Part::Two(bytes(1), 7), Part::Named { bytes: bytes(2) }, Part::Unit],
            by_name: HashMap::from([("a".to_owned(), Some(bytes(3)))]),
            number: -5,
        };
        let args = Args::new(&(&post, bytes(4)))?;
        assert_eq!(args.attachments(), [bytes(0), bytes(1), bytes(2), bytes(3), bytes(4)]);
        assert_eq!(args.get::<Value>(0)?["parts"][1]["Two"], json!([{"_placeholder": true, "num": 1}, 7]));
        assert_eq!(args.all::<(Post, Bytes)>()?, (post, bytes(4)));
        assert_eq!(args.get::<Bytes>(1)?, bytes(4));
        assert_eq!(args.get::<Box<RawValue>>(1).expect("raw").get(), r#"{"_placeholder":true,"num":4}"#);
        Ok(())
    }

    #[test]
    fn bytes_are_also_read_from_text_and_numbers() -> Result<(), ArgsError> {
        let args = Args::from_raw(
            r#"["aé",[1,2],{"num":0,"_placeholder":true,"more":1},{"a":1},5,{"_placeholder":false,"num":0}]"#,
            vec![Bytes::from_static(b"x")],
        )?;
        assert_eq!(args.get::<Bytes>(0)?, "aé");
        assert_eq!(args.get::<Bytes>(1)?, [1, 2][..]);
        assert_eq!(args.get::<Bytes>(2)?, "x");
        assert_eq!(args.get::<Option<Bytes>>(2)?, Some(Bytes::from_static(b"x")));
        assert_eq!(args.get::<Option<Bytes>>(9)?, None);
        for index in [3, 4, 5, 6] {
            assert!(args.get::<Bytes>(index).is_err(), "{index}");
        }
        Ok(())
    }

    #[test]
    fn a_placeholder_without_attachments_is_only_json() -> Result<(), ArgsError> {
        let args = Args::from_raw(r#"[{"_placeholder":true,"num":3}]"#, Vec::new())?;
        assert_eq!(args.first::<Value>()?, json!({"_placeholder": true, "num": 3}));
        assert!(args.first::<Bytes>().is_err());
        assert!(matches!(
            Args::from_raw(r#"[{"_placeholder":true,"num":3}]"#, vec![Bytes::new()]),
            Err(ArgsError::IllegalAttachments)
        ));
        Ok(())
    }

    #[test]
    fn missing_arguments_read_as_null() -> Result<(), ArgsError> {
        let args = Args::new(&("a", 1, 2))?;
        assert_eq!(args.get::<Option<u8>>(3)?, None);
        assert_eq!(args.get::<Option<u8>>(usize::MAX)?, None);
        assert_eq!(args.all::<(String, u8, u8, Option<u8>)>()?, ("a".to_owned(), 1, 2, None));
        assert_eq!(args.all::<(String,)>()?, ("a".to_owned(),));
        assert_eq!(Args::none().all::<(Option<u8>, ())>()?, (None, ()));
        Args::none().all::<()>()?;
        args.all::<()>()?;
        assert_eq!(Args::none().all::<Vec<u8>>()?, Vec::<u8>::new());
        assert_eq!(args.all::<Vec<Value>>()?, [json!("a"), json!(1), json!(2)]);
        assert_eq!(args.all::<Value>()?, json!(["a", 1, 2]));
        assert!(args.all::<(String, u8, u8, u8)>().is_err());
        assert_eq!(args.all::<Option<(String,)>>()?, Some(("a".to_owned(),)));
        Ok(())
    }

    #[test]
    fn a_list_is_filled_up_to_the_length_that_is_asked_for() -> Result<(), ArgsError> {
        /// Asks for two and takes what it gets.
        #[derive(Debug, PartialEq)]
        struct Greedy(Vec<Option<u8>>);

        impl<'de> Deserialize<'de> for Greedy {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Greed;
                impl<'de> serde::de::Visitor<'de> for Greed {
                    type Value = Greedy;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a list")
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Greedy, A::Error> {
                        let mut taken = Vec::new();
                        while let Some(element) = seq.next_element()? {
                            assert!(taken.len() < 9, "there is no end");
                            taken.push(element);
                        }
                        Ok(Greedy(taken))
                    }
                }
                deserializer.deserialize_tuple(2, Greed)
            }
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Wrapped((u8, Option<u8>));

        assert_eq!(Args::new(&1)?.all::<Greedy>()?, Greedy(vec![Some(1), None]));
        assert_eq!(Args::new(&(1, 2, 3))?.all::<Greedy>()?, Greedy(vec![Some(1), Some(2), Some(3)]));
        assert_eq!(Args::new(&1)?.all::<Wrapped>()?, Wrapped((1, None)));
        Ok(())
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() -> Result<(), ArgsError> {
        let error = Args::new(&("a", "b"))?.get::<u8>(1).expect_err("a string is no number");
        assert_eq!(error.to_string(), "argument 1 is not of the type that was asked for");
        assert!(error.source().is_some_and(|cause| cause.to_string().contains("expected u8")));
        Ok(())
    }

    #[test]
    fn only_a_whole_array_is_taken_raw() {
        for text in ["", "{}", "[", "[1", "[1]x", "[1,]", "null", "[\"\u{1}\"]", "[01]", "é"] {
            assert!(matches!(Args::from_raw(text, Vec::new()), Err(ArgsError::NotAnArray(_))), "{text}");
        }
        assert_eq!(
            Args::from_raw(" [ 1 , 2 ] ", Vec::new()).map(|args| (args.json(), args.len())).expect("JSON"),
            ("[1 , 2]".to_owned(), 2)
        );
    }

    #[test]
    fn half_a_character_is_passed_on_and_read_as_the_replacement_character() -> Result<(), ArgsError> {
        let args = Args::from_raw(r#"["a\ud83d",{"\udc00":"é"}]"#, Vec::new())?;
        assert_eq!(args.json(), r#"["a\ud83d",{"\udc00":"é"}]"#);
        assert_eq!(args.first::<String>()?, "a\u{fffd}");
        assert_eq!(args.all::<(String, Value)>()?.1, json!({"\u{fffd}": "é"}));
        assert_eq!(args.raw()[0].get(), r#""a\ud83d""#);
        Ok(())
    }

    #[test]
    fn a_map_with_other_keys_than_strings_cannot_be_written() {
        assert!(matches!(Args::new(&HashMap::from([(vec![1], 1)])), Err(ArgsError::Write(_))));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(a: String, b: Option<i64>, c in prop::collection::vec(any::<Vec<u8>>(), 0..4), d: f64) {
            let bytes: Vec<Bytes> = c.into_iter().map(Bytes::from).collect();
            let args = Args::new(&(&a, b, &bytes, d)).expect("JSON");
            prop_assert_eq!(args.len(), 4);
            prop_assert_eq!(args.attachments(), &bytes[..]);
            let expected = (a, b, bytes, d);
            prop_assert_eq!(&args.all::<(String, Option<i64>, Vec<Bytes>, f64)>().expect("types"), &expected);
            prop_assert_eq!(&args.get::<Vec<Bytes>>(2).expect("type"), &expected.2);
            prop_assert_eq!(args.get::<f64>(3).expect("type"), expected.3);
            let raw = Args::from_raw(&args.json(), args.attachments().to_vec()).expect("written a line ago");
            prop_assert_eq!(raw, args);
        }
    }
}
