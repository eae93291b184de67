//! The Engine.IO session: decides what happens next, and does none of it.

use super::eio::{Message, Packet, Version};
use super::errors::CloseReason;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// While a probe is under way a parked GET is let go this often, so that the client can pause polling (wire.md A5).
const NOOP_INTERVAL: Duration = Duration::from_millis(100);

/// A closing session waits this long for the GET that takes its last words; as the reference's polling transport.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a timer is late does not add to the client's time; but a process that stood still for longer does not take it from the client's.
const SLACK: Duration = Duration::from_millis(20);

/// How a session reaches its client now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

impl TransportKind {
    /// The protocol's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// The times that a session keeps.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From a pong to the next ping; in protocol 3 from the last that was heard of the client.
    pub ping_interval: Duration,
    /// From a ping to the last moment for its pong; in protocol 3 for the ping itself.
    pub ping_timeout: Duration,
    /// From the candidate's first byte to the upgrade packet.
    pub upgrade_timeout: Duration,
}

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Hand a message to the application.
    Message(Message),
    /// Send `2` over the session's transport.
    Ping,
    /// Send `3` and this over the session's transport.
    Pong(ByteString),
    /// Let a parked GET go with `6`.
    Noop,
    /// The client has done its part of the heartbeat.
    Heartbeat,
    /// Answer `3probe` on the candidate.
    ProbeAnswer,
    /// The candidate is the session's transport now; a parked GET is answered `1`.
    Upgraded,
    /// Close the candidate; the session stays on polling.
    ProbeFailed,
    /// The session is over; nothing follows.
    Closed(CloseReason),
}

/// What [`Session::poll_deadline`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// The next ping, which in protocol 3 is the client's.
    Ping,
    /// The last moment for the client's part of the heartbeat.
    Pong,
    /// The next look at a parked GET during a probe.
    Noop,
    /// The upgrade packet of the candidate.
    Upgrade,
    /// The GET that takes the last words.
    Close,
}

/// A candidate transport that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session takes no second transport now")]
pub struct ProbeRefused;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heartbeat {
    Idle {
        ping_at: Instant,
    },
    /// `excused` once the application has kept us from reading the pong.
    Waiting {
        pong_by: Instant,
        rearmed: bool,
        excused: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    upgrade_by: Instant,
    /// Set by `2probe`.
    noop_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What waits is still sent; nothing is received.
    Closing {
        reason: CloseReason,
        by: Instant,
        /// The reason if nobody comes by then.
        late: CloseReason,
    },
    Closed,
}

/// One session's state.
#[derive(Debug)]
pub struct Session {
    version: Version,
    timing: Timing,
    transport: TransportKind,
    phase: Phase,
    heartbeat: Heartbeat,
    probe: Option<Probe>,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session that begins now on `transport`.
    pub fn open(version: Version, timing: Timing, transport: TransportKind, now: Instant) -> Self {
        Self {
            version,
            timing,
            transport,
            phase: Phase::Open,
            heartbeat: Heartbeat::Idle { ping_at: now + timing.ping_interval },
            probe: None,
            outputs: VecDeque::new(),
        }
    }

    /// How it reaches its client.
    pub fn transport(&self) -> TransportKind {
        self.transport
    }

    /// Whether it takes packets from the application.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether a candidate transport is being probed.
    pub fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// A packet came over the session's transport; for most of them nobody asks what time it is.
    pub fn handle_packet(&mut self, packet: Packet, now: impl Fn() -> Instant) {
        if self.phase != Phase::Open {
            // A closing session still hears its client go.
            if packet == Packet::Close {
                self.end(CloseReason::TransportClose);
            }
            return;
        }
        if self.version == Version::V3 {
            // Whatever it says, it is alive.
            self.heartbeat = Heartbeat::Idle { ping_at: now() + self.timing.ping_interval };
        } else if let Heartbeat::Waiting { pong_by, rearmed, .. } = &mut self.heartbeat
            && !*rearmed
            && !matches!(packet, Packet::Pong(_))
        {
            // Other traffic shows that the line is alive, once: a pong may stand in a queue behind it.
            *pong_by = now() + self.timing.ping_timeout;
            *rearmed = true;
        }
        match packet {
            Packet::Message(message) => self.outputs.push_back(Output::Message(message)),
            Packet::Ping(data) if self.version == Version::V3 => self.outputs.extend([Output::Pong(data), Output::Heartbeat]),
            Packet::Pong(_) if self.version == Version::V4 => {
                self.heartbeat = Heartbeat::Idle { ping_at: now() + self.timing.ping_interval };
                self.outputs.push_back(Output::Heartbeat);
            }
            // In protocol 4 only the server pings, in protocol 3 only the client.
            Packet::Ping(_) | Packet::Pong(_) => self.end(CloseReason::TransportError),
            Packet::Close => {
                if self.transport == TransportKind::Polling {
                    self.outputs.push_back(Output::Noop);
                }
                self.end(CloseReason::TransportClose);
            }
            Packet::Open(_) | Packet::Upgrade | Packet::Noop => {}
        }
    }

