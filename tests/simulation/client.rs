//! A client: it comes, does one thing after another, and leaves; and at any step something may go wrong.

use crate::application::NAMESPACES;
use crate::chance::Chance;
use crate::line::Line;
use crate::places::{Claims, Place, State};
use crate::requests::{self, Got, Manner, Posted, Request, Sender};
use crate::upgrade::{Candidate, Step};
use crate::wire::{self, Frame, Packet, Said};
use crate::world::World;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use stickyport::engine::CloseReason;
use stickyport::engine::TransportKind::{Polling, WebSocket};
use stickyport::protocol::eio::Version;
use tokio::time::{Instant, sleep, sleep_until};

/// The longest that a client thinks between two steps.
const THOUGHT: Duration = Duration::from_millis(1_500);

/// Comes a few times.
pub async fn live(world: Arc<World>, number: u64, mut chance: Chance) {
    sleep(chance.up_to(world.plan.span)).await;
    let version = if chance.one_in(4) { Version::V3 } else { Version::V4 };
    let mut claims = Claims::new();
    for life in 0..1 + chance.below(2) {
        let name = format!("c{number}.{life}");
        let Some(visit) = Visit::open(&world, name, version, chance.fork(), claims).await else { return };
        claims = visit.run().await;
        sleep(chance.up_to(2 * THOUGHT)).await;
    }
}

/// One session, as its client sees it.
pub struct Visit {
    pub world: Arc<World>,
    pub name: String,
    pub sender: Sender,
    pub chance: Chance,
    pub get: Option<Request<Got>>,
    pub post: Option<Request<Posted>>,
    /// The WebSocket, once the session has moved to it.
    pub line: Option<Line>,
    pub candidate: Option<Candidate>,
    /// What waits to be sent, in order.
    pub out: VecDeque<Out>,
    /// What the POST under way brings: voices, and how much they have said.
    posting: Vec<(usize, u64)>,
    pub places: Vec<Place>,
    pub claims: Claims,
    /// A packet whose attachments are not all there.
    pub partial: Option<(Said, Vec<Vec<u8>>)>,
    pub steps: u64,
    act_at: Instant,
    /// It neither reads nor begins anything before this.
    pub stalled_until: Instant,
    /// Another WebSocket of its own may be in the way of an upgrade until then.
    pub crowded_until: Instant,
    /// The last moment for the server's part of the heartbeat: a ping, or in protocol 3 a pong.
    pub beat_by: Instant,
    /// When to ping, in protocol 3.
    ping_at: Option<Instant>,
    /// It does not do its own part.
    pub is_mute: bool,
    /// It never asks for a namespace.
    is_shy: bool,
    /// The last moment for all that is owed to it, once it has nothing more to say.
    pub settle_by: Option<Instant>,
    is_leaving: bool,
    /// What it has begun to send ends its session.
    pub is_parting: bool,
    /// Nothing can be expected of its session any more.
    pub is_troubled: bool,
    pub is_over: bool,
}

/// A packet to be sent; behind it so much is said by a voice.
pub struct Out {
    pub packet: Packet,
    pub says: Option<(usize, u64)>,
}

impl Visit {
    async fn open(world: &Arc<World>, name: String, version: Version, mut chance: Chance, claims: Claims) -> Option<Self> {
        let lag = world.plan.lag;
        let over = if chance.one_in(3) { WebSocket } else { Polling };
        let capacity = chance.pick(&[256, 4_096, 65_536]);
        let is_shy = version == Version::V4 && world.plan.faults > 0 && chance.one_in(40);
        sleep(chance.up_to(lag)).await;
        // In protocol 3 a client is in the first namespace by that alone.
        let voice = if version == Version::V3 { world.ledger.lock().new_voice() } else { 0 };
        let number = if version == Version::V3 { 3 } else { 4 };
        let opened = requests::open(world, &format!("EIO={number}&client={name}&voice={voice}"), over, capacity).await;
        let Some(opened) = opened else {
            world.ledger.note(format_args!("{name}: refused"));
            return None;
        };
        let now = Instant::now();
        let mut visit = Self {
            world: Arc::clone(world),
            name,
            sender: Sender { version, sid: String::new() },
            get: None,
            post: None,
            line: None,
            candidate: None,
            out: VecDeque::new(),
            posting: Vec::new(),
            places: Vec::new(),
            claims,
            partial: None,
            steps: chance.below(16),
            act_at: now,
            stalled_until: now,
            crowded_until: now,
            beat_by: now,
            ping_at: None,
            is_mute: false,
            is_shy,
            settle_by: None,
            is_leaving: false,
            is_parting: false,
            is_troubled: false,
            is_over: false,
            chance,
        };
        if version == Version::V3 {
            visit.places.push(Place { voice, state: State::Asking, ..Place::new("/") });
            visit.ping_at = Some(now + world.plan.options.ping_interval);
        }
        visit.expect_beat();
        match opened {
            Ok(body) => {
                sleep(visit.lag()).await;
                visit.receive_all(wire::packets(body, version));
            }
            Err(end) => visit.line = Some(Line::new(end, lag)),
        }
        Some(visit)
    }

