//! One client of Socket.IO on its session: which namespaces it is in, and what its messages mean there.

use super::eio::handshake::Query;
use super::eio::{Message, Version};
use super::errors::CloseReason;
use super::sio::{AckId, Args, Body, DecodeError, Decoder, Packet, Parser};
use bytestring::ByteString;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::time::Instant;

/// One client on its session; `S` is what the caller keeps for a namespace that it is in.
#[derive(Debug)]
pub struct Client<S> {
    version: Version,
    decoder: Decoder,
    /// A handful, so a list is looked through faster than a table.
    places: Vec<(ByteString, Place<S>)>,
    max_namespaces: usize,
    /// Attempts that are under way, those that a later one has replaced included.
    attempts: usize,
    next_attempt: u64,
    connect_by: Option<Instant>,
}

#[derive(Debug)]
enum Place<S> {
    /// The application is asked whether the client may come in.
    Connecting(u64),
    Joined(S),
    /// We have sent the client away, which it may not have read yet.
    Left,
}

/// A CONNECT packet that is neither granted nor refused yet.
#[derive(Debug)]
pub struct Attempt {
    namespace: ByteString,
    number: u64,
}

/// What a message asks for.
#[derive(Debug)]
pub enum Output<S> {
    /// The client wants to be in a namespace; [`Client::join`] or [`Client::refuse`] ends the attempt.
    Connect {
        /// As the client wrote it.
        namespace: ByteString,
        /// A JSON object, unparsed; of a client of protocol 3 the query behind the namespace, which [`auth_of_query`] makes one.
        auth: Option<ByteString>,
        /// To be given back.
        attempt: Attempt,
    },
    /// The client is in as many namespaces as it may be in; this one is to be refused.
    TooManyNamespaces(ByteString),
    /// An event.
    Event {
        /// Where it arrived.
        socket: S,
        /// Its name.
        name: SmolStr,
        /// What came with it.
        args: Args,
        /// Present when the client waits for an acknowledgement.
        ack: Option<AckId>,
    },
    /// An acknowledgement, which need not be one that is waited for.
    Ack {
        /// Where it arrived.
        socket: S,
        /// The id of our event.
        id: u64,
        /// What came with it.
        args: Args,
    },
    /// The client has left the namespace.
    Leave(S),
    /// The client broke the protocol: the session ends.
    Violation(Violation),
}

/// How a client can break the protocol; each way ends its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message is no packet.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The first message is CONNECT as the other parser writes it.
    #[error("the client uses another parser")]
    OtherParser,
    /// CONNECT for a namespace that the client is in.
    #[error("the client is connected to this namespace already")]
    ConnectedTwice,
    /// A packet for a namespace that the client is not in.
    #[error("the client is not connected to this namespace")]
    NotConnected,
    /// CONNECT_ERROR, which only servers send.
    #[error("the client sent a packet that only servers send")]
    ServerPacket,
}

impl Violation {
    /// What the sockets of the session are told, as the reference tells them: it depends on whether the session could close at once.
    pub const fn close_reason(self, at_once: bool) -> CloseReason {
        match self {
            Self::ConnectedTwice | Self::NotConnected | Self::ServerPacket if !at_once => CloseReason::ForcedServerClose,
            _ => CloseReason::ForcedClose,
        }
    }
}

impl<S: Clone + PartialEq> Client<S> {
    /// A client that is in no namespace, and has to be in one by `connect_by`.
    pub const fn new(
        version: Version,
        parser: Parser,
        max_attachments: usize,
        max_namespaces: usize,
        connect_by: Instant,
    ) -> Self {
        Self {
            version,
            decoder: Decoder::new(parser, max_attachments),
            places: Vec::new(),
            max_namespaces,
            attempts: 0,
            next_attempt: 0,
            connect_by: Some(connect_by),
        }
    }

    /// Whether a packet waits for its attachments.
    pub fn is_partial(&self) -> bool {
        self.decoder.is_partial()
    }

