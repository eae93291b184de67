//! What goes wrong with a client, or with the line to it.

use crate::client::Visit;
use crate::places::{Place, State};
use crate::requests::{self, Manner};
use crate::wire::{self, Body, Packet};
use stickyport::engine::CloseReason::{
    self, ForcedClose, ForcedServerClose, ParseError, PingTimeout, TransportClose, TransportError,
};
use stickyport::protocol::eio::Version;

impl Visit {
    /// Something goes wrong, now.
    pub fn go_wrong(&mut self) {
        self.world.ledger.lock().is_troubled(&self.sender.sid);
        self.is_troubled = true;
        match self.chance.below(8) {
            0 | 1 => return self.break_the_protocol(),
            2 if self.sender.version == Version::V4 => return self.fall_mute(),
            _ => {}
        }
        if self.is_polling() { self.go_wrong_on_polling() } else { self.go_wrong_on_websocket() }
    }

    /// Says what no client may say.
    fn break_the_protocol(&mut self) {
        let (again, voice) = match self.sender.version {
            // If the server has just sent it away it would be let in again, under the same id.
            Version::V3 => ("44".to_owned(), None),
            Version::V4 => {
                let voice = self.world.ledger.lock().new_voice();
                (format!(r#"40{{"voice":{voice}}}"#), Some(voice))
            }
        };
        let elsewhere = r#"42/nowhere,["say",0,0,""]"#;
        let words = [&again, elsewhere, "9", "2", "4", "49", "4x", "44{}", r#"42["disconnect"]"#, r#"452-["show"]"#, "3", "6"];
        let words = self.chance.pick(&words).to_owned();
        self.note(format_args!("WRONG: says {words}"));
        let is_asking = |place: &&mut Place| place.namespace == "/" && place.state == State::Asking;
        if let Some(voice) = voice
            && words == again
            && let Some(place) = self.places.iter_mut().find(is_asking)
        {
            // If the server has let it in already, this ends its session; else what it asked for first is forgotten, and who it was with it.
            place.voice = voice;
        }
        self.may_end(&[ParseError, TransportError, ForcedClose, ForcedServerClose]);
        self.send(Packet::text(words));
    }

    /// Goes on as before, but for the heartbeat.
    fn fall_mute(&mut self) {
        self.note(format_args!("WRONG: does not answer pings any more"));
        self.may_end(&[PingTimeout]);
        self.is_mute = true;
        self.steps = 1_000;
    }

    /// It will never be in a namespace, which the server does not wait for.
    pub fn wait_for_the_end(&mut self) {
        self.note(format_args!("WRONG: asks for nothing"));
        self.world.ledger.lock().is_troubled(&self.sender.sid);
        self.is_troubled = true;
        self.may_end(&[ForcedServerClose]);
    }

    fn go_wrong_on_polling(&mut self) {
        match self.chance.below(9) {
            0 => {
                let is_waiting = self.get.as_ref().is_some_and(requests::Request::is_at_server);
                self.note(format_args!("WRONG: its GET breaks off, parked: {is_waiting}"));
                self.break_off(is_waiting);
            }
            1 => {
                let is_waiting = self.post.as_ref().is_some_and(requests::Request::is_at_server);
                self.note(format_args!("WRONG: its POST breaks off, under way: {is_waiting}"));
                self.break_off(is_waiting);
            }
            2 => self.vanish(),
            3 => {
                self.note(format_args!("WRONG: a second GET"));
                let (there, back) = (self.lag(), self.lag());
                tokio::spawn(requests::get(&self.world, &self.sender, there, back).answer);
                // Nobody knows which of the two brings what.
                self.vanish();
            }
            4 => self.post_badly("3", Manner::Whole, &[TransportError, ParseError]),
            5 => {
                let body = self.chance.pick(&["9", "x", "", "4\u{1e}\u{1e}4"]);
                self.post_badly(body, Manner::Whole, &[TransportError, ParseError, ForcedClose, ForcedServerClose]);
            }
            6 => {
                let manner = self.chance.pick(&[Manner::Broken, Manner::NotText, Manner::TooLarge, Manner::Endless]);
                self.post_badly("3", manner, &[TransportError]);
            }
            7 => self.stop_answering(),
            _ => {
                self.note(format_args!("WRONG: closes without a word"));
                self.may_end(&[TransportClose]);
                self.send(Packet::text("1"));
            }
        }
    }

    /// The line breaks: at once for the server, if a request of this client is with it.
    fn break_off(&mut self, is_noticed: bool) {
        self.may_end(&[TransportError, PingTimeout]);
        if is_noticed {
            self.world.ledger.lock().must_end(&self.sender.sid, self.world.plan.slack());
        }
        self.is_over = true;
    }

    /// Posts beside the POST that may be under way.
    fn post_badly(&mut self, body: &str, manner: Manner, reasons: &[CloseReason]) {
        self.note(format_args!("WRONG: posts {body:?}, {manner:?}"));
        self.may_end(reasons);
        if manner == Manner::Whole && body == self.beat() {
            self.world.ledger.lock().beats(&self.sender.sid);
        }
        let (there, back) = (self.lag(), self.lag());
        tokio::spawn(requests::post(&self.world, &self.sender, Body::Text(body.to_owned()), manner, there, back).answer);
        self.stop_soon();
    }

    fn go_wrong_on_websocket(&mut self) {
        let half_a_frame = Packet::text("4 no more of this").frame(self.sender.version);
        let invalid_text = wire::frame(0x81, &[b'4', 0xff, 0xfe]);
        let too_large = wire::frame(0x81, "4".repeat(self.world.plan.options.max_payload + 1).as_bytes());
        let Some(line) = &mut self.line else { return };
        let kind = self.chance.below(11);
        let (what, bytes, reason) = match kind {
            0 => {
                line.force(&half_a_frame[..9]);
                ("breaks in the middle of a frame", vec![], TransportError)
            }
            1 | 2 => ("breaks", vec![], TransportError),
            3 => return self.vanish(),
            4 => ("sends garbage", vec![0xff; 40], TransportError),
            5 => ("sends an unmasked frame", vec![0x81, 1, b'6'], TransportError),
            6 => ("sends a message that is too large", too_large, TransportError),
            7 => ("sends text that is none", invalid_text, TransportError),
            8 => ("closes", wire::frame(0x88, &[0x03, 0xe9]), TransportClose),
            9 => ("closes its side", vec![], TransportClose),
            _ => {
                line.slow_down();
                self.note(format_args!("WRONG: reads slowly"));
                return self.stop_answering();
            }
        };
        self.note(format_args!("WRONG: its WebSocket {what}"));
        // A server that has not heard that the client has moved there waits for its next poll.
        self.may_end(&[reason, TransportError, TransportClose, PingTimeout]);
        if kind <= 2 || kind == 9 {
            self.world.ledger.lock().line_ends(&self.sender.sid);
        }
        let line = self.line.as_mut().expect("it was there above");
        match kind {
            0..=2 => {
                let line = self.line.take().expect("it was there above");
                if kind == 2 {
                    line.into_end().reset()
                } else {
                    drop(line)
                }
                self.is_over = true;
            }
            9 => line.shut_down(),
            _ => {
                line.push(&bytes);
                self.is_parting = true;
            }
        }
        self.stop_soon();
    }

    /// Goes without a sign: what it has begun stays as it is, and nobody comes for it.
    pub fn vanish(&mut self) {
        self.note(format_args!("WRONG: vanishes"));
        self.world.ledger.lock().is_troubled(&self.sender.sid);
        self.may_end(&[PingTimeout, TransportError]);
        let candidate = self.candidate.take().map(|candidate| candidate.line);
        let lines = [self.line.take(), candidate].into_iter().flatten();
        self.world.vanished.lock().expect("no panic").extend(lines.map(|line| line.into_end()));
        if let Some(get) = self.get.take() {
            tokio::spawn(get.answer);
        }
        if let Some(post) = self.post.take() {
            tokio::spawn(post.answer);
        }
        self.is_over = true;
    }

    /// From now on it is late, and may be too late.
    fn stop_answering(&mut self) {
        let options = &self.world.plan.options;
        let stall = self.chance.up_to(2 * (options.ping_interval + options.ping_timeout));
        self.note(format_args!("WRONG: stalls for {stall:?}"));
        self.may_end(&[PingTimeout, TransportError]);
        self.stalled_until = tokio::time::Instant::now() + stall;
        self.stop_soon();
    }

    /// After this the server owes it nothing, and it goes after a few more steps.
    fn stop_soon(&mut self) {
        self.steps = self.steps.min(5);
    }
}
