//! The Engine.IO session: whatever comes in whatever order, it hands on each message once, says nothing after its end, and ends when nobody speaks.

use super::input::Input;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use stickyport::protocol::eio::{Message, Packet, Version};
use stickyport::protocol::errors::CloseReason;
use stickyport::protocol::session::{Output, Session, Timing, TransportKind};

/// What the protocol's constants come to: a noop every 100 ms, and 30 s for the GET that takes the last words.
const NOOP_INTERVAL: Duration = Duration::from_millis(100);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// No input makes it ask for more than this: a last noop, the end of a candidate, and the end.
const MAX_OUTPUTS: usize = 3;

const REASONS: [CloseReason; 4] =
    [CloseReason::TransportError, CloseReason::TransportClose, CloseReason::ParseError, CloseReason::ForcedClose];

pub fn session(data: &[u8]) {
    let mut input = Input::new(data);
    let mut run = Run::open(&mut input);
    let talks = input.below(2) == 1;
    while let Some(byte) = input.byte() {
        let step = run.step(byte, &mut input);
        run.take(step);
        // The driver may be told several things before it looks.
        if byte & 0x80 == 0 {
            run.look();
        }
    }
    run.look();
    run.fall_silent(talks);
}

#[derive(Debug)]
enum Step {
    Packet(Packet),
    Candidate,
    CandidatePacket(Packet),
    CandidateLost,
    Pass(Duration),
    Timeout { reading: bool },
    TimeoutAtDeadline { reading: bool },
    Lost(CloseReason),
    Close(CloseReason),
    Drained,
}

struct Run {
    session: Session,
    version: Version,
    timing: Timing,
    now: Instant,
    /// How many messages the client has sent.
    said: u32,
    /// Those of them that have to come out next.
    expected: VecDeque<Message>,
    /// What the client's pings of protocol 3 said.
    pings: VecDeque<String>,
    /// How often the client has done its part of the heartbeat since the last look.
    heartbeats: usize,
    /// How many pongs may come that nobody asked for: while the application does not read, they stand in for the answers.
    beats: usize,
    /// How many candidates were taken, and of how many we were told the end.
    candidates: (u32, u32),
    transport: TransportKind,
    /// Outputs that the inputs since the last look may have made.
    allowed: usize,
    /// When the heartbeat last began again.
    alive: Instant,
    closed: bool,
}

impl Run {
    fn open(input: &mut Input<'_>) -> Self {
        let version = input.one_of(&[Version::V4, Version::V3]);
        let transport = input.one_of(&[TransportKind::Polling, TransportKind::WebSocket]);
        let at_least = |time: Duration| time.max(Duration::from_millis(1));
        let timing = Timing {
            ping_interval: at_least(input.time()),
            ping_timeout: at_least(input.time()),
            upgrade_timeout: at_least(input.time()).min(Duration::from_secs(10)),
        };
        let now = Instant::now();
        Self {
            session: Session::open(version, timing, transport, now),
            version,
            timing,
            now,
            said: 0,
            expected: VecDeque::new(),
            pings: VecDeque::new(),
            heartbeats: 0,
            beats: 0,
            candidates: (0, 0),
            transport,
            allowed: 0,
            alive: now,
            closed: false,
        }
    }

    fn step(&mut self, byte: u8, input: &mut Input<'_>) -> Step {
        match byte & 0x0f {
            0 | 1 => Step::Packet(self.message(input)),
            2 => Step::Packet(Packet::Pong("".into())),
            3 => Step::Packet(Packet::Ping(input.one_of(&["", "probe"]).into())),
            4 => Step::Packet(input.one_of(&[Packet::Close, Packet::Upgrade, Packet::Noop].each_ref()).clone()),
            5 => Step::Packet(Packet::Open(input.text().into())),
            6 => Step::Candidate,
            7 => Step::CandidatePacket(Packet::Ping("probe".into())),
            8 => Step::CandidatePacket(Packet::Upgrade),
            9 => Step::CandidatePacket(self.message(input)),
            10 => Step::CandidateLost,
            11 => Step::Pass(input.time()),
            12 => Step::Timeout { reading: byte & 0x40 == 0 },
            13 => Step::TimeoutAtDeadline { reading: byte & 0x40 == 0 },
            14 => Step::Drained,
            _ if byte & 0x40 == 0 => Step::Close(input.one_of(&REASONS)),
            _ => Step::Lost(input.one_of(&REASONS)),
        }
    }

    fn message(&mut self, input: &mut Input<'_>) -> Packet {
        self.said += 1;
        let number = self.said;
        Packet::Message(if input.below(2) == 0 {
            Message::from(number.to_string().as_str())
        } else {
            Message::Binary(Bytes::copy_from_slice(&number.to_be_bytes()))
        })
    }