    /// Takes a message; `None` says that nothing is to be done now.
    pub fn handle_message(&mut self, message: Message) -> Option<Output<S>> {
        let first = (self.next_attempt == 0).then(|| message.clone());
        let decoded = match message {
            Message::Text(text) => self.decoder.text(text),
            Message::Binary(bytes) => self.decoder.binary(bytes),
        };
        match decoded {
            Ok(packet) => self.handle_packet(packet?),
            Err(_) if first.is_some_and(|message| self.decoder.is_foreign_connect(&message)) => {
                Some(Output::Violation(Violation::OtherParser))
            }
            Err(error) => Some(Output::Violation(error.into())),
        }
    }

    /// A client of protocol 3 is in `/` without asking for it.
    pub fn handle_open(&mut self) -> Option<Output<S>> {
        (self.version == Version::V3).then(|| self.handle_connect(ByteString::from_static("/"), None, None))
    }

    fn handle_packet(&mut self, Packet { namespace, body }: Packet) -> Option<Output<S>> {
        let (namespace, query) = match self.version {
            Version::V3 => split_query(namespace),
            Version::V4 => (namespace, None),
        };
        let place = self.places.iter().position(|(name, _)| *name == namespace);
        let body = match body {
            Body::Connect { auth } => {
                let auth = if self.version == Version::V3 { query } else { auth };
                return Some(self.handle_connect(namespace, auth, place));
            }
            Body::ConnectError { .. } => return Some(Output::Violation(Violation::ServerPacket)),
            body => body,
        };
        let socket = match place.map(|at| &self.places[at].1) {
            Some(Place::Joined(socket)) => socket.clone(),
            // Sent before the client knew; the reference closes the session, at the cost of its other namespaces.
            Some(Place::Left) => return None,
            Some(Place::Connecting(_)) | None => return Some(Output::Violation(Violation::NotConnected)),
        };
        match body {
            Body::Event { name, args, ack } => Some(Output::Event { socket, name, args, ack }),
            Body::Ack { id, args } => id.map(|id| Output::Ack { socket, id, args }),
            _ => {
                self.remove(&namespace);
                Some(Output::Leave(socket))
            }
        }
    }

    fn handle_connect(&mut self, namespace: ByteString, auth: Option<ByteString>, place: Option<usize>) -> Output<S> {
        if let Some(Place::Joined(_)) = place.map(|at| &self.places[at].1) {
            return Output::Violation(Violation::ConnectedTwice);
        }
        let joined = self.places.iter().filter(|(_, place)| matches!(place, Place::Joined(_))).count();
        if joined + self.attempts >= self.max_namespaces {
            return Output::TooManyNamespaces(namespace);
        }
        // Its own buffer: the client's may be a whole payload, and a place is kept for long.
        let namespace = ByteString::from(&*namespace);
        let number = self.next_attempt;
        self.next_attempt += 1;
        self.attempts += 1;
        // A client that left before the answer came may try again: its last attempt counts.
        self.put(namespace.clone(), Place::Connecting(number));
        Output::Connect { attempt: Attempt { namespace: namespace.clone(), number }, namespace, auth }
    }

    /// The client is in; `false` says that it has tried again since, so that nobody is to be told.
    pub fn join(&mut self, attempt: Attempt, socket: S) -> bool {
        let is_current = self.finish(&attempt);
        if is_current {
            self.connect_by = None;
            self.put(attempt.namespace, Place::Joined(socket));
        }
        is_current
    }

    /// The client stays out; `false` says that it has tried again since, so that nobody is to be told.
    pub fn refuse(&mut self, attempt: Attempt) -> bool {
        let is_current = self.finish(&attempt);
        if is_current {
            self.remove(&attempt.namespace);
        }
        is_current
    }

    fn finish(&mut self, attempt: &Attempt) -> bool {
        self.attempts -= 1;
        self.places.iter().any(|(name, place)| {
            *name == attempt.namespace && matches!(place, Place::Connecting(number) if *number == attempt.number)
        })
    }

