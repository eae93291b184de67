//! JSONP: polling for browsers of protocol 3 that have nothing but script tags and forms.

use crate::protocol::eio::handshake::Query;

/// A body as a script that calls back; `index` is the `j` of the request.
pub fn wrap(index: &str, body: &str) -> Vec<u8> {
    let index: String = index.chars().filter(char::is_ascii_digit).collect();
    let text = serde_json::to_string(body).expect("a string is JSON");
    // JSON lets these stand in a string, JavaScript before 2019 did not.
    let text = text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    format!("___eio[{index}]({text});").into_bytes()
}

/// The payload of a form's body; `None` when it holds none.
pub fn unwrap(body: &str) -> Option<String> {
    let data = Query::find(body, "d")?;
    let mut rest = &*data;
    let mut payload = String::with_capacity(rest.len());
    // Browsers change line ends in forms, so clients write them `\n`, and what was `\n` already `\\n`.
    while let Some((before, after)) = rest.split_once("\\n") {
        payload.push_str(before);
        payload.push_str(if before.ends_with('\\') { "n" } else { "\n" });
        rest = after;
    }
    payload.push_str(rest);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_script() {
        assert_eq!(wrap("0", "2:4\""), br#"___eio[0]("2:4\"");"#);
        assert_eq!(wrap("1);alert(2", "\u{2028}\u{2029}\n"), br#"___eio[12]("\u2028\u2029\n");"#);
        assert_eq!(wrap("", "1:6"), br#"___eio[]("1:6");"#);
    }

    #[test]
    fn a_form_holds_the_payload() {
        for (form, payload) in [
            ("d=6%3A4hello", Some("6:4hello")),
            ("a=b&d=5:4+%F0%9F%98%80", Some("5:4 😀")),
            (r"d=4:4a\nb", Some("4:4a\nb")),
            (r"d=5:4a\\nb", Some(r"5:4a\nb")),
            (r"d=\n\\n\\\n", Some("\n\\n\\\\n")),
            ("6:4hello", None),
            ("", None),
        ] {
            assert_eq!(unwrap(form).as_deref(), payload, "{form}");
        }
    }
}