    fn take(&mut self, step: Step) {
        self.allowed += MAX_OUTPUTS;
        match step {
            Step::Packet(packet) => self.packet(packet),
            Step::Candidate => {
                let may =
                    self.session.is_open() && self.session.transport() == TransportKind::Polling && !self.session.is_probing();
                assert_eq!(self.session.handle_candidate(self.now).is_ok(), may);
                self.candidates.0 += u32::from(may);
            }
            Step::CandidatePacket(packet) => {
                let before = self.session.transport();
                self.session.handle_candidate_packet(&packet, self.now);
                assert!(self.session.transport() == before || packet == Packet::Upgrade, "{packet:?} is no upgrade");
            }
            Step::CandidateLost => self.session.handle_candidate_lost(),
            Step::Pass(time) => self.now += time,
            Step::Timeout { reading } => self.timeout(reading),
            Step::TimeoutAtDeadline { reading } => {
                if let Some((at, _)) = self.session.poll_deadline() {
                    self.now = self.now.max(at);
                }
                self.timeout(reading);
            }
            Step::Lost(reason) => {
                self.session.handle_lost(reason);
                assert!(self.session.is_closed());
            }
            Step::Close(reason) => {
                self.session.close(reason, self.now);
                assert!(!self.session.is_open());
            }
            Step::Drained => {
                let was_closing = self.session.is_closing();
                self.session.handle_drained();
                assert!(!was_closing || self.session.is_closed());
            }
        }
        let phases = [self.session.is_open(), self.session.is_closing(), self.session.is_closed()];
        assert_eq!(phases.into_iter().filter(|is_it| *is_it).count(), 1, "{phases:?}");
        assert_eq!(self.session.poll_deadline().is_none(), self.session.is_closed());
    }

    fn packet(&mut self, packet: Packet) {
        if self.session.is_open() {
            match (self.version, &packet) {
                (_, Packet::Message(message)) => self.expected.push_back(message.clone()),
                (Version::V3, Packet::Ping(data)) => {
                    self.pings.push_back(data.to_string());
                    self.heartbeats += 1;
                }
                (Version::V4, Packet::Pong(_)) => self.heartbeats += 1,
                _ => {}
            }
            if self.version == Version::V3 || matches!(packet, Packet::Pong(_)) {
                self.alive = self.now;
            }
        }
        self.session.handle_packet(packet, || self.now);
    }

    fn timeout(&mut self, reading: bool) {
        let Some((at, _)) = self.session.poll_deadline() else { return };
        self.look();
        self.session.handle_timeout(self.now, reading);
        self.beats = usize::from(!reading);
        if self.now < at {
            assert_eq!(self.session.poll_output(), None, "before its deadline");
            assert_eq!(self.session.poll_deadline().map(|(at, _)| at), Some(at), "before its deadline");
        } else if let Some((next, why)) = self.session.poll_deadline() {
            assert!(next > self.now, "{why:?} does not get on");
        }
        self.allowed += MAX_OUTPUTS;
    }

    /// Takes what there is to do, and holds it against what was put in.
    fn look(&mut self) {
        while let Some(output) = self.session.poll_output() {
            assert!(!self.closed, "{output:?} after the end");
            self.allowed = self.allowed.checked_sub(1).expect("few outputs for each input");
            match output {
                Output::Message(message) => assert_eq!(Some(message), self.expected.pop_front()),
                Output::Ping => assert_eq!(self.version, Version::V4),
                Output::Pong(data) => {
                    assert_eq!(self.version, Version::V3);
                    if self.pings.front().is_some_and(|ping| *ping == *data) {
                        self.pings.pop_front();
                    } else {
                        assert_eq!(data, "", "not what the client asked");
                        self.beats = self.beats.checked_sub(1).expect("a pong has its reason");
                    }
                }
                Output::Heartbeat => self.heartbeats = self.heartbeats.checked_sub(1).expect("a heartbeat has its packet"),
                Output::Noop => assert_eq!(self.transport, TransportKind::Polling),
                Output::ProbeAnswer => assert!(self.candidates.0 > self.candidates.1, "no candidate to answer"),
                Output::Upgraded => {
                    assert_eq!(self.transport, TransportKind::Polling);
                    self.transport = TransportKind::WebSocket;
                    self.candidates.1 += 1;
                }
                Output::ProbeFailed => self.candidates.1 += 1,
                Output::Closed(reason) => {
                    self.closed = true;
                    if reason == CloseReason::PingTimeout {
                        let silence = self.now - self.alive;
                        assert!(silence >= self.timing.ping_interval + self.timing.ping_timeout, "{silence:?} is no silence");
                    }
                }
            }
        }
        self.allowed = 0;
        assert_eq!(self.expected, [], "messages that came in and not out");
        assert!(self.pings.is_empty() && self.heartbeats == 0, "a heartbeat was not heard");
        assert_eq!(self.closed, self.session.is_closed());
        assert_eq!(self.transport, self.session.transport());
        assert_eq!(self.candidates.0 - self.candidates.1, u32::from(self.session.is_probing()));
    }

    /// From here on the application reads nothing, and the client says nothing, or talks and does not do its part of the heartbeat: the session ends.
    fn fall_silent(&mut self, talks: bool) {
        let Timing { ping_interval, ping_timeout, upgrade_timeout } = self.timing;
        // A round of the heartbeat, another one because nobody reads, more time because the client talks, and the last words.
        let by = self.now + 2 * ping_interval + 3 * ping_timeout + CLOSE_TIMEOUT;
        let mut steps = 8 + upgrade_timeout.as_millis() / NOOP_INTERVAL.as_millis();
        while let Some((at, why)) = self.session.poll_deadline() {
            self.now = self.now.max(at);
            assert!(self.now <= by, "{why:?} is waited for too long");
            steps = steps.checked_sub(1).expect("a session that is left alone ends soon");
            // In protocol 3 to talk is to be alive.
            if talks && self.version == Version::V4 {
                self.take(Step::Packet(Packet::Message("and".into())));
            }
            self.timeout(false);
            self.look();
        }
        assert!(self.closed);
    }
}