    /// The server sends the client out of a namespace; what the client has sent there meanwhile means nothing.
    ///
    /// `false` says that the client is not there as this socket.
    pub fn leave(&mut self, namespace: &str, socket: &S) -> bool {
        let is_it =
            |(name, place): &(ByteString, Place<S>)| name == namespace && matches!(place, Place::Joined(own) if own == socket);
        let Some(at) = self.places.iter().position(is_it) else { return false };
        let (name, _) = self.places.remove(at);
        self.places.push((name, Place::Left));
        let is_left = |(_, place): &(ByteString, Place<S>)| matches!(place, Place::Left);
        if self.places.iter().filter(|place| is_left(place)).count() > self.max_namespaces
            && let Some(oldest) = self.places.iter().position(is_left)
        {
            self.places.remove(oldest);
        }
        true
    }

    /// The session is over: takes out everything that the client was in, in the order in which it came.
    pub fn leave_all(&mut self) -> Vec<S> {
        self.connect_by = None;
        self.decoder.forget();
        let places = std::mem::take(&mut self.places).into_iter();
        places.filter_map(|(_, place)| if let Place::Joined(socket) = place { Some(socket) } else { None }).collect()
    }

    /// What the client is in.
    pub fn joined(&self) -> impl Iterator<Item = &S> {
        self.places.iter().filter_map(|(_, place)| if let Place::Joined(socket) = place { Some(socket) } else { None })
    }

    /// When [`Client::handle_timeout`] has to be called.
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.connect_by
    }

    /// `true` says that the client came into no namespace in time: its session ends.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.connect_by.take_if(|by| *by <= now).is_some()
    }

    fn put(&mut self, namespace: ByteString, place: Place<S>) {
        match self.places.iter_mut().find(|(name, _)| *name == namespace) {
            Some((_, old)) => *old = place,
            None => self.places.push((namespace, place)),
        }
    }

    fn remove(&mut self, namespace: &str) {
        self.places.retain(|(name, _)| name != namespace);
    }
}

/// The part of a namespace behind its `?`, which is no part of its name.
fn split_query(namespace: ByteString) -> (ByteString, Option<ByteString>) {
    match namespace.split_once('?') {
        Some((name, query)) => (namespace.slice_ref(name), Some(namespace.slice_ref(query))),
        None => (namespace, None),
    }
}

