//! One client of Socket.IO: whatever it says and however the application answers, it is in few namespaces, once in each, and nothing is heard elsewhere.

use super::input::Input;
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use stickyport::protocol::client::{Attempt, Client, Output, Violation};
use stickyport::protocol::eio::{Encoded, Message, Version};
use stickyport::protocol::sid::SocketId;
use stickyport::protocol::sio::{AckId, Args, Parser};

const MAX_ATTACHMENTS: usize = 3;
const MAX_NAMESPACES: usize = 3;

pub fn client(data: &[u8]) {
    let mut input = Input::new(data);
    let mut run = Run::new(&mut input);
    while let Some(byte) = input.byte() {
        let is_over = run.step(byte, &mut input);
        run.check();
        if is_over {
            break;
        }
    }
    run.end();
}

/// What the client says that we know the meaning of.
enum Said {
    Connect,
    /// An event or acknowledgement with this number as its first argument, and this many messages to follow.
    Number(ByteString, u32, usize),
    Leave(ByteString),
    Attachment,
    Anything,
}

struct Run {
    version: Version,
    parser: Parser,
    client: Client<u32>,
    now: Instant,
    connect_by: Instant,
    attempts: Vec<(ByteString, u32, Attempt)>,
    /// The attempt that counts in a namespace.
    current: BTreeMap<ByteString, u32>,
    /// The namespaces that the client is in, and the sockets that it has there.
    inside: BTreeMap<ByteString, u32>,
    /// Namespaces that it was ever sent out of: what it says there may mean nothing.
    sent_away: BTreeSet<ByteString>,
    /// The packet that waits for attachments, and for how many.
    partial: Option<(ByteString, u32, usize)>,
    next: u32,
    came_in: bool,
}

impl Run {
    fn new(input: &mut Input<'_>) -> Self {
        let now = Instant::now();
        let connect_by = now + input.time();
        let parser = input.one_of(&[Parser::Json, Parser::MsgPack]);
        let version = input.one_of(&[Version::V4, Version::V3]);
        let mut run = Self {
            version,
            parser,
            client: Client::new(version, parser, MAX_ATTACHMENTS, MAX_NAMESPACES, connect_by),
            now,
            connect_by,
            attempts: Vec::new(),
            current: BTreeMap::new(),
            inside: BTreeMap::new(),
            sent_away: BTreeSet::new(),
            partial: None,
            next: 0,
            came_in: false,
        };
        match run.client.handle_open() {
            Some(Output::Connect { namespace, attempt, .. }) => run.attempted(namespace, attempt),
            output => assert!(output.is_none() && version == Version::V4, "{output:?}"),
        }
        run
    }

    /// `true` when the session is over.
    fn step(&mut self, byte: u8, input: &mut Input<'_>) -> bool {
        let namespace = input.one_of(&["/", "/a", "/b", "/c", "/a?token=1", "/é"]);
        // In protocol 3 the name ends where a query begins.
        let name = if self.version == Version::V3 { namespace.split('?').next().unwrap_or_default() } else { namespace };
        let number = self.next;
        self.next += 1;
        let parser = self.parser;
        match byte & 0x0f {
            0 | 1 => {
                let auth = SocketId::from("any object will do");
                self.say(Said::Connect, first(&[parser.connect(namespace, input.one_of(&[None, Some(&auth)]), None)]))
            }
            2 | 3 => {
                let args = Args::new(&(number,)).expect("JSON");
                self.say(Said::Number(name.into(), number, 0), first(&parser.event(namespace, None, "say", &args)))
            }
            4 => {
                let args = Args::new(&(number,)).expect("JSON");
                let id = AckId::from(u64::from(number));
                self.say(Said::Number(name.into(), number, 0), first(&parser.ack(namespace, &id, &args)))
            }
            5 => {
                let args = Args::new(&(number, vec![Bytes::new(); 1 + input.below(MAX_ATTACHMENTS)])).expect("JSON");
                let messages = parser.event(namespace, Some(7), "say", &args);
                self.say(Said::Number(name.into(), number, messages.len() - 1), first(&messages))
            }
            6 => self.say(Said::Attachment, Message::Binary(Bytes::copy_from_slice(input.bytes()))),
            7 => self.say(Said::Leave(name.into()), first(&[parser.disconnect(namespace)])),
            8 => self.say(Said::Anything, Message::from(input.text())),
            9 | 10 => {
                if let Some((namespace, is_current, attempt)) = self.attempt(input) {
                    assert_eq!(self.client.join(attempt, number), is_current);
                    if is_current {
                        self.came_in = true;
                        assert_eq!(self.inside.insert(namespace, number), None, "in one namespace twice");
                    }
                }
                false
            }
            11 => {
                if let Some((_, is_current, attempt)) = self.attempt(input) {
                    assert_eq!(self.client.refuse(attempt), is_current);
                }
                false
            }
            12 => {
                let own = self.inside.get(name).copied().filter(|_| input.below(2) == 0);
                assert_eq!(self.client.leave(name, &own.unwrap_or(number)), own.is_some());
                if own.is_some() {
                    self.inside.remove(name);
                    self.sent_away.insert(name.into());
                }
                false
            }
            13 => {
                self.now += input.time();
                let is_late = self.client.handle_timeout(self.now);
                assert!(!is_late || (!self.came_in && self.now >= self.connect_by));
                is_late
            }
            _ => {
                let text = format!("5{}-{namespace},{}", input.below(6), input.text());
                self.say(Said::Anything, Message::from(text))
            }
        }
    }

