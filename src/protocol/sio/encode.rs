//! Packets for clients as JSON, each encoded once for every transport and receiver.

use super::{AckId, Args};
use crate::protocol::eio::Encoded;
use crate::protocol::sid::SocketId;
use serde_json::value::RawValue;
use std::fmt::Display;

/// `40/admin,{"sid":"…","pid":"…"}`, or `40/admin,` to a client that is told no id.
pub(super) fn connect(namespace: &str, id: Option<&SocketId>, pid: Option<&str>) -> Encoded {
    Encoded::text(|out| {
        append_head(out, b'0', namespace);
        let Some(id) = id else { return };
        out.extend_from_slice(br#"{"sid":"#);
        append_string(out, id.as_str());
        if let Some(pid) = pid {
            out.extend_from_slice(br#","pid":"#);
            append_string(out, pid);
        }
        out.push(b'}');
    })
}

/// `44/admin,{"message":"…","data":…}`
pub(super) fn connect_error(namespace: &str, message: &str, data: Option<&RawValue>) -> Encoded {
    Encoded::text(|out| {
        append_head(out, b'4', namespace);
        out.extend_from_slice(br#"{"message":"#);
        append_string(out, message);
        if let Some(data) = data {
            out.extend_from_slice(br#","data":"#);
            out.extend_from_slice(data.get().as_bytes());
        }
        out.push(b'}');
    })
}

/// `44/admin,"…"`, or the data in place of the message
pub(super) fn plain_connect_error(namespace: &str, message: &str, data: Option<&RawValue>) -> Encoded {
    Encoded::text(|out| {
        append_head(out, b'4', namespace);
        match data {
            Some(data) => out.extend_from_slice(data.get().as_bytes()),
            None => append_string(out, message),
        }
    })
}

/// `41/admin,`
pub(super) fn disconnect(namespace: &str) -> Encoded {
    Encoded::text(|out| append_head(out, b'1', namespace))
}

/// `42/admin,7["name",…]`, or `45…` and the attachments behind it; `ack` asks for an acknowledgement.
pub(super) fn event(namespace: &str, ack: Option<u64>, name: &str, args: &Args) -> Vec<Encoded> {
    let text = Encoded::text(|out| {
        out.reserve(namespace.len() + name.len() + args.tail().len() + SPARE);
        append_heads(out, [b'2', b'5'], namespace, args);
        if let Some(id) = ack {
            append_number(out, id);
        }
        out.push(b'[');
        append_string(out, name);
        if !args.tail().is_empty() {
            out.push(b',');
            out.extend_from_slice(args.tail().as_bytes());
        }
        out.push(b']');
    });
    with_attachments(text, args)
}

/// `43/admin,7[…]`, or `46…` and the attachments behind it.
pub(super) fn ack(namespace: &str, id: &AckId, args: &Args) -> Vec<Encoded> {
    let text = Encoded::text(|out| {
        out.reserve(namespace.len() + id.as_str().len() + args.tail().len() + SPARE);
        append_heads(out, [b'3', b'6'], namespace, args);
        out.extend_from_slice(id.as_str().as_bytes());
        out.push(b'[');
        out.extend_from_slice(args.tail().as_bytes());
        out.push(b']');
    });
    with_attachments(text, args)
}

/// Room for digits, brackets and quotes; a name full of escapes makes the buffer grow once more.
const SPARE: usize = 64;

fn with_attachments(text: Encoded, args: &Args) -> Vec<Encoded> {
    let mut packets = Vec::with_capacity(1 + args.attachments().len());
    packets.push(text);
    packets.extend(args.attachments().iter().map(|bytes| Encoded::binary(bytes)));
    packets
}

fn append_heads(out: &mut Vec<u8>, [plain, binary]: [u8; 2], namespace: &str, args: &Args) {
    if args.attachments().is_empty() {
        append_head(out, plain, namespace);
    } else {
        out.extend_from_slice(&[b'4', binary]);
        append_number(out, args.attachments().len());
        out.push(b'-');
        append_namespace(out, namespace);
    }
}

fn append_head(out: &mut Vec<u8>, kind: u8, namespace: &str) {
    out.extend_from_slice(&[b'4', kind]);
    append_namespace(out, namespace);
}

fn append_namespace(out: &mut Vec<u8>, namespace: &str) {
    if namespace != "/" {
        out.extend_from_slice(namespace.as_bytes());
        out.push(b',');
    }
}

fn append_number(out: &mut Vec<u8>, number: impl Display) {
    use std::io::Write as _;
    write!(out, "{number}").expect("a Vec takes every byte");
}

fn append_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is JSON, and a Vec takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn packets_read_as_the_reference_writes_them() {
        let sid = SocketId::from("3-11abcdefghijklmnop");
        assert_eq!(text(&connect("/", Some(&sid), None)), r#"40{"sid":"3-11abcdefghijklmnop"}"#);
        assert_eq!(text(&connect("/é", Some(&sid), Some("p"))), r#"40/é,{"sid":"3-11abcdefghijklmnop","pid":"p"}"#);
        assert_eq!(text(&connect("/a", None, None)), "40/a,");
        assert_eq!(text(&disconnect("/")), "41");
        assert_eq!(text(&disconnect("/a")), "41/a,");
        assert_eq!(text(&connect_error("/a", "n\"o\n", None)), r#"44/a,{"message":"n\"o\n"}"#);
        assert_eq!(text(&plain_connect_error("/a", "n\"o", None)), r#"44/a,"n\"o""#);
        let data = serde_json::value::to_raw_value(&7).expect("JSON");
        assert_eq!(text(&plain_connect_error("/", "no", Some(&data))), "447");
        assert_eq!(text(&connect_error("/", "no", Some(&data))), r#"44{"message":"no","data":7}"#);
    }

    #[test]
    fn attachments_follow_their_packet() {
        let args = Args::new(&(1, Bytes::from_static(b"ab"), Bytes::new())).expect("JSON");
        let packets = event("/a", Some(7), "x\"y", &args);
        assert_eq!(text(&packets[0]), r#"452-/a,7["x\"y",1,{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#);
        assert_eq!(packets[1..].iter().map(Encoded::payload).collect::<Vec<_>>(), [&b"ab"[..], b""]);
        assert!(packets[1..].iter().all(Encoded::is_binary));
        assert_eq!(
            text(&ack("/", &3.into(), &args)[0]),
            r#"462-3[1,{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#
        );
    }

    #[test]
    fn no_arguments_leave_no_comma() {
        assert_eq!(text(&event("/", None, "é", &Args::none())[0]), r#"42["é"]"#);
        assert_eq!(text(&ack("/", &0.into(), &Args::none())[0]), "430[]");
    }

    fn text(packet: &Encoded) -> &str {
        std::str::from_utf8(packet.payload()).expect("text")
    }
}
