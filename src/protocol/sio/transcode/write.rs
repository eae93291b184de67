//! msgpack from JSON and its attachments.

use super::super::json::{Container, Token, Tokens, containers, unescape};
use bytes::Bytes;
use rmp::encode::{
    write_array_len, write_bin_len, write_bool, write_f64, write_map_len, write_nil, write_sint, write_str_len, write_uint,
};

/// Appends JSON values as msgpack, an attachment for every placeholder that names one.
///
/// The JSON is known to be valid. Several values may follow one another with commas, as in a list without brackets. An integer is
/// written exactly as far as 64 bits go; other numbers as JavaScript reads them.
///
/// What it writes has no bound: JSON may name one attachment a thousand times.
pub(crate) fn append_json(out: &mut Vec<u8>, json: &str, attachments: &[Bytes]) {
    append_json_within(out, json, attachments, usize::MAX).expect("nothing is as long");
}

/// There would be more bytes than are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too long")]
pub(crate) struct TooLong;

/// The same, as long as `out` does not grow beyond `max`.
pub(crate) fn append_json_within(out: &mut Vec<u8>, json: &str, attachments: &[Bytes], max: usize) -> Result<(), TooLong> {
    let mut sizes = Vec::new();
    for (place, container) in containers(json) {
        if sizes.len() <= place {
            sizes.resize(place + 1, Container::List(0));
        }
        sizes[place] = container;
    }
    let mut sizes = sizes.into_iter();
    let mut tokens = Tokens::of(json);
    while let Some(token) = tokens.next() {
        match token {
            Token::Punctuation(b'[' | b'{') => match sizes.next().expect("every container was seen above") {
                Container::List(len) => drop(write_array_len(out, len).expect(ENDLESS)),
                Container::Placeholder { num: Some(num), .. } if num < attachments.len() => {
                    if attachments[num].len() > max.saturating_sub(out.len()) {
                        return Err(TooLong);
                    }
                    append_bytes(out, &attachments[num]);
                    for _ in 0..skip_object(&mut tokens) {
                        sizes.next();
                    }
                }
                Container::Object(len) | Container::Placeholder { len, .. } => drop(write_map_len(out, len).expect(ENDLESS)),
            },
            Token::Punctuation(_) => {}
            Token::String(text) => append_str(out, &unescape(text)),
            Token::Other("null") => write_nil(out).expect(ENDLESS),
            Token::Other("true") => write_bool(out, true).expect(ENDLESS),
            Token::Other("false") => write_bool(out, false).expect(ENDLESS),
            Token::Other(number) => append_number(out, number),
        }
    }
    if out.len() > max { Err(TooLong) } else { Ok(()) }
}

/// Goes behind the end of an object whose `{` was read; how many containers there were inside.
fn skip_object(tokens: &mut Tokens<'_>) -> usize {
    let (mut depth, mut inside) = (1, 0);
    while depth > 0
        && let Some(token) = tokens.next()
    {
        match token {
            Token::Punctuation(b'[' | b'{') => {
                depth += 1;
                inside += 1;
            }
            Token::Punctuation(b']' | b'}') => depth -= 1,
            _ => {}
        }
    }
    inside
}

/// Appends the beginning of a map; its keys and values follow.
pub(crate) fn append_map(out: &mut Vec<u8>, members: u32) {
    write_map_len(out, members).expect(ENDLESS);
}

/// Appends the beginning of a list; its values follow.
pub(crate) fn append_list(out: &mut Vec<u8>, len: usize) {
    write_array_len(out, u32::try_from(len).expect("its text is shorter than 4 GiB")).expect(ENDLESS);
}

/// Appends true or false.
pub(crate) fn append_bool(out: &mut Vec<u8>, value: bool) {
    write_bool(out, value).expect(ENDLESS);
}

/// Appends a string.
pub(crate) fn append_str(out: &mut Vec<u8>, text: &str) {
    write_str_len(out, length(text)).expect(ENDLESS);
    out.extend_from_slice(text.as_bytes());
}

fn append_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_bin_len(out, length(bytes)).expect(ENDLESS);
    out.extend_from_slice(bytes);
}