    /// A WebSocket asks to take over.
    ///
    /// # Errors
    /// The session is not on polling, is not open, or another candidate is being probed.
    pub fn handle_candidate(&mut self, now: Instant) -> Result<(), ProbeRefused> {
        if self.transport != TransportKind::Polling || self.phase != Phase::Open || self.probe.is_some() {
            return Err(ProbeRefused);
        }
        self.probe = Some(Probe { upgrade_by: now + self.timing.upgrade_timeout, noop_at: None });
        Ok(())
    }

    /// A packet came over the candidate.
    pub fn handle_candidate_packet(&mut self, packet: &Packet, now: Instant) {
        let Some(probe) = &mut self.probe else { return };
        match packet {
            Packet::Ping(data) if &**data == "probe" => {
                probe.noop_at = Some(now + NOOP_INTERVAL);
                self.outputs.push_back(Output::ProbeAnswer);
            }
            Packet::Upgrade if self.phase != Phase::Closed => {
                self.probe = None;
                self.transport = TransportKind::WebSocket;
                if matches!(self.heartbeat, Heartbeat::Waiting { .. }) {
                    // A pong that is owed may have gone down with the last poll, so it is not waited for; but the next ping is sent whether it comes or not.
                    self.heartbeat = Heartbeat::Idle { ping_at: now + self.timing.ping_interval };
                }
                self.outputs.push_back(Output::Upgraded);
            }
            _ => self.handle_candidate_lost(),
        }
    }

    /// The candidate is gone, or is no use.
    pub fn handle_candidate_lost(&mut self) {
        if self.probe.take().is_some() {
            self.outputs.push_back(Output::ProbeFailed);
        }
    }

    /// The session's transport is gone, or what it carried could not be read.
    pub fn handle_lost(&mut self, reason: CloseReason) {
        self.end(reason);
    }

    /// The application closes: what waits is still sent.
    pub fn close(&mut self, reason: CloseReason, now: Instant) {
        if self.phase == Phase::Open {
            let silent_by = match self.heartbeat {
                Heartbeat::Idle { ping_at } => ping_at + self.timing.ping_timeout,
                Heartbeat::Waiting { pong_by, .. } => pong_by,
            };
            let (by, late) = (now + CLOSE_TIMEOUT, reason);
            let (by, late) = if silent_by < by { (silent_by, CloseReason::PingTimeout) } else { (by, late) };
            self.phase = Phase::Closing { reason, by, late };
        }
    }

    /// All that waited was sent, and the client was told: a closing session is over.
    pub fn handle_drained(&mut self) {
        if let Phase::Closing { reason, .. } = self.phase {
            self.end(reason);
        }
    }

