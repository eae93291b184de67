//! Arguments as the harness protocol writes them: JSON in which bytes are `{"$bin":"base64"}`, wherever they stand.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::ser::{SerializeMap, SerializeTuple};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use stickyport::hub::Args;

/// Arguments to be shown.
pub fn shown(args: &Args) -> Vec<Value> {
    let args_of = |value: &serde_json::value::RawValue| serde_json::from_str(value.get()).unwrap_or_default();
    args.raw().into_iter().map(|value| show(args_of(value), args.attachments())).collect()
}

fn show(value: Value, attachments: &[Bytes]) -> Value {
    match value {
        Value::Object(object) if object.get("_placeholder") == Some(&Value::Bool(true)) && !attachments.is_empty() => {
            let bytes = object.get("num").and_then(Value::as_u64).and_then(|number| attachments.get(number as usize));
            json!({ "$bin": BASE64_STANDARD.encode(bytes.map_or(&[][..], |bytes| bytes)) })
        }
        Value::Object(object) => object.into_iter().map(|(key, value)| (key, show(value, attachments))).collect(),
        Value::Array(values) => values.into_iter().map(|value| show(value, attachments)).collect(),
        value => value,
    }
}

/// Arguments that were written; anything but a list is none.
pub fn read(values: &Value) -> Args {
    Args::new(&Several(values.as_array().map_or(&[], Vec::as_slice))).expect("JSON stays JSON")
}

/// A list that is several arguments, not one.
struct Several<'a>(&'a [Value]);

impl Serialize for Several<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|value| tuple.serialize_element(&Read(value)))?;
        tuple.end()
    }
}

struct Read<'a>(&'a Value);

impl Serialize for Read<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(object) => match object.get("$bin").and_then(Value::as_str) {
                Some(base64) => serializer.serialize_bytes(&BASE64_STANDARD.decode(base64).unwrap_or_default()),
                None => {
                    let mut map = serializer.serialize_map(Some(object.len()))?;
                    object.iter().try_for_each(|(key, value)| map.serialize_entry(key, &Read(value)))?;
                    map.end()
                }
            },
            Value::Array(values) => serializer.collect_seq(values.iter().map(Read)),
            value => value.serialize(serializer),
        }
    }
}
