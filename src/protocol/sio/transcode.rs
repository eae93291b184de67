//! msgpack from JSON and its attachments, and back, without a value in between.
//!
//! It reads what `notepack.io` writes in any of its versions (bytes are `bin` or, of old, extension 0; a date is the timestamp
//! extension or, of old, extension 0) and writes what all of them write alike. Values become what JavaScript's JSON shows of them:
//! a date its text, NaN null, and a member that is undefined is left out.

mod read;
mod write;

pub(crate) use read::{Head, Json, Reader};
pub(super) use write::{ENDLESS, append_json};
pub(crate) use write::{TooLong, append_bool, append_json_within, append_list, append_map, append_number, append_str};

#[cfg(test)]
mod tests {
    use super::super::DecodeError;
    use super::read::MAX_DEPTH;
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn lists_go_as_deep_as_the_bound_and_no_deeper() {
        let deep = |depth: usize| unhex(&format!("{}c0", "91".repeat(depth)));
        assert!(read(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(read(&deep(MAX_DEPTH + 1)), Err(DecodeError::InvalidPayload));
        assert_eq!(Reader::of(&deep(1_000_000)).skip(), Ok(()));
        let json = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(written(&json, &[]).len(), 100_000);
    }

    proptest! {
        #[test]
        fn json_that_was_written_is_read_again(value in value()) {
            let json = value.to_string();
            let (read, _) = read(&written(&json, &[])).expect("written a moment ago");
            prop_assert_eq!(serde_json::from_str::<Value>(&read).expect("JSON"), value);
        }

        #[test]
        fn whatever_is_read_is_json_and_the_same_when_it_is_written(bytes in prop_oneof![any::<Vec<u8>>(), almost_msgpack()]) {
            let source = Bytes::from(bytes);
            let mut reader = Reader::of(&source);
            let skipped = reader.clone().skip();
            let mut json = Json::with_attachments(100);
            match json.append(&mut reader, 1).and_then(|()| json.finish()) {
                Ok((text, attachments)) => {
                    prop_assert_eq!(skipped, Ok(()));
                    let value: Value = serde_json::from_str(&text).expect("JSON");
                    prop_assert!(crate::protocol::sio::json::placeholders_fit(&text, attachments.len()) || attachments.is_empty());
                    let again = written(&text, &attachments);
                    let mut json = Json::with_attachments(100);
                    json.append(&mut Reader::of(&again), 1).expect("written a moment ago");
                    let (text, same) = json.finish().expect("written a moment ago");
                    prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
                    prop_assert_eq!(same, attachments);
                }
                Err(DecodeError::Malformed) => prop_assert!(skipped.is_err()),
                Err(_) => {}
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("an integer reads as one", |n| n.fract() != 0.0).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 64, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..20).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    /// Beginnings of values, whatever they announce.
    fn almost_msgpack() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            (0x80..=0x94_u8).prop_map(|head| vec![head]),
            (0xc0..=0xdf_u8, any::<[u8; 2]>()).prop_map(|(head, length)| [&[head], &length[..]].concat()),
            prop::sample::select(vec![
                "a161",
                "ac5f706c616365686f6c646572",
                "c3",
                "a36e756d",
                "00",
                "c40161",
                "d40000",
                "d6ff00000000"
            ])
            .prop_map(|hex| unhex(hex).to_vec()),
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    pub(super) fn written(json: &str, attachments: &[Bytes]) -> Bytes {
        let mut out = Vec::new();
        append_json(&mut out, json, attachments);
        out.into()
    }

    /// One value as JSON with at most two attachments, and how many it has.
    pub(super) fn read(msgpack: &Bytes) -> Result<(String, usize), DecodeError> {
        let mut json = Json::with_attachments(2);
        json.append(&mut Reader::of(msgpack), 1)?;
        json.finish().map(|(text, attachments)| (text.to_string(), attachments.len()))
    }

    pub(super) fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn unhex(hex: &str) -> Bytes {
        let digit = |at| hex.get(at..at + 2).and_then(|byte| u8::from_str_radix(byte, 16).ok()).expect("hexadecimal");
        (0..hex.len()).step_by(2).map(digit).collect()
    }
}