/// Appends a number that is written as JSON.
pub(crate) fn append_number(out: &mut Vec<u8>, json: &str) {
    if let Ok(number) = json.parse() {
        write_uint(out, number).expect(ENDLESS);
    } else if let Ok(number) = json.parse() {
        write_sint(out, number).expect(ENDLESS);
    } else {
        let number: f64 = json.parse().unwrap_or(f64::NAN);
        // What JavaScript takes for an integer is written as one: `1.0`, `1e3`.
        if number.trunc() == number && (0.0..18_446_744_073_709_551_616.0).contains(&number) {
            write_uint(out, number as u64).expect(ENDLESS);
        } else if number.trunc() == number && (-9_223_372_036_854_775_808.0..0.0).contains(&number) {
            write_sint(out, number as i64).expect(ENDLESS);
        } else {
            write_f64(out, number).expect(ENDLESS);
        }
    }
}

pub(crate) const ENDLESS: &str = "a Vec takes every byte";

fn length(bytes: impl AsRef<[u8]>) -> u32 {
    u32::try_from(bytes.as_ref().len()).expect("no packet holds 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{hex, read, written};
    use super::*;

    #[test]
    fn values_are_written_as_notepack_writes_them() {
        for (json, msgpack) in [
            ("null", "c0"),
            ("true", "c3"),
            ("false", "c2"),
            ("0", "00"),
            ("-0", "00"),
            ("-0.0", "00"),
            ("1.0", "01"),
            ("1e3", "cd03e8"),
            ("127", "7f"),
            ("128", "cc80"),
            ("65535", "cdffff"),
            ("4294967295", "ceffffffff"),
            ("4294967296", "cf0000000100000000"),
            ("18446744073709551615", "cfffffffffffffffff"),
            ("18446744073709551616", "cb43f0000000000000"),
            ("9007199254740993", "cf0020000000000001"),
            ("-1", "ff"),
            ("-32", "e0"),
            ("-33", "d0df"),
            ("-129", "d1ff7f"),
            ("-32769", "d2ffff7fff"),
            ("-2147483649", "d3ffffffff7fffffff"),
            ("-1e30", "cbc6293e5939a08cea"),
            ("0.5", "cb3fe0000000000000"),
            ("1e400", "cb7ff0000000000000"),
            (r#""""#, "a0"),
            (r#""é\n\ud83d\ude00\ud800""#, "aac3a90af09f9880efbfbd"),
            ("[]", "90"),
            ("[[],{},[1]]", "93908091 01"),
            (r#"{"a":{"b":[null]},"":2}"#, "82a16181a16291c0a002"),
            (" [ 1 , { \"a\" : \"]\" } ] ", "920181a161a15d"),
        ] {
            assert_eq!(hex(&written(json, &[])), msgpack.replace(' ', ""), "{json}");
        }
        assert_eq!(hex(&written("1,[2],3", &[])), "01910203");
        assert_eq!(hex(&written(&format!("\"{}\"", "x".repeat(32)), &[])).get(..6), Some("d92078"));
        assert_eq!(hex(&written(&format!("[{}0]", "0,".repeat(15)), &[])).get(..8), Some("dc001000"));
    }

    #[test]
    fn attachments_are_written_in_the_place_of_their_placeholders() {
        let attachments = [Bytes::from_static(b"ab"), Bytes::new()];
        for (json, msgpack) in [
            (r#"{"_placeholder":true,"num":0}"#, "c4026162"),
            (r#"[{"num":1,"_placeholder":true},7]"#, "92c40007"),
            (r#"[{"_placeholder":true,"more":[{},{"a":[]}],"num":1},[3]]"#, "92c4009103"),
            (r#"{"a":{"_placeholder":true,"num":0},"b":{"c":4}}"#, "82a161c4026162a16281a16304"),
        ] {
            assert_eq!(hex(&written(json, &attachments)), msgpack, "{json}");
        }
        let plain = written(r#"{"_placeholder":true,"num":0}"#, &[]);
        assert_eq!(read(&plain), Ok((r#"{"_placeholder":true,"num":0}"#.to_owned(), 0)));
    }

    #[test]
    fn an_attachment_that_is_named_again_and_again_ends_at_the_bound() {
        let attachments = [Bytes::from_static(&[7; 100])];
        let json = [r#"{"_placeholder":true,"num":0}"#; 10].join(",");
        let within = |max| append_json_within(&mut Vec::new(), &json, &attachments, max);
        assert_eq!((within(1_020), within(1_019), within(500)), (Ok(()), Err(TooLong), Err(TooLong)));
        assert_eq!(append_json_within(&mut Vec::new(), "[1,2,3]", &[], 3), Err(TooLong));
    }
}
