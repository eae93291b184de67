//! Walks over JSON that is known to be valid, without recursion and without building anything.

use std::borrow::Cow;

/// The elements of a list without its brackets, in order.
pub(super) struct Elements<'a> {
    rest: &'a str,
}

impl<'a> Elements<'a> {
    pub(super) fn of(list: &'a str) -> Self {
        Self { rest: list.trim_ascii() }
    }

    /// What the iterator has not come to.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let mut depth = 0usize;
        let mut tokens = Tokens::of(self.rest);
        while let Some(token) = tokens.next() {
            match token {
                Token::Punctuation(b'[' | b'{') => depth += 1,
                Token::Punctuation(b']' | b'}') => depth = depth.saturating_sub(1),
                Token::Punctuation(b',') if depth == 0 => {
                    let element = self.rest.get(..tokens.at - 1).unwrap_or_default();
                    self.rest = tokens.rest().trim_ascii_start();
                    return Some(element.trim_ascii_end());
                }
                _ => {}
            }
        }
        Some(std::mem::take(&mut self.rest))
    }
}

/// Whether each `{"_placeholder":true,"num":…}` names one of so many attachments.
pub(super) fn placeholders_fit(json: &str, attachments: usize) -> bool {
    containers(json).all(|(_, container)| match container {
        Container::Placeholder { num, .. } => num.is_some_and(|num| num < attachments),
        Container::List(_) | Container::Object(_) => true,
    })
}

/// A list or an object, as it is known when it ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Container {
    /// How many elements it has.
    List(u32),
    /// How many members it has.
    Object(u32),
    /// An object with `"_placeholder":true`, and its `num` if that is one that an attachment could have.
    Placeholder { len: u32, num: Option<usize> },
}

/// Lists and objects in the order of their ends, each with its place in the order of their beginnings.
pub(super) fn containers(json: &str) -> impl Iterator<Item = (usize, Container)> {
    #[derive(Clone, Copy, PartialEq)]
    enum Key {
        Expected,
        Placeholder,
        Num,
        Other,
    }
    #[derive(Clone, Copy)]
    enum Open {
        List { len: u32 },
        Object { len: u32, key: Key, marked: bool, num: Option<usize> },
    }

    let mut tokens = Tokens::of(json);
    let mut open: Vec<(usize, Open)> = Vec::new();
    let mut begun = 0;
    std::iter::from_fn(move || {
        loop {
            let token = tokens.next()?;
            // A string where a key is expected is one; anything else in an object ends or is the value of the key before it.
            match (open.last_mut(), token) {
                (None, _) | (Some((_, Open::List { .. })), Token::Punctuation(b',' | b']')) => {}
                (Some((_, Open::List { len })), _) => *len += 1,
                (Some((_, Open::Object { len, key, marked, num })), _) => match (token, *key) {
                    (Token::Punctuation(b','), _) => *key = Key::Expected,
                    (Token::Punctuation(b':' | b'}'), _) => {}
                    (Token::String(text), Key::Expected) => {
                        *len += 1;
                        *key = match unescape(text).as_ref() {
                            "_placeholder" => Key::Placeholder,
                            "num" => Key::Num,
                            _ => Key::Other,
                        }
                    }
                    (value, Key::Placeholder) => *marked = matches!(value, Token::Other("true")),
                    (Token::Other(number), Key::Num) => *num = number.parse().ok(),
                    (_, Key::Num) => *num = None,
                    _ => {}
                },
            }
            match token {
                Token::Punctuation(b'[') => open.push((begun, Open::List { len: 0 })),
                Token::Punctuation(b'{') => {
                    open.push((begun, Open::Object { len: 0, key: Key::Expected, marked: false, num: None }));
                }
                Token::Punctuation(b']' | b'}') => {
                    let (place, container) = open.pop()?;
                    let container = match container {
                        Open::List { len } => Container::List(len),
                        Open::Object { len, marked: true, num, .. } => Container::Placeholder { len, num },
                        Open::Object { len, .. } => Container::Object(len),
                    };
                    return Some((place, container));
                }
                _ => {}
            }
            begun += usize::from(matches!(token, Token::Punctuation(b'[' | b'{')));
        }
    })
}