    fn attempted(&mut self, namespace: ByteString, attempt: Attempt) {
        self.current.insert(namespace.clone(), self.next);
        self.attempts.push((namespace, self.next, attempt));
    }

    /// One of the attempts, and whether no later one has replaced it.
    fn attempt(&mut self, input: &mut Input<'_>) -> Option<(ByteString, bool, Attempt)> {
        let count = self.attempts.len();
        let (namespace, number, attempt) = (count > 0).then(|| self.attempts.remove(input.below(count)))?;
        let is_current = self.current.get(&namespace) == Some(&number);
        if is_current {
            self.current.remove(&namespace);
        }
        Some((namespace, is_current, attempt))
    }

    /// `true` when the client has broken the protocol.
    fn say(&mut self, said: Said, message: Message) -> bool {
        let is_out_of_place = matches!(message, Message::Binary(_)) != (self.parser == Parser::MsgPack || self.partial.is_some());
        let expected = self.expected(&said);
        let output = self.client.handle_message(message);
        if is_out_of_place {
            assert!(matches!(output, Some(Output::Violation(_))), "{output:?}");
            return true;
        }
        if let Some((_, _, missing)) = &mut self.partial {
            *missing -= 1;
            if *missing > 0 {
                assert!(output.is_none(), "{output:?}");
                return false;
            }
        }
        let partial = self.partial.take();
        match output {
            Some(Output::Connect { namespace, attempt, .. }) => {
                assert!(!self.inside.contains_key(&namespace), "asked for twice");
                self.attempted(namespace, attempt);
            }
            Some(Output::TooManyNamespaces(_)) => assert_eq!(self.inside.len() + self.attempts.len(), MAX_NAMESPACES),
            Some(Output::Event { socket, args, .. } | Output::Ack { socket, args, .. }) => self.heard(socket, &args, expected),
            Some(Output::Leave(socket)) => {
                let before = self.inside.len();
                self.inside.retain(|_, own| *own != socket);
                assert_eq!(self.inside.len() + 1, before, "a socket that is not there has left");
            }
            Some(Output::Violation(violation)) => {
                if let Said::Number(namespace, ..) | Said::Leave(namespace) = &said {
                    assert_eq!(violation, Violation::NotConnected);
                    assert!(!self.inside.contains_key(namespace));
                }
                return true;
            }
            None => match said {
                Said::Number(namespace, number, count) if count > 0 => self.partial = Some((namespace, number, count)),
                Said::Number(namespace, ..) | Said::Leave(namespace) => {
                    assert!(!self.inside.contains_key(&namespace), "what was said to {namespace} is lost");
                    assert!(self.sent_away.contains(&namespace));
                }
                // What it belongs to was said to a namespace that the client was sent out of; or it is a packet of msgpack.
                Said::Attachment => {
                    assert!(partial.is_none_or(
                        |(namespace, ..)| self.sent_away.contains(&namespace) && !self.inside.contains_key(&namespace)
                    ));
                }
                Said::Connect => panic!("a CONNECT has no answer"),
                // It may have begun a packet with attachments whose number we do not know.
                Said::Anything => return true,
            },
        }
        false
    }

    /// The number that this message has to bring out, and the socket that has to hear it.
    fn expected(&self, said: &Said) -> Option<(u32, u32)> {
        let (namespace, number) = match (said, &self.partial) {
            (Said::Number(namespace, number, 0), None) => (namespace, *number),
            (Said::Attachment, Some((namespace, number, 1))) => (namespace, *number),
            _ => return None,
        };
        self.inside.get(namespace).map(|socket| (*socket, number))
    }

    fn heard(&self, socket: u32, args: &Args, expected: Option<(u32, u32)>) {
        assert!(self.inside.values().any(|own| *own == socket), "heard by a socket that is not there");
        if let Some((own, number)) = expected {
            assert_eq!((socket, args.first().ok()), (own, Some(number)));
        }
    }

    fn check(&self) {
        assert!(self.inside.len() + self.attempts.len() <= MAX_NAMESPACES, "too many namespaces");
        let mut joined: Vec<u32> = self.client.joined().copied().collect();
        joined.sort_unstable();
        let mut expected: Vec<u32> = self.inside.values().copied().collect();
        expected.sort_unstable();
        assert_eq!(joined, expected);
        assert!(self.client.poll_deadline().is_none_or(|at| !self.came_in && at == self.connect_by));
    }

    /// The session ends: everybody is out, and whoever was still being asked about stays out.
    fn end(mut self) {
        let mut left = self.client.leave_all();
        left.sort_unstable();
        let mut expected: Vec<u32> = self.inside.into_values().collect();
        expected.sort_unstable();
        assert_eq!(left, expected);
        for (.., attempt) in self.attempts {
            assert!(!self.client.join(attempt, self.next));
        }
        assert_eq!(self.client.joined().count(), 0);
        assert!(!self.client.handle_timeout(self.now + Duration::from_secs(1_000_000)));
    }
}

/// The first message of a packet, as a client sends it.
fn first(packet: &[Encoded]) -> Message {
    let first = packet.first().expect("a packet has a message");
    let payload = Bytes::copy_from_slice(first.payload());
    if first.is_binary() {
        return Message::Binary(payload);
    }
    let text = ByteString::try_from(payload).expect("a text packet is text");
    Message::from(text.strip_prefix('4').expect("a message"))
}
