//! A client in its namespaces: it asks for them, says and hears things there, and may come back as who it was.

use crate::application::{NAMESPACES, paint};
use crate::client::Visit;
use crate::wire::{self, Packet, Said};
use std::collections::BTreeMap;
use stickyport::engine::CloseReason;
use stickyport::protocol::eio::Version;

/// What a client remembers of each namespace, to come back as who it was.
pub type Claims = BTreeMap<&'static str, Claim>;

pub struct Claim {
    sid: String,
    id: String,
    pid: String,
    /// Of the last event that it has received.
    offset: Option<String>,
}

/// A namespace.
pub struct Place {
    pub namespace: &'static str,
    pub state: State,
    pub voice: usize,
    pub next_ack: u64,
    /// What is to be acknowledged: ids, and the numbers of what was said.
    pub awaited: BTreeMap<u64, u64>,
    /// What it missed, which comes before it is let in again.
    pub missed: Vec<(Said, Vec<Vec<u8>>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Out,
    Asking,
    In(String),
}

impl Place {
    pub fn new(namespace: &'static str) -> Self {
        Self { namespace, state: State::Out, voice: 0, next_ack: 0, awaited: BTreeMap::new(), missed: Vec::new() }
    }
}

impl Visit {
    pub fn receive_message(&mut self, text: &str) {
        self.check(self.partial.is_none(), format_args!("nothing comes between a packet and its attachments"));
        let said = Said::parse(text);
        if said.attachments > 0 {
            self.partial = Some((said, Vec::new()));
        } else {
            self.hear(said, Vec::new());
        }
    }

    pub fn receive_attachment(&mut self, bytes: Vec<u8>) {
        let Some((said, mut attachments)) = self.partial.take() else {
            return self.check(false, format_args!("bytes belong to a packet"));
        };
        attachments.push(bytes);
        if attachments.len() == said.attachments {
            self.hear(said, attachments);
        } else {
            self.partial = Some((said, attachments));
        }
    }

    /// A Socket.IO packet is whole.
    fn hear(&mut self, said: Said, attachments: Vec<Vec<u8>>) {
        let Some(at) = self.places.iter().position(|place| place.namespace == said.namespace) else {
            return self.check(self.is_troubled, format_args!("{} is not asked for", said.namespace));
        };
        let state = self.places[at].state.clone();
        match (said.kind, state) {
            ('0', State::Asking) => self.come_in(&said, at),
            ('4', State::Asking) => {
                let may_be = said.namespace == "/asked";
                self.check(may_be, format_args!("{} is open to all: {}", said.namespace, said.data));
                self.places[at].state = State::Out;
            }
            ('2' | '5', State::Asking) => self.places[at].missed.push((said, attachments)),
            // It has left: this was on its way.
            (_, State::Out | State::Asking) => {}
            ('1', State::In(id)) => {
                self.world.ledger.lock().client_was_dismissed(&id);
                let place = &mut self.places[at];
                place.state = State::Out;
                place.awaited.clear();
            }
            ('2' | '5', State::In(id)) => self.hear_news(&said, &attachments, &id),
            ('3', State::In(id)) => self.hear_ack(&said, &id, at),
            (kind, state) => self.check(false, format_args!("a server sends no {kind} in {state:?}")),
        }
    }

    /// It is in a namespace, perhaps as who it was before.
    fn come_in(&mut self, said: &Said, at: usize) {
        let namespace = self.places[at].namespace;
        let id = match (said.data["sid"].as_str(), namespace) {
            (Some(id), _) => id.to_owned(),
            (None, "/") => self.sender.sid.clone(),
            (None, _) => format!("{namespace}#{}", self.sender.sid),
        };
        self.check(said.data.is_null() == self.is_v3(), format_args!("only protocol 3 tells no id"));
        let missed = std::mem::take(&mut self.places[at].missed);
        self.places[at].state = State::In(id.clone());
        let before = self.claims.remove(namespace);
        let is_back = before.as_ref().is_some_and(|claim| Some(claim.pid.as_str()) == said.data["pid"].as_str());
        self.note(format_args!("{} {namespace}", if is_back { "back in" } else { "in" }));
        if let Some(claim) = &before {
            let must_be = !is_back && !self.is_troubled && self.must_be_back(claim, namespace);
            self.check(!must_be, format_args!("who comes back in time is who it was"));
            self.check(!is_back || claim.id == id, format_args!("who comes back has its id"));
        }
        if let Some(pid) = said.data["pid"].as_str() {
            let offset = before.filter(|_| is_back).and_then(|claim| claim.offset);
            self.claims.insert(namespace, Claim { sid: self.sender.sid.clone(), id: id.clone(), pid: pid.to_owned(), offset });
        }
        if is_back {
            // Else it was on its way to who it was before in this session.
            missed.iter().for_each(|(said, attachments)| self.hear_news(said, attachments, &id));
        }
    }

    fn must_be_back(&self, claim: &Claim, namespace: &str) -> bool {
        let plan = &self.world.plan;
        // With so little room it may have missed too much.
        let is_roomy = plan.limits.outbox_bytes > 1_000_000 && plan.limits.outbound_bytes > 1_000_000;
        // One that goes with its last client remembers nobody.
        let is_lasting = !(namespace.starts_with("/made") && plan.hub.cleanup_empty_child_namespaces);
        is_roomy && is_lasting && namespace != "/asked" && self.world.ledger.lock().must_recover(&claim.id)
    }