/// The text of a JSON string, quotes included; one that Rust cannot hold is kept as it stands.
pub(super) fn unescape(string: &str) -> Cow<'_, str> {
    let inner = string.get(1..string.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str(&well_formed(string)).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// The same JSON with U+FFFD for every escaped lone surrogate: JavaScript's strings may hold them, Rust's may not.
pub(super) fn well_formed(json: &str) -> Cow<'_, str> {
    const REPLACEMENT: &str = "\\ufffd";
    if !json.contains("\\u") {
        return Cow::Borrowed(json);
    }
    let mut fixed = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = json.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        let unit = utf16_unit(json, at);
        at += match (unit, unit.and_then(|_| utf16_unit(json, at + 6))) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                fixed.push_str(json.get(copied..at).unwrap_or_default());
                fixed.push_str(REPLACEMENT);
                copied = at + 6;
                6
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    fixed.push_str(json.get(copied..).unwrap_or_default());
    Cow::Owned(fixed)
}

/// The unit of an escape `\u….` that begins there.
fn utf16_unit(json: &str, at: usize) -> Option<u16> {
    let hex = json.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(hex, 16).ok()
}

#[derive(Clone, Copy)]
pub(super) enum Token<'a> {
    /// One of `[ ] { } , :`
    Punctuation(u8),
    /// With its quotes.
    String(&'a str),
    /// A number, `true`, `false` or `null`.
    Other(&'a str),
}

pub(super) struct Tokens<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(json: &'a str) -> Self {
        Self { json, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.json.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, length: usize) -> &'a str {
        let taken = self.rest().get(..length).unwrap_or(self.rest());
        self.at += taken.len();
        taken
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = self.rest();
        let text = rest.trim_ascii_start();
        self.at += rest.len() - text.len();
        let first = *text.as_bytes().first()?;
        Some(match first {
            b'[' | b']' | b'{' | b'}' | b',' | b':' => {
                self.at += 1;
                Token::Punctuation(first)
            }
            b'"' => Token::String(self.take(string_length(text.as_bytes()))),
            _ => {
                let end = text
                    .bytes()
                    .position(|b| matches!(b, b'[' | b']' | b'{' | b'}' | b',' | b':' | b'"' | b' ' | b'\t' | b'\n' | b'\r'));
                Token::Other(self.take(end.unwrap_or(text.len())))
            }
        })
    }
}