    /// Whether [`Session::close`] waits for [`Session::handle_drained`].
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// A deadline may have come; `reading` is false while the application makes the client wait, which for one more round of the heartbeat is
    /// not taken for the client's silence.
    pub fn handle_timeout(&mut self, now: Instant, reading: bool) {
        if let Phase::Closing { by, late, .. } = self.phase {
            if by <= now {
                self.end(late);
            }
            return;
        }
        if self.phase == Phase::Closed {
            return;
        }
        match self.heartbeat {
            Heartbeat::Idle { ping_at } if ping_at <= now => {
                if self.version == Version::V4 || !reading {
                    self.beat();
                }
                // Of a very short time most stays the client's.
                let slack = SLACK.min(self.timing.ping_timeout / 4);
                let pong_by = if now <= ping_at + slack { ping_at } else { now } + self.timing.ping_timeout;
                self.heartbeat = Heartbeat::Waiting { pong_by, rearmed: false, excused: false };
            }
            // Once: the client is pinged again, so that it stays, and heard again as soon as the application is ready. An application that
            // never is must not hold the session of a client that may be gone.
            Heartbeat::Waiting { pong_by, rearmed, excused: false } if pong_by <= now && !reading => {
                self.beat();
                let pong_by = now + self.timing.ping_interval + self.timing.ping_timeout;
                self.heartbeat = Heartbeat::Waiting { pong_by, rearmed, excused: true };
            }
            Heartbeat::Waiting { pong_by, .. } if pong_by <= now => return self.end(CloseReason::PingTimeout),
            _ => {}
        }
        if let Some(probe) = &mut self.probe {
            if probe.upgrade_by <= now {
                self.handle_candidate_lost();
            } else if probe.noop_at.is_some_and(|at| at <= now) {
                probe.noop_at = Some(now + NOOP_INTERVAL);
                self.outputs.push_back(Output::Noop);
            }
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Session::handle_timeout`] wants to be called next, and why; `None` when the session is over.
    pub fn poll_deadline(&self) -> Option<(Instant, Deadline)> {
        match self.phase {
            Phase::Closed => None,
            Phase::Closing { by, .. } => Some((by, Deadline::Close)),
            Phase::Open => {
                let heartbeat = match self.heartbeat {
                    Heartbeat::Idle { ping_at } => (ping_at, Deadline::Ping),
                    Heartbeat::Waiting { pong_by, .. } => (pong_by, Deadline::Pong),
                };
                // Asked before and after every message, and probed once at most.
                let Some(probe) = self.probe else { return Some(heartbeat) };
                let upgrade = (probe.upgrade_by, Deadline::Upgrade);
                let noop = probe.noop_at.map(|at| (at, Deadline::Noop));
                [Some(heartbeat), Some(upgrade), noop].into_iter().flatten().min_by_key(|(at, _)| *at)
            }
        }
    }

    /// Our part of the heartbeat; in protocol 3 it answers a ping that we have not read.
    fn beat(&mut self) {
        self.outputs.push_back(match self.version {
            Version::V3 => Output::Pong(ByteString::new()),
            Version::V4 => Output::Ping,
        });
    }

    fn end(&mut self, reason: CloseReason) {
        if self.phase == Phase::Closed {
            return;
        }
        self.handle_candidate_lost();
        self.phase = Phase::Closed;
        self.outputs.push_back(Output::Closed(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_after_a_ping_closes_the_session() {
        let mut pair = Pair::new(TransportKind::WebSocket);
        assert_eq!(pair.wait(), (25_000, vec![Output::Ping]));
        assert_eq!(pair.wait(), (45_000, vec![Output::Closed(CloseReason::PingTimeout)]));
        assert_eq!(pair.session.poll_deadline(), None);
    }

    #[test]
    fn the_next_ping_comes_an_interval_after_the_pong() {
        let mut pair = Pair::new(TransportKind::WebSocket);
        assert_eq!(pair.wait(), (25_000, vec![Output::Ping]));
        pair.pass(3_000);
        assert_eq!(pair.packet("3"), [Output::Heartbeat]);
        assert_eq!(pair.wait(), (53_000, vec![Output::Ping]));
    }

    #[test]
    fn a_timer_that_is_a_little_late_leaves_the_client_no_more_time_and_one_that_is_very_late_no_less() {
        for (late, end) in [(5, 45_000), (5_000, 50_000)] {
            let mut pair = Pair::new(TransportKind::WebSocket);
            pair.pass(25_000 + late);
            pair.session.handle_timeout(pair.now, true);
            assert_eq!(pair.outputs(), [Output::Ping]);
            assert_eq!(pair.wait(), (end, vec![Output::Closed(CloseReason::PingTimeout)]));
        }
    }

    #[test]
    fn a_timer_that_is_late_by_all_of_a_very_short_time_leaves_it_to_the_client() {
        let mut pair = Pair::new(TransportKind::WebSocket);
        pair.session.timing.ping_timeout = Duration::from_millis(12);
        pair.pass(25_015);
        pair.session.handle_timeout(pair.now, true);
        assert_eq!(pair.outputs(), [Output::Ping]);
        assert_eq!(pair.wait(), (25_027, vec![Output::Closed(CloseReason::PingTimeout)]));
    }

    #[test]
    fn other_traffic_rearms_the_pong_deadline_once() {
        let mut pair = Pair::new(TransportKind::WebSocket);
        pair.wait();
        pair.pass(15_000);
        assert_eq!(pair.packet("4x"), [Output::Message("x".into())]);
        pair.pass(15_000);
        pair.packet("4y");
        assert_eq!(pair.wait(), (60_000, vec![Output::Closed(CloseReason::PingTimeout)]));
    }

    #[test]
    fn a_client_that_we_make_wait_is_pinged_again_and_given_one_more_round() {
        let mut pair = Pair::new(TransportKind::WebSocket);
        pair.wait();
        pair.pass(20_000);
        pair.session.handle_timeout(pair.now, false);
        assert_eq!(pair.outputs(), [Output::Ping]);
        pair.pass(40_000);
        assert_eq!(pair.packet("3"), [Output::Heartbeat]);
        assert_eq!(pair.wait(), (110_000, vec![Output::Ping]));
    }

    #[test]
    fn an_application_that_never_reads_again_does_not_hold_the_session() {
        let mut pair = Pair::new(TransportKind::WebSocket);
        pair.wait();
        pair.pass(20_000);
        pair.session.handle_timeout(pair.now, false);
        pair.outputs();
        pair.pass(45_000);
        pair.session.handle_timeout(pair.now, false);
        assert_eq!(pair.outputs(), [Output::Closed(CloseReason::PingTimeout)]);
    }

    #[test]
    fn a_ping_from_the_client_breaks_the_protocol() {
        let mut pair = Pair::new(TransportKind::WebSocket);
        assert_eq!(pair.packet("2"), [Output::Closed(CloseReason::TransportError)]);
        assert_eq!(pair.packet("4x"), []);
    }

    #[test]
    fn a_client_of_protocol_3_pings_and_is_answered_with_what_it_sent() {
        let mut pair = Pair::of(Version::V3, TransportKind::WebSocket);
        pair.pass(25_500);
        assert_eq!(pair.packet("2"), [Output::Pong("".into()), Output::Heartbeat]);
        assert_eq!(pair.packet("2probe"), [Output::Pong("probe".into()), Output::Heartbeat]);
        assert_eq!(pair.wait(), (50_500, vec![]));
        assert_eq!(pair.packet("3"), [Output::Closed(CloseReason::TransportError)]);
    }

    #[test]
    fn a_client_of_protocol_3_that_says_nothing_is_closed() {
        let mut pair = Pair::of(Version::V3, TransportKind::WebSocket);
        assert_eq!(pair.wait(), (25_000, vec![]));
        pair.pass(15_000);
        assert_eq!(pair.packet("4x"), [Output::Message("x".into())]);
        assert_eq!(pair.wait(), (65_000, vec![]));
        assert_eq!(pair.wait(), (85_000, vec![Output::Closed(CloseReason::PingTimeout)]));
    }

    #[test]
    fn a_client_of_protocol_3_that_we_make_wait_hears_from_us_and_is_given_one_more_round() {
        let mut pair = Pair::of(Version::V3, TransportKind::WebSocket);
        let answer = [Output::Pong("".into())];
        for (millis, outputs) in [(25_000, &answer[..]), (20_000, &answer), (45_000, &[Output::Closed(CloseReason::PingTimeout)])]
        {
            pair.pass(millis);
            pair.session.handle_timeout(pair.now, false);
            assert_eq!(pair.outputs(), outputs);
        }
    }

    #[test]
    fn an_upgrade_does_not_end_the_heartbeat_of_protocol_3() {
        let mut pair = Pair::of(Version::V3, TransportKind::Polling);
        pair.session.handle_candidate(pair.now).expect("a candidate");
        assert_eq!(pair.candidate("2probe"), [Output::ProbeAnswer]);
        assert_eq!(pair.candidate("5"), [Output::Upgraded]);
        pair.wait();
        assert_eq!(pair.wait(), (45_000, vec![Output::Closed(CloseReason::PingTimeout)]));
    }

    #[test]
    fn a_client_that_closes_polling_lets_its_get_go() {
        let mut pair = Pair::new(TransportKind::Polling);
        assert_eq!(pair.packet("1"), [Output::Noop, Output::Closed(CloseReason::TransportClose)]);
    }

    #[test]
    fn an_upgrade_takes_a_probe_and_an_upgrade_packet() {
        let mut pair = Pair::new(TransportKind::Polling);
        pair.session.handle_candidate(pair.now).expect("the first candidate");
        assert_eq!(pair.session.handle_candidate(pair.now), Err(ProbeRefused));
        assert_eq!(pair.candidate("2probe"), [Output::ProbeAnswer]);
        assert_eq!(pair.wait(), (100, vec![Output::Noop]));
        assert_eq!(pair.wait(), (200, vec![Output::Noop]));
        assert_eq!(pair.candidate("5"), [Output::Upgraded]);
        assert_eq!(pair.session.transport(), TransportKind::WebSocket);
        assert_eq!(pair.session.handle_candidate(pair.now), Err(ProbeRefused));
        assert_eq!(pair.wait(), (25_000, vec![Output::Ping]));
    }

    #[test]
    fn an_upgrade_in_the_middle_of_a_heartbeat_is_pinged_again() {
        let mut pair = Pair::new(TransportKind::Polling);
        pair.wait();
        pair.session.handle_candidate(pair.now).expect("a candidate");
        pair.candidate("5");
        assert_eq!(pair.wait(), (50_000, vec![Output::Ping]));
    }

    #[test]
    fn a_candidate_that_says_anything_else_is_closed_and_polling_goes_on() {
        for packet in ["4x", "2", "2prob", "3probe", "1", "6"] {
            let mut pair = Pair::new(TransportKind::Polling);
            pair.session.handle_candidate(pair.now).expect("a candidate");
            assert_eq!(pair.candidate(packet), [Output::ProbeFailed], "{packet}");
            assert!(pair.session.is_open());
            pair.session.handle_candidate(pair.now).expect("another may try");
        }
    }

    #[test]
    fn a_candidate_has_ten_seconds() {
        let mut pair = Pair::new(TransportKind::Polling);
        pair.session.handle_candidate(pair.now).expect("a candidate");
        assert_eq!(pair.wait(), (10_000, vec![Output::ProbeFailed]));
        assert_eq!(pair.wait(), (25_000, vec![Output::Ping]));
    }

    #[test]
    fn a_closing_session_ends_when_its_last_words_are_sent_or_nobody_takes_them() {
        let mut pair = Pair::new(TransportKind::Polling);
        pair.session.close(CloseReason::ForcedClose, pair.now);
        assert!(!pair.session.is_open());
        assert_eq!(pair.packet("4late"), []);
        assert_eq!(pair.wait(), (30_000, vec![Output::Closed(CloseReason::ForcedClose)]));

        let mut pair = Pair::new(TransportKind::Polling);
        pair.session.close(CloseReason::ServerShuttingDown, pair.now);
        pair.session.handle_drained();
        assert_eq!(pair.outputs(), [Output::Closed(CloseReason::ServerShuttingDown)]);
        pair.session.handle_drained();
        pair.session.handle_lost(CloseReason::TransportError);
        assert_eq!(pair.outputs(), []);
    }

    #[test]
    fn a_closing_session_waits_no_longer_than_its_heartbeat() {
        let mut pair = Pair::new(TransportKind::Polling);
        pair.wait();
        pair.pass(5_000);
        pair.session.close(CloseReason::ForcedClose, pair.now);
        assert_eq!(pair.wait(), (45_000, vec![Output::Closed(CloseReason::PingTimeout)]));
    }

    /// A session and its virtual clock, in milliseconds.
    struct Pair {
        session: Session,
        start: Instant,
        now: Instant,
    }

    impl Pair {
        fn new(transport: TransportKind) -> Self {
            Self::of(Version::V4, transport)
        }

        fn of(version: Version, transport: TransportKind) -> Self {
            let start = Instant::now();
            let timing = Timing {
                ping_interval: Duration::from_secs(25),
                ping_timeout: Duration::from_secs(20),
                upgrade_timeout: Duration::from_secs(10),
            };
            Self { session: Session::open(version, timing, transport, start), start, now: start }
        }

        fn pass(&mut self, millis: u64) {
            self.now += Duration::from_millis(millis);
        }

        /// Goes to the next deadline: when that was, and what happened.
        fn wait(&mut self) -> (u128, Vec<Output>) {
            self.now = self.session.poll_deadline().expect("a deadline").0;
            self.session.handle_timeout(self.now, true);
            ((self.now - self.start).as_millis(), self.outputs())
        }

        fn packet(&mut self, text: &str) -> Vec<Output> {
            self.session.handle_packet(Packet::decode(text.into()).expect("a packet"), || self.now);
            self.outputs()
        }

        fn candidate(&mut self, text: &str) -> Vec<Output> {
            self.session.handle_candidate_packet(&Packet::decode(text.into()).expect("a packet"), self.now);
            self.outputs()
        }

        fn outputs(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.session.poll_output()).collect()
        }
    }
}