    fn hear_news(&mut self, said: &Said, attachments: &[Vec<u8>], id: &str) {
        let number = said.number(1).expect("a number");
        self.world.ledger.lock().told(id, number);
        let claim = NAMESPACES.iter().find(|name| **name == said.namespace).and_then(|name| self.claims.get_mut(name));
        // As the official client has it: a text that comes last.
        if let Some((claim, offset)) = claim.zip(said.data.as_array().and_then(|args| args.last()?.as_str())) {
            claim.offset = Some(offset.to_owned());
        }
        match said.data[0].as_str() {
            Some("picture") => {
                self.check(attachments == [paint(number)], format_args!("a picture arrives as it was sent"));
            }
            Some("ask") => {
                let ack = said.id.expect("it asks");
                self.send(wire::say("3", &said.namespace, &format!("{ack}[{number}]")));
            }
            _ => {}
        }
    }

    fn hear_ack(&mut self, said: &Said, id: &str, at: usize) {
        let number = said.id.and_then(|ack| self.places[at].awaited.remove(&ack));
        let account = said.number(0).zip(said.number(1));
        match number.zip(account) {
            Some((number, account)) => self.world.ledger.lock().settled(id, account, number),
            None => self.check(false, format_args!("what is asked for is acknowledged, once: {said:?}")),
        }
    }

    pub fn ask(&mut self, namespace: &'static str) {
        if self.places.iter().all(|place| place.namespace != namespace) {
            self.places.push(Place::new(namespace));
        }
        let place = self.places.iter_mut().find(|place| place.namespace == namespace).expect("just put there");
        // In protocol 3 it would come back under the same id, which its former handlers may not have let go.
        let is_new = place.voice == 0 || self.sender.version == Version::V4;
        if place.state != State::Out || !is_new {
            return;
        }
        place.state = State::Asking;
        place.awaited.clear();
        place.missed.clear();
        place.voice = self.world.ledger.lock().new_voice();
        let voice = place.voice;
        self.note(format_args!("asks for {namespace}"));
        if self.is_v3() {
            return self.send(Packet::text(format!("40{namespace}?voice={voice},")));
        }
        let mut auth = serde_json::json!({ "voice": voice });
        if let Some(claim) = self.claims.get(namespace) {
            auth["pid"] = claim.pid.as_str().into();
            if let Some(offset) = &claim.offset {
                auth["offset"] = offset.as_str().into();
            }
            if claim.sid != self.sender.sid {
                // The server may not have noticed that the line was dead.
                self.world.ledger.lock().may_end(&claim.sid, &[CloseReason::TransportError]);
            }
        }
        self.send(wire::say("0", namespace, &auth.to_string()));
    }

    /// Says something somewhere, so that the server is `slow` milliseconds over it.
    pub fn say(&mut self, slow: u64) {
        let Some(at) = self.somewhere() else { return };
        let padding = if self.chance.one_in(8) { 500 } else { 3 };
        let (number, ack) = self.number(at, 2);
        let place = &self.places[at];
        let rest = format!(r#"{ack}["say",{number},{slow},"{}"]"#, "y".repeat(padding));
        self.send_saying(wire::say("2", place.namespace, &rest), Some((place.voice, number + 1)));
    }

    /// Sends a picture.
    pub fn show(&mut self) {
        let Some(at) = self.somewhere() else { return };
        let (number, ack) = self.number(at, 2);
        let place = &self.places[at];
        let says = Some((place.voice, number + 1));
        let packet = Packet::text(match place.namespace {
            "/" => format!(r#"451-{ack}["show",{number},{{"_placeholder":true,"num":0}}]"#),
            name => format!(r#"451-{name},{ack}["show",{number},{{"_placeholder":true,"num":0}}]"#),
        });
        self.send(packet);
        self.send_saying(Packet::Binary(paint(number)), says);
    }

    /// A place that it is in.
    fn somewhere(&mut self) -> Option<usize> {
        let is_in = |(at, place): (usize, &Place)| matches!(place.state, State::In(_)).then_some(at);
        let places: Vec<usize> = self.places.iter().enumerate().filter_map(is_in).collect();
        (!places.is_empty()).then(|| self.chance.pick(&places))
    }

    /// The number of what it says next, and, one time in so many not, the id under which that is to be acknowledged.
    fn number(&mut self, at: usize, unasked: u64) -> (u64, String) {
        let asks = self.settle_by.is_some() || !self.chance.one_in(unasked);
        let place = &mut self.places[at];
        let number = self.world.ledger.lock().say(place.voice);
        if !asks {
            return (number, String::new());
        }
        let ack = place.next_ack;
        place.next_ack += 1;
        place.awaited.insert(ack, number);
        (number, ack.to_string())
    }

    pub fn leave_a_place(&mut self) {
        let Some(at) = self.somewhere() else { return };
        let place = &mut self.places[at];
        place.state = State::Out;
        place.awaited.clear();
        let (namespace, voice) = (place.namespace, place.voice);
        self.world.ledger.lock().left(voice);
        self.note(format_args!("leaves {namespace}"));
        self.send(wire::say("1", namespace, ""));
    }
}