/// What a client of protocol 3 says of itself behind a namespace, as the JSON object that later ones send; of repeated keys the last counts, as in the reference.
pub fn auth_of_query(query: &str) -> ByteString {
    let object: BTreeMap<_, _> = Query::parse(query).pairs.into_iter().collect();
    serde_json::to_string(&object).expect("a map of strings is JSON").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_client_comes_in_speaks_and_leaves() {
        let mut client = client();
        let (namespace, auth, attempt) = connect(&mut client, r#"0/chat,{"token":1}"#);
        assert_eq!((&*namespace, auth.as_deref()), ("/chat", Some(r#"{"token":1}"#)));
        assert!(client.join(attempt, 7));
        assert_eq!(say(&mut client, r#"2/chat,12["hi",1]"#), r#"event 7 hi [1] 12"#);
        assert_eq!(say(&mut client, r#"3/chat,0["yes"]"#), r#"ack 7 0 ["yes"]"#);
        assert_eq!(say(&mut client, "1/chat,"), "leave 7");
        assert_eq!(say(&mut client, r#"2/chat,["hi"]"#), "violation: the client is not connected to this namespace");
    }

    #[test]
    fn attachments_are_waited_for() {
        let mut client = joined();
        assert_eq!(say(&mut client, r#"51-["image",{"_placeholder":true,"num":0}]"#), "");
        let Some(Output::Event { args, .. }) = client.handle_message(Bytes::from_static(b"\x01\x02").into()) else {
            panic!("the event is complete")
        };
        assert_eq!(args.first::<Bytes>().expect("bytes"), b"\x01\x02"[..]);
    }

    #[test]
    fn a_client_that_uses_the_other_parser_is_known_by_its_first_message() {
        let msgpack = |bytes: &'static [u8]| Message::from(Bytes::from_static(bytes));
        let connect = || msgpack(b"\x82\xa4type\x00\xa3nsp\xa1/");
        let event = || msgpack(b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xa2hi");
        for (parser, first, violation) in [
            (Parser::Json, connect(), Violation::OtherParser),
            (Parser::Json, event(), DecodeError::UnexpectedBinary.into()),
            (Parser::MsgPack, "0".into(), Violation::OtherParser),
            (Parser::MsgPack, r#"0/admin,{"token":1}"#.into(), Violation::OtherParser),
            (Parser::MsgPack, r#"2["hi"]"#.into(), DecodeError::Malformed.into()),
        ] {
            let mut client = Client::<u32>::new(Version::V4, parser, 10, 2, Instant::now());
            let Some(Output::Violation(found)) = client.handle_message(first.clone()) else { panic!("{first:?} is taken") };
            assert_eq!(found, violation, "{first:?}");
            assert_eq!(found.close_reason(false), CloseReason::ForcedClose);
        }
        let Some(Output::Violation(later)) = joined().handle_message(connect()) else { panic!("it is taken") };
        assert_eq!(later, DecodeError::UnexpectedBinary.into());
    }

    #[test]
    fn packets_out_of_place_break_the_protocol_with_the_references_reasons() {
        for (packet, reason) in [
            ("0", "forced server close"),
            ("4{}", "forced server close"),
            (r#"2/elsewhere,["hi"]"#, "forced server close"),
            ("1/elsewhere,", "forced server close"),
            ("9", "forced close"),
            (r#"2["disconnect"]"#, "forced close"),
            (r#"52-["image"]"#, ""),
        ] {
            let reached = match joined().handle_message(packet.into()) {
                Some(Output::Violation(violation)) => violation.close_reason(false).as_str(),
                _ => "",
            };
            assert_eq!(reached, reason, "{packet}");
            if let Some(Output::Violation(violation)) = joined().handle_message(packet.into()) {
                assert_eq!(violation.close_reason(true), CloseReason::ForcedClose);
            }
        }
    }

    #[test]
    fn nothing_is_heard_before_the_client_is_in() {
        let mut client = client();
        let (_, _, attempt) = connect(&mut client, "0");
        assert_eq!(say(&mut client, r#"2["early"]"#), "violation: the client is not connected to this namespace");
        assert!(client.refuse(attempt));
    }

    #[test]
    fn of_two_attempts_the_last_counts() {
        let mut client = client();
        let (_, _, first) = connect(&mut client, "0");
        let (_, _, second) = connect(&mut client, "0");
        assert!(!client.join(first, 1));
        assert!(client.join(second, 2));
        assert_eq!(say(&mut client, r#"2["hi"]"#), "event 2 hi [] ");
    }

    #[test]
    fn what_was_sent_before_the_client_knew_that_it_is_out_means_nothing() {
        let mut client = joined();
        assert!(client.leave("/", &7));
        assert_eq!(say(&mut client, r#"2["late"]"#), "");
        let (_, _, attempt) = connect(&mut client, "0");
        assert!(client.join(attempt, 8));
        assert!(!client.leave("/", &7));
        assert_eq!(say(&mut client, r#"2["hi"]"#), "event 8 hi [] ");
    }

    #[test]
    fn namespaces_are_counted_and_so_are_attempts() {
        let mut client = client();
        let (_, _, first) = connect(&mut client, "0/a");
        let (_, _, second) = connect(&mut client, "0/b");
        assert_eq!(say(&mut client, "0/c"), "too many: /c");
        assert!(client.join(first, 1));
        assert_eq!(say(&mut client, "0/c"), "too many: /c");
        assert!(client.refuse(second));
        let (_, _, third) = connect(&mut client, "0/c");
        assert!(client.join(third, 3));
        assert!(client.leave("/a", &1));
        assert!(client.leave("/c", &3));
        assert_eq!(client.joined().count(), 0);
        connect(&mut client, "0/d");
    }

    #[test]
    fn places_that_were_left_are_not_remembered_without_end() {
        let mut client = client();
        for number in 0..1000 {
            let (namespace, _, attempt) = connect(&mut client, &format!("0/{number}"));
            assert!(client.join(attempt, number));
            assert!(client.leave(&namespace, &number));
        }
        assert!(client.places.len() <= 2);
    }

    #[test]
    fn a_client_that_comes_in_nowhere_is_closed_in_time() {
        let now = Instant::now();
        let mut late = Client::<u32>::new(Version::V4, Parser::Json, 10, 2, now + SECOND);
        assert_eq!(late.poll_deadline(), Some(now + SECOND));
        assert!(!late.handle_timeout(now));
        assert!(late.handle_timeout(now + SECOND));
        assert!(!late.handle_timeout(now + SECOND));
        let mut in_time = joined();
        assert_eq!(in_time.poll_deadline(), None);
        assert!(in_time.leave("/", &7));
        assert!(!in_time.handle_timeout(now + 100 * SECOND));
    }

    #[test]
    fn a_client_of_protocol_3_is_in_the_main_namespace_without_asking_and_asks_with_a_query() {
        let mut client = Client::<u32>::new(Version::V3, Parser::Json, 10, 3, Instant::now() + SECOND);
        let Some(Output::Connect { namespace, auth: None, attempt }) = client.handle_open() else { panic!("it is to be let in") };
        assert_eq!(namespace, "/");
        assert!(client.join(attempt, 7));
        assert_eq!(say(&mut client, r#"2["hi"]"#), "event 7 hi [] ");
        let (namespace, auth, attempt) = connect(&mut client, "0/a?token=1&x=%20,");
        assert_eq!((&*namespace, auth.as_deref()), ("/a", Some("token=1&x=%20")));
        assert!(client.join(attempt, 8));
        assert_eq!(say(&mut client, r#"2/a,["hi"]"#), "event 8 hi [] ");
        let (_, auth, _) = connect(&mut client, r#"0/b,{"token":1}"#);
        assert_eq!(auth, None);
        assert_eq!(say(&mut client, "0"), "violation: the client is connected to this namespace already");
        assert!(super::tests::client().handle_open().is_none());
    }

    #[test]
    fn a_query_reads_as_what_later_clients_send() {
        assert_eq!(auth_of_query("token=a%22b&n=1&n=2&empty"), r#"{"empty":"","n":"2","token":"a\"b"}"#);
        assert_eq!(auth_of_query(""), "{}");
    }

    #[test]
    fn the_end_of_the_session_empties_every_namespace() {
        let mut client = joined();
        let (_, _, attempt) = connect(&mut client, "0/b");
        assert_eq!(client.leave_all(), [7]);
        assert!(!client.join(attempt, 8));
        assert_eq!(client.leave_all(), [0; 0]);
    }

    proptest! {
        #[test]
        fn whatever_a_client_says_it_is_in_few_namespaces_and_once_in_each(steps in proptest::collection::vec(step(), 0..60)) {
            let mut client = Client::new(Version::V4, Parser::Json, 2, 3, Instant::now() + SECOND);
            let mut attempts: Vec<(ByteString, Attempt)> = Vec::new();
            let mut inside: BTreeMap<ByteString, u32> = BTreeMap::new();
            let mut next = 0_u32;
            for step in steps {
                let output = match step {
                    Step::Message(message) => client.handle_message(message),
                    Step::Join => {
                        if let Some((namespace, attempt)) = attempts.pop() && client.join(attempt, next) {
                            prop_assert_eq!(inside.insert(namespace, next), None);
                        }
                        next += 1;
                        None
                    }
                    Step::Refuse => {
                        attempts.pop().map(|(_, attempt)| client.refuse(attempt));
                        None
                    }
                    Step::Leave => {
                        if let Some((namespace, socket)) = inside.pop_first() {
                            prop_assert!(client.leave(&namespace, &socket));
                        }
                        None
                    }
                };
                match output {
                    Some(Output::Connect { namespace, attempt, .. }) => {
                        prop_assert!(!inside.contains_key(&namespace));
                        attempts.insert(0, (namespace, attempt));
                    }
                    Some(Output::Event { socket, .. } | Output::Ack { socket, .. }) => prop_assert!(inside.values().any(|own| *own == socket)),
                    Some(Output::Leave(socket)) => {
                        let before = inside.len();
                        inside.retain(|_, own| *own != socket);
                        prop_assert_eq!(inside.len() + 1, before);
                    }
                    Some(Output::TooManyNamespaces(_)) => prop_assert_eq!(inside.len() + attempts.len(), 3),
                    Some(Output::Violation(_)) => break,
                    None => {}
                }
                prop_assert!(inside.len() + attempts.len() <= 3);
                let mut joined: Vec<u32> = client.joined().copied().collect();
                joined.sort_unstable();
                let mut expected: Vec<u32> = inside.values().copied().collect();
                expected.sort_unstable();
                prop_assert_eq!(joined, expected);
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Message(Message),
        Join,
        Refuse,
        Leave,
    }

    fn step() -> impl Strategy<Value = Step> {
        let packet = (
            prop::sample::select(vec!["0", "0", "1", "2", "30", "51-"]),
            prop::sample::select(vec!["", "/a,", "/b,", "/c,", "/d,"]),
        );
        let packet = packet.prop_map(|(kind, namespace)| {
            let payload = match kind {
                "2" => r#"["hi"]"#,
                "30" => "[]",
                "51-" => r#"["hi",{"_placeholder":true,"num":0}]"#,
                _ => "",
            };
            let (head, id) = if kind == "30" { ("3", "0") } else { (kind, "") };
            Step::Message(format!("{head}{namespace}{id}{payload}").as_str().into())
        });
        prop_oneof![
            12 => packet,
            2 => Just(Step::Message(Bytes::from_static(b"x").into())),
            1 => ".{0,20}".prop_map(|text| Step::Message(text.as_str().into())),
            6 => Just(Step::Join),
            1 => Just(Step::Refuse),
            3 => Just(Step::Leave),
        ]
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn client() -> Client<u32> {
        Client::new(Version::V4, Parser::Json, 10, 2, Instant::now() + SECOND)
    }

    fn joined() -> Client<u32> {
        let mut client = client();
        let (_, _, attempt) = connect(&mut client, "0");
        assert!(client.join(attempt, 7));
        client
    }

    fn connect(client: &mut Client<u32>, packet: &str) -> (ByteString, Option<ByteString>, Attempt) {
        match client.handle_message(packet.into()) {
            Some(Output::Connect { namespace, auth, attempt }) => (namespace, auth, attempt),
            other => panic!("{packet} is {other:?}"),
        }
    }

    fn say(client: &mut Client<u32>, packet: &str) -> String {
        match client.handle_message(packet.into()) {
            None => String::new(),
            Some(Output::Connect { namespace, .. }) => format!("connect {namespace}"),
            Some(Output::TooManyNamespaces(namespace)) => format!("too many: {namespace}"),
            Some(Output::Event { socket, name, args, ack }) => {
                format!("event {socket} {name} {} {}", args.json(), ack.map(|ack| ack.to_string()).unwrap_or_default())
            }
            Some(Output::Ack { socket, id, args }) => format!("ack {socket} {id} {}", args.json()),
            Some(Output::Leave(socket)) => format!("leave {socket}"),
            Some(Output::Violation(violation)) => format!("violation: {violation}"),
        }
    }
}