    /// Lives from event to event until it is over.
    ///
    /// Its waits: `get` and `post` for their answers, `line` and `candidate` for bytes or for room, `sleep` for its own next step.
    async fn run(mut self) -> Claims {
        while !self.is_over {
            let wake = self.begin();
            let is_stalled = self.is_stalled();
            tokio::select! {
                biased;
                got = answer(&mut self.get) => self.got(got),
                posted = answer(&mut self.post) => self.posted(posted),
                () = stir(self.line.as_ref()), if !is_stalled => self.go_on(),
                () = stir(self.candidate.as_ref().map(|candidate| &candidate.line)), if !is_stalled => self.go_on_with_candidate(),
                () = sleep_until(wake) => self.step(),
            }
        }
        self.note(format_args!("over"));
        self.claims
    }

    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        self.world.ledger.note(format_args!("{}: {what}", self.name));
    }

    pub fn check(&self, holds: bool, promise: std::fmt::Arguments<'_>) {
        self.world.ledger.lock().check(holds, format_args!("{}: {promise}", self.name));
    }

    pub fn lag(&mut self) -> Duration {
        if self.chance.one_in(3) { self.chance.up_to(self.world.plan.lag) } else { Duration::ZERO }
    }

    pub fn is_polling(&self) -> bool {
        self.line.is_none()
    }

    fn is_stalled(&self) -> bool {
        Instant::now() < self.stalled_until
    }

    /// Time in which a server that is well does what it has to.
    fn patience(&self) -> Duration {
        Duration::from_secs(20) + self.world.plan.slack()
    }

    pub fn expect_beat(&mut self) {
        let options = &self.world.plan.options;
        let within = if self.is_v3() { options.ping_interval + options.ping_timeout } else { options.ping_interval };
        self.beat_by = self.stalled_until.max(Instant::now()) + within + self.world.plan.slack();
    }

    /// Its part of the heartbeat.
    pub fn beat(&self) -> &'static str {
        if self.is_v3() { "2" } else { "3" }
    }

    pub fn is_v3(&self) -> bool {
        self.sender.version == Version::V3
    }

    // --- what it begins ---

    /// Begins the requests that can be begun; when to act next, if nothing happens before.
    fn begin(&mut self) -> Instant {
        if self.is_stalled() {
            return self.stalled_until;
        }
        if self.is_polling() && !self.is_pausing() {
            if self.get.is_none() && !self.is_leaving {
                let (there, back) = (self.lag(), self.lag());
                self.get = Some(requests::get(&self.world, &self.sender, there, back));
            }
            if self.post.is_none() && !self.out.is_empty() {
                self.post();
            }
        }
        if let Some(line) = &mut self.line {
            // What the last GET brings comes before what the WebSocket does.
            line.is_deaf = self.get.is_some();
        }
        let candidate = self.candidate.as_ref().filter(|candidate| !candidate.is_cut).map(|candidate| candidate.go_at);
        let next = [Some(self.act_at), candidate, self.ping_at, (!self.is_troubled).then_some(self.beat_by)];
        next.into_iter().flatten().min().expect("one of them")
    }

    fn post(&mut self) {
        let limit = self.world.plan.options.max_payload;
        let as_binary = self.chance.one_in(2);
        let waiting = self.out.iter().map(|out| &out.packet);
        let (body, count) = wire::payload(waiting, limit, self.sender.version, as_binary);
        self.posting = self.out.drain(..count).filter_map(|out| out.says).collect();
        self.note(format_args!("POST of {count}"));
        let (there, back) = (self.lag(), self.lag());
        self.post = Some(requests::post(&self.world, &self.sender, body, Manner::Whole, there, back));
    }

    fn is_pausing(&self) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.step == Step::Pausing && !candidate.is_cut)
    }

    pub fn send(&mut self, packet: Packet) {
        if packet == Packet::text(self.beat()) {
            self.world.ledger.lock().beats(&self.sender.sid);
        }
        self.send_saying(packet, None);
    }

    pub fn send_saying(&mut self, packet: Packet, says: Option<(usize, u64)>) {
        match &mut self.line {
            Some(line) => line.push(&packet.frame(self.sender.version)),
            None => self.out.push_back(Out { packet, says }),
        }
    }

    // --- what comes ---

    fn got(&mut self, got: Got) {
        self.get = None;
        match got {
            Got::Payload(body) => {
                self.note(format_args!("GET brings {}", body.len()));
                self.receive_all(wire::packets(body, self.sender.version));
            }
            // One that was on its way when the session moved on.
            Got::Refused if !self.is_polling() => {}
            Got::Refused => self.sent_away("its GET is refused"),
        }
    }

    fn posted(&mut self, posted: Posted) {
        self.post = None;
        let posting = std::mem::take(&mut self.posting);
        match posted {
            Posted::Open => {
                let mut books = self.world.ledger.lock();
                posting.into_iter().for_each(|(voice, said)| books.landed(voice, said));
                if self.is_parting && self.is_polling() && self.out.is_empty() {
                    books.must_end(&self.sender.sid, Duration::ZERO);
                }
            }
            Posted::Over if self.is_leaving => self.left(),
            Posted::Over => {}
            // What is on its way to it comes first, and tells why.
            Posted::Refused if !self.is_leaving && self.get.as_ref().is_some_and(Request::is_answered) => {}
            Posted::Refused => self.sent_away("its POST is refused"),
        }
    }

    fn go_on(&mut self) {
        let Some(line) = self.line.as_mut() else { return };
        let read = line.go_on(&mut self.chance);
        if self.is_parting && line.is_flushed() {
            self.world.ledger.lock().line_ends(&self.sender.sid);
        }
        for frame in read.frames {
            self.check(!self.is_over, format_args!("nothing comes behind the end"));
            match frame {
                Frame::Packet(packet) => self.receive(packet.of_frame(self.sender.version)),
                Frame::Close => self.closed_by_server(),
                Frame::Pong => {}
            }
        }
        if read.is_over && !self.is_over {
            self.closed_by_server();
        }
    }

    fn closed_by_server(&mut self) {
        if self.is_leaving { self.left() } else { self.sent_away("its WebSocket is closed") }
    }

    fn receive_all(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            self.check(!self.is_over, format_args!("nothing comes behind the end"));
            self.receive(packet);
        }
    }

    fn receive(&mut self, packet: Packet) {
        let text = match packet {
            Packet::Binary(bytes) => return self.receive_attachment(bytes),
            Packet::Text(text) => text,
        };
        let (kind, rest) = text.split_at(1);
        match kind {
            "0" => {
                let open: serde_json::Value = serde_json::from_str(rest).expect("JSON");
                self.sender.sid = open["sid"].as_str().expect("a sid").to_owned();
                self.note(format_args!("open, {:?}", self.sender.version));
                if self.is_shy {
                    self.wait_for_the_end();
                } else if !self.is_v3() {
                    self.ask("/");
                }
            }
            // The parting word to a GET that was parked while the session moved on.
            "1" if !self.is_polling() => {}
            "1" => self.sent_away("it is told so"),
            "2" if !self.is_v3() => {
                self.expect_beat();
                if !self.is_mute {
                    self.send(Packet::text(self.beat()));
                }
            }
            "3" if self.is_v3() => self.expect_beat(),
            "4" => self.receive_message(rest),
            "6" => {}
            other => self.check(false, format_args!("a server sends no {other}")),
        }
    }

    /// The server has ended the session.
    fn sent_away(&mut self, how: &str) {
        self.note(format_args!("sent away: {how}"));
        self.is_over = true;
        let is_well = !self.is_troubled && !self.is_leaving;
        if is_well {
            self.world.ledger.lock().client_saw_the_end(&self.sender.sid);
        }
    }

    // --- what it does ---

    fn step(&mut self) {
        if self.is_stalled() {
            return;
        }
        let now = Instant::now();
        if self.beat_by <= now && !self.is_troubled {
            let is_open = self.world.ledger.lock().is_open(&self.sender.sid);
            self.check(!is_open || self.is_leaving, format_args!("a ping comes in time"));
            self.beat_by = now + self.patience();
        }
        if self.ping_at.is_some_and(|at| at <= now) {
            self.ping_at = Some(now + self.world.plan.options.ping_interval);
            self.send(Packet::text(self.beat()));
        }
        self.go_on_with_upgrade();
        if self.act_at <= now && !self.is_over {
            self.act_at = now + self.chance.up_to(THOUGHT);
            self.act();
        }
    }

    fn act(&mut self) {
        let faults = self.world.plan.faults;
        if self.sender.sid.is_empty() || self.is_leaving {
            return;
        }
        if faults > 0 && self.chance.one_in(faults) {
            return self.go_wrong();
        }
        if self.is_shy {
            return self.start_upgrade();
        }
        if self.steps == 0 {
            return self.settle();
        }
        self.steps -= 1;
        match self.chance.below(100) {
            0..25 => self.say(0),
            25..35 => (0..2 + self.chance.below(18)).for_each(|_| self.say(0)),
            35..45 => {
                let slow = 1 + self.chance.below(20);
                (0..1 + self.chance.below(6)).for_each(|_| self.say(slow));
            }
            45..55 => self.show(),
            55..65 => {
                let namespace = self.chance.pick(NAMESPACES);
                self.ask(namespace);
            }
            65..70 => self.leave_a_place(),
            70..85 => self.start_upgrade(),
            85..90 => {
                // As long as a ping comes and goes, or two.
                let idle = self.world.plan.options.ping_interval * 2;
                self.act_at = Instant::now() + self.chance.up_to(idle);
            }
            90..96 => self.stall(),
            _ => self.stray(),
        }
    }

    /// Neither reads nor writes for a while, but not for so long that it could be taken for dead.
    fn stall(&mut self) {
        if self.line.as_ref().is_some_and(|line| !line.is_flushed()) {
            // What it has begun to say may be the end of an upgrade.
            return;
        }
        let plan = &self.world.plan;
        // An upgrade has less time.
        let longest = if self.candidate.is_some() { plan.options.upgrade_timeout / 8 } else { plan.stall() };
        let stall = self.chance.up_to(longest);
        self.note(format_args!("stalls for {stall:?}"));
        self.stalled_until = Instant::now() + stall;
        self.beat_by += stall;
    }

    /// Does what does no harm.
    fn stray(&mut self) {
        match &mut self.line {
            Some(line) => {
                line.push(&wire::frame(0x89, b"anyone?"));
                let (there, back) = (self.lag(), self.lag());
                if !self.world.ledger.lock().is_on_websocket(&self.sender.sid) {
                    // Until the server has heard of the move a GET takes what waits.
                    return;
                }
                tokio::spawn(requests::get(&self.world, &self.sender, there, back).answer);
            }
            None => {
                // A second WebSocket beside the one that is being probed, or one that says nothing.
                let there = self.lag();
                self.note(format_args!("opens another WebSocket"));
                self.crowded_until = Instant::now() + self.world.plan.options.upgrade_timeout + self.world.plan.slack();
                if let Some(end) = requests::upgrade(&self.world, &self.sender, 256, there, 0) {
                    if self.candidate.is_some() { self.world.vanished.lock().expect("no panic").push(end) } else { drop(end) }
                }
            }
        }
    }

    /// Waits for all that is owed to it, and then leaves.
    fn settle(&mut self) {
        let now = Instant::now();
        if self.settle_by.is_none() {
            self.settle_by = Some(now + self.patience());
            // The last word in every namespace is acknowledged behind everything else.
            for _ in 0..4 {
                self.say(0);
            }
            return;
        }
        let is_settled =
            self.candidate.is_none() && self.places.iter().all(|place| place.state != State::Asking && place.awaited.is_empty());
        let is_late = self.settle_by.is_some_and(|by| by < now);
        if is_late && !self.is_troubled {
            let is_open = self.world.ledger.lock().is_open(&self.sender.sid);
            let owed: Vec<_> = self.places.iter().map(|place| (place.namespace, &place.state, &place.awaited)).collect();
            self.check(!is_open, format_args!("all that is owed comes in time: {owed:?}"));
        }
        if is_settled || is_late {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.note(format_args!("leaves"));
        self.is_leaving = true;
        match &mut self.line {
            _ if self.chance.one_in(5) => return self.vanish(),
            None => self.send(Packet::text("1")),
            Some(line) if self.chance.one_in(4) => line.push(&Packet::text("1").frame(self.sender.version)),
            Some(line) => line.push(&wire::frame(0x88, &[])),
        }
        self.is_parting = true;
        self.may_end(&[CloseReason::TransportClose]);
    }

    /// The server has taken its leave.
    fn left(&mut self) {
        self.is_over = true;
        let mut books = self.world.ledger.lock();
        if books.has_closed(&self.sender.sid, CloseReason::TransportClose) && !self.is_troubled {
            for place in self.places.iter().filter(|place| matches!(place.state, State::In(_))) {
                books.landed_all(place.voice);
            }
        }
    }

    pub fn may_end(&self, reasons: &[CloseReason]) {
        let mut books = self.world.ledger.lock();
        books.may_end(&self.sender.sid, reasons);
        if self.places.iter().all(|place| !matches!(place.state, State::In(_))) {
            // The server may wait for it to ask for a namespace, and not for long.
            books.may_end(&self.sender.sid, &[CloseReason::ForcedServerClose]);
        }
    }
}

async fn answer<T>(request: &mut Option<Request<T>>) -> T {
    match request {
        Some(request) => request.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn stir(line: Option<&Line>) {
    match line {
        Some(line) => line.stir().await,
        None => std::future::pending().await,
    }
}
