//! The way from polling to WebSocket, as a client goes it, and the places where it breaks.

use crate::client::Visit;
use crate::line::Line;
use crate::requests;
use crate::wire::{self, Frame, Packet};
use std::time::Duration;
use tokio::time::Instant;

/// A WebSocket that is to take the session over.
pub struct Candidate {
    pub line: Line,
    pub step: Step,
    /// The next packet may be sent.
    pub go_at: Instant,
    /// Where it is to break, and how.
    pub cut: Option<(Step, Cut)>,
    pub is_cut: bool,
    /// It sends `5` without waiting for its GET.
    is_hasty: bool,
}

/// How far an upgrade has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Opening,
    Probing,
    /// Polling pauses.
    Pausing,
    Upgrading,
}

/// How an upgrade breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Drop,
    Reset,
    HalfAFrame,
    CloseFrame,
    WrongPacket,
    Garbage,
    Silence,
}

impl Cut {
    pub const ALL: &[Self] =
        &[Self::Drop, Self::Reset, Self::HalfAFrame, Self::CloseFrame, Self::WrongPacket, Self::Garbage, Self::Silence];
    /// Where it breaks.
    pub const STEPS: &[Step] = &[Step::Opening, Step::Probing, Step::Pausing];
}

impl Visit {
    pub fn start_upgrade(&mut self) {
        if !self.is_polling() || self.candidate.is_some() || self.is_troubled {
            return;
        }
        let capacity = self.chance.pick(&[256, 65_536]);
        let (there, lag) = (self.lag(), self.world.plan.lag);
        let eager = self.chance.pick(&[0, 0, 3, 100]);
        let Some(end) = requests::upgrade(&self.world, &self.sender, capacity, there, eager as usize) else { return };
        let mut line = Line::new(end, lag);
        if eager > 0 {
            line.force(&Packet::text("2probe").frame(self.sender.version));
        }
        let faults = self.world.plan.faults;
        let cut = (faults > 0 && self.chance.one_in(3)).then(|| (self.chance.pick(Cut::STEPS), self.chance.pick(Cut::ALL)));
        self.note(format_args!("begins an upgrade, cut {cut:?}"));
        let step = if eager > 0 { Step::Probing } else { Step::Opening };
        let is_hasty = self.chance.one_in(4);
        self.candidate = Some(Candidate { line, step, go_at: Instant::now() + there, cut, is_cut: false, is_hasty });
    }

    pub fn go_on_with_upgrade(&mut self) {
        let now = Instant::now();
        let lag = self.lag();
        let is_idle = self.get.is_none() && self.post.is_none();
        let is_writing = self.post.is_some();
        let Some(candidate) = &mut self.candidate else { return };
        if candidate.go_at > now || candidate.is_cut {
            return;
        }
        candidate.go_at = now + Duration::from_millis(10);
        match candidate.cut {
            Some((step, cut)) if step == candidate.step && step < Step::Upgrading => return self.cut(cut),
            _ => {}
        }
        match candidate.step {
            Step::Opening => {
                candidate.line.push(&Packet::text("2probe").frame(self.sender.version));
                candidate.step = Step::Probing;
                candidate.go_at = now + lag;
            }
            Step::Pausing if is_idle || (candidate.is_hasty && !is_writing) => {
                candidate.line.push(&Packet::text("5").frame(self.sender.version));
                candidate.step = Step::Upgrading;
                self.upgrade();
            }
            Step::Probing | Step::Pausing | Step::Upgrading => {}
        }
    }

    /// `5` is on its way: what it says goes by WebSocket from now on.
    fn upgrade(&mut self) {
        let candidate = self.candidate.take().expect("it was just looked at");
        self.note(format_args!("moves to WebSocket"));
        // A pong that is owed is not waited for any more.
        self.expect_beat();
        self.line = Some(candidate.line);
        for out in std::mem::take(&mut self.out) {
            self.send_saying(out.packet, out.says);
        }
    }

    pub fn go_on_with_candidate(&mut self) {
        let lag = self.lag();
        let now = Instant::now();
        let Some(candidate) = &mut self.candidate else { return };
        let read = candidate.line.go_on(&mut self.chance);
        let is_over = read.is_over || read.frames.contains(&Frame::Close);
        let is_answer = |frame: &Frame| *frame == Frame::Packet(Packet::text("3probe"));
        if read.frames.iter().any(is_answer) && candidate.step == Step::Probing {
            candidate.step = Step::Pausing;
            candidate.go_at = now + lag;
        }
        if is_over {
            let is_cut = candidate.is_cut || candidate.cut.is_some() || now < self.crowded_until;
            self.note(format_args!("its candidate is closed"));
            self.candidate = None;
            let is_open = self.world.ledger.lock().is_open(&self.sender.sid);
            self.check(is_cut || self.is_troubled || !is_open, format_args!("an upgrade that goes well is let through"));
        }
    }

    /// The upgrade breaks; polling goes on.
    fn cut(&mut self, cut: Cut) {
        self.note(format_args!("its upgrade is cut, {cut:?}"));
        let Some(candidate) = &mut self.candidate else { return };
        candidate.is_cut = true;
        let line = &mut candidate.line;
        match cut {
            Cut::Drop => self.candidate = None,
            Cut::Reset => self.candidate.take().expect("it was there above").line.into_end().reset(),
            Cut::HalfAFrame => {
                line.force(&Packet::text("5").frame(self.sender.version)[..4]);
                self.candidate = None;
            }
            Cut::CloseFrame => line.push(&wire::frame(0x88, &[])),
            Cut::WrongPacket => line.push(&Packet::text("4hello").frame(self.sender.version)),
            Cut::Garbage => line.push(&[0xff; 20]),
            // The server gives up some time.
            Cut::Silence => {}
        }
    }
}
