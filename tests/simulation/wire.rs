//! Packets, payloads and frames as a client writes and reads them, on its own account: nothing here is the server's code.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// An Engine.IO packet; a text begins with the packet's digit, bytes are a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Text(String),
    Binary(Vec<u8>),
}

impl Packet {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// As it stands in a polling payload.
    fn polling(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Binary(bytes) => format!("b{}", BASE64_STANDARD.encode(bytes)),
        }
    }

    /// As a WebSocket frame of a client (RFC 6455, section 5.3).
    pub fn frame(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => frame(0x81, text.as_bytes()),
            Self::Binary(bytes) => frame(0x82, bytes),
        }
    }
}

/// The first packets of `waiting` that fit into `limit` bytes, at least one, joined; and how many they are.
pub fn payload<'a>(waiting: impl Iterator<Item = &'a Packet>, limit: usize) -> (String, usize) {
    let mut body = String::new();
    let mut count = 0;
    for packet in waiting {
        let text = packet.polling();
        if count > 0 && body.len() + 1 + text.len() > limit {
            break;
        }
        if count > 0 {
            body.push('\x1e');
        }
        body += &text;
        count += 1;
    }
    (body, count)
}

pub fn packets(payload: &str) -> Vec<Packet> {
    let packet = |text: &str| match text.strip_prefix('b') {
        Some(base64) => Packet::Binary(BASE64_STANDARD.decode(base64).expect("base64")),
        None => Packet::text(text),
    };
    payload.split('\x1e').map(packet).collect()
}

pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x21, 0x43, 0x65, 0x87];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(u16::try_from(length).expect("messages are short")).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What a server's frame is.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Packet(Packet),
    Close,
    Pong,
}

/// Takes the first frame out of what was read, if it is whole.
pub fn unframe(read: &mut Vec<u8>) -> Option<Frame> {
    let (first, second) = (*read.first()?, *read.get(1)?);
    let (header, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes([*read.get(2)?, *read.get(3)?]))),
        127 => panic!("no message of a server here is so long"),
        short => (2, usize::from(short)),
    };
    if read.len() < header + length {
        return None;
    }
    let payload = read.drain(..header + length).skip(header).collect();
    Some(match first {
        0x81 => Frame::Packet(Packet::Text(String::from_utf8(payload).expect("text"))),
        0x82 => Frame::Packet(Packet::Binary(payload)),
        0x88 => Frame::Close,
        0x8a => Frame::Pong,
        other => panic!("a server sends no frame {other:#x}"),
    })
}

/// A Socket.IO packet from a server.
#[derive(Debug)]
pub struct Said {
    pub kind: char,
    pub attachments: usize,
    pub namespace: String,
    pub id: Option<u64>,
    pub data: Value,
}

impl Said {
    pub fn parse(text: &str) -> Self {
        let mut rest = text;
        let kind = rest.chars().next().expect("a kind");
        rest = rest.strip_prefix(kind).expect("the first");
        let mut attachments = 0;
        if let '5' | '6' = kind {
            let (count, behind) = rest.split_once('-').expect("a count");
            (attachments, rest) = (count.parse().expect("a number"), behind);
        }
        let mut namespace = "/";
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
        }
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        rest = rest.strip_prefix(digits.as_str()).expect("its digits");
        let data = if rest.is_empty() { Value::Null } else { serde_json::from_str(rest).expect("JSON") };
        Self { kind, attachments, namespace: namespace.to_owned(), id: digits.parse().ok(), data }
    }

    /// A number in the list of arguments.
    pub fn number(&self, at: usize) -> Option<u64> {
        self.data.get(at)?.as_u64()
    }
}

/// A Socket.IO packet of a client: kind, namespace, and what is behind it.
pub fn say(kind: &str, namespace: &str, rest: &str) -> Packet {
    let namespace = if namespace == "/" { String::new() } else { format!("{namespace},") };
    Packet::Text(format!("4{kind}{namespace}{rest}"))
}