/// Bytes of the string at the beginning, its quotes included.
fn string_length(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(rest) = json.get(at..) {
        match rest.iter().position(|b| matches!(b, b'"' | b'\\')) {
            Some(quote) if rest.get(quote) == Some(&b'"') => return at + quote + 1,
            Some(backslash) => at += backslash + 2,
            None => break,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    #[test]
    fn elements_are_cut_at_outer_commas_only() {
        let list = " 1 , [2,{\"a,\":\",\"}] ,\"\\\",\\\\\" , null\n";
        assert_eq!(Elements::of(list).collect::<Vec<_>>(), ["1", "[2,{\"a,\":\",\"}]", "\"\\\",\\\\\"", "null"]);
        assert_eq!(Elements::of(" ").count(), 0);
    }

    #[test]
    fn what_was_not_come_to_is_the_rest() {
        let mut elements = Elements::of("1, [2] ,3 ");
        assert_eq!(elements.next(), Some("1"));
        assert_eq!(elements.rest(), "[2] ,3");
    }

    #[test]
    fn a_placeholder_must_name_an_attachment() {
        for (json, fits) in [
            (r#"[{"_placeholder":true,"num":1}]"#, true),
            (r#"[{"num":1,"_placeholder":true}]"#, true),
            (r#"[{"_placeholder":true,"num":2}]"#, false),
            (r#"[{"_placeholder":true,"num":"1"}]"#, false),
            (r#"[{"_placeholder":true,"num":-1}]"#, false),
            (r#"[{"_placeholder":true,"num":0.5}]"#, false),
            (r#"[{"_placeholder":true,"num":[0]}]"#, false),
            (r#"[{"_placeholder":true}]"#, false),
            (r#"[{"\u005fplaceholder":true}]"#, false),
            (r#"[{"_placeholder":false}]"#, true),
            (r#"[{"_placeholder":"true"}]"#, true),
            (r#"[{"_placeholder":[true]}]"#, true),
            (r#"["_placeholder",true]"#, true),
            (r#"["{\"_placeholder\":true}"]"#, true),
            (r#"[{"a":{"_placeholder":true,"num":9}}]"#, false),
            (r#"[{"_placeholder":true,"a":[{"num":9}],"num":0}]"#, true),
        ] {
            assert_eq!(placeholders_fit(json, 2), fits, "{json}");
        }
    }

    #[test]
    fn half_a_character_becomes_the_replacement_character() {
        for (json, fixed) in [
            (r#""\ud800""#, r#""\ufffd""#),
            (r#""\uDBFF\u0041""#, r#""\ufffd\u0041""#),
            (r#""\udc00\ud800""#, r#""\ufffd\ufffd""#),
            (r#""\ud800\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""é\ud83d\ude00\ud83d€""#, r#""é\ud83d\ude00\ufffd€""#),
            (r#""\\ud800""#, r#""\\ud800""#),
            (r#""\\\ud800""#, r#""\\\ufffd""#),
        ] {
            assert_eq!(well_formed(json), fixed, "{json}");
            assert!(serde_json::from_str::<String>(&well_formed(json)).is_ok(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn elements_are_those_that_serde_sees(values in prop::collection::vec(value(), 0..5), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&values) } else { serde_json::to_string(&values) }.expect("JSON");
            let expected: Vec<&RawValue> = serde_json::from_str(&text).expect("JSON");
            let list = text.strip_prefix('[').and_then(|list| list.strip_suffix(']')).expect("a list");
            prop_assert_eq!(Elements::of(list).collect::<Vec<_>>(), expected.iter().map(|raw| raw.get()).collect::<Vec<_>>());
        }

        #[test]
        fn placeholders_are_those_that_a_recursive_search_finds(value in value(), attachments in 0..3usize) {
            prop_assert_eq!(placeholders_fit(&value.to_string(), attachments), search(&value, attachments));
        }

        #[test]
        fn strings_of_any_units_can_be_read(units in prop::collection::vec(any::<u16>().prop_map(|u| u | 0xd000), 0..20)) {
            let json = format!("\"{}\"", units.iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>());
            prop_assert_eq!(serde_json::from_str::<String>(&well_formed(&json)).expect("well formed"), String::from_utf16_lossy(&units));
        }

        #[test]
        fn text_that_is_no_json_panics_nowhere(text: String, wild in r#"[\[\]{}",:\\ud8c0-9é😀 ]{0,30}"#) {
            for text in [text, wild] {
                Elements::of(&text).for_each(drop);
                placeholders_fit(&text, 1);
                well_formed(&text);
                unescape(&text);
            }
        }
    }

    fn search(value: &Value, attachments: usize) -> bool {
        let num = value["num"].as_u64().is_some_and(|num| num < attachments as u64);
        match value {
            Value::Object(object) if object.get("_placeholder") == Some(&json!(true)) && !num => false,
            Value::Object(object) => object.values().all(|value| search(value, attachments)),
            Value::Array(array) => array.iter().all(|value| search(value, attachments)),
            _ => true,
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(true)),
            Just(json!(null)),
            (-2..3i64).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(text(), inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just("_placeholder".to_owned()), Just("num".to_owned()), r#"[\[\]{}",:\\ué😀 ]{0,6}"#]
    }
}
