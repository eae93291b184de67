//! Who may open a session: room on the instance, and one address's share of it.

use crate::metrics::Metrics;
use crate::protocol::limits::Limits;
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Handshakes are counted in windows of this length.
const WINDOW: Duration = Duration::from_secs(1);

/// Addresses remembered before those that hold nothing are swept out.
const SWEEP_AT: usize = 4096;

/// Why a handshake is refused though it is well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The instance drains or stops; another one takes the client.
    #[error("this instance takes no new sessions")]
    Draining,
    /// The number that its sids would name is another's: see [`Hold::NumberTaken`].
    #[error("this instance takes no new sessions")]
    NumberTaken,
    /// `limits.sessions` is reached.
    #[error("too many sessions on this instance")]
    Full,
    /// `limits.sessions_per_address` is reached.
    #[error("too many sessions from this address")]
    AddressFull,
    /// `limits.handshakes_per_second_per_address` is reached.
    #[error("too many handshakes from this address")]
    TooFast,
}

impl Refusal {
    /// 503 where another instance or a later moment helps, 429 where the client is to slow down (RFC 9110, RFC 6585).
    pub const fn status(self) -> u16 {
        match self {
            Self::Draining | Self::NumberTaken | Self::Full => 503,
            Self::AddressFull | Self::TooFast => 429,
        }
    }
}

/// What keeps an instance from being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// It does not know yet whether the number that its sids name is free; it takes sessions meanwhile.
    Joining,
    /// The number is that of an instance at this address; proxies lead the clients of new sessions there, so none are taken.
    NumberTaken(String),
}

/// The gate.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    hold: Option<Hold>,
    sessions: usize,
    addresses: Addresses,
}

#[derive(Debug, Default)]
struct Addresses {
    shares: HashMap<Arc<str>, Share>,
    /// Addresses at which the next sweep is worth its while.
    sweep_at: usize,
}

/// What one address has of the instance.
#[derive(Debug)]
struct Share {
    sessions: usize,
    window: Instant,
    handshakes: u32,
}

/// A session's place; dropping it gives the place back.
#[derive(Debug)]
pub struct Admission {
    gate: Arc<Gate>,
    /// Set when sessions are counted per address.
    address: Option<Arc<str>>,
}

impl Gate {
    pub(super) fn shut(&self) {
        self.lock().is_shut = true;
    }

    pub(super) fn is_shut(&self) -> bool {
        self.lock().is_shut
    }

    pub(super) fn hold(&self, hold: Option<Hold>) {
        self.lock().hold = hold;
    }

    pub(super) fn held(&self) -> Option<Hold> {
        self.lock().hold.clone()
    }

    /// A place for one more session of `address`.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: &str,
        now: Instant,
        limits: &Limits,
        metrics: &Metrics,
    ) -> Result<Admission, Refusal> {
        let mut state = self.lock();
        if state.is_shut {
            metrics.refused_draining.inc();
            return Err(Refusal::Draining);
        }
        if let Some(Hold::NumberTaken(_)) = state.hold {
            metrics.refused_number_taken.inc();
            return Err(Refusal::NumberTaken);
        }
        let State { sessions, addresses, .. } = &mut *state;
        let by_address = limits.sessions_per_address > 0 || limits.handshakes_per_second_per_address > 0;
        let mut share = by_address.then(|| addresses.entry(&network(address), now));
        if let Some((_, share)) = &mut share {
            share.handshakes += 1;
            if limits.handshakes_per_second_per_address > 0 && share.handshakes > limits.handshakes_per_second_per_address {
                metrics.limit_handshakes_per_address.inc();
                return Err(Refusal::TooFast);
            }
            if limits.sessions_per_address > 0 && share.sessions >= limits.sessions_per_address {
                metrics.limit_sessions_per_address.inc();
                return Err(Refusal::AddressFull);
            }
        }
        if limits.sessions > 0 && *sessions >= limits.sessions {
            metrics.limit_sessions.inc();
            return Err(Refusal::Full);
        }
        *sessions += 1;
        let address = share.map(|(address, share)| {
            share.sessions += 1;
            address
        });
        Ok(Admission { gate: Arc::clone(self), address })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code that can panic runs under this lock")
    }
}

/// Whom an address stands for: one IPv6 client has a /64 to choose from.
fn network(address: &str) -> Cow<'_, str> {
    match address.parse::<Ipv6Addr>() {
        Ok(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).to_string().into(),
        Err(_) => address.into(),
    }
}

impl Addresses {
    fn entry(&mut self, address: &str, now: Instant) -> (Arc<str>, &mut Share) {
        let address = match self.shares.get_key_value(address) {
            Some((address, _)) => Arc::clone(address),
            None => {
                self.sweep(now);
                address.into()
            }
        };
        let share = self.shares.entry(Arc::clone(&address)).or_insert(Share { sessions: 0, window: now, handshakes: 0 });
        if share.window + WINDOW <= now {
            share.window = now;
            share.handshakes = 0;
        }
        (address, share)
    }

    fn sweep(&mut self, now: Instant) {
        if self.shares.len() >= self.sweep_at.max(SWEEP_AT) {
            self.shares.retain(|_, share| share.sessions > 0 || share.window + WINDOW > now);
            // Twice of what is left, so that a sweep costs no handshake more than its share.
            self.sweep_at = 2 * self.shares.len();
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.sessions -= 1;
        if let Some(share) = self.address.as_deref().and_then(|address| state.addresses.shares.get_mut(address)) {
            share.sessions -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_opens_so_many_sessions_a_second() {
        let door = Door::new(Limits { handshakes_per_second_per_address: 2, ..Limits::default() });
        let places: Vec<_> = (0..3).map(|_| door.knock("192.0.2.1")).collect();
        assert_eq!(places.iter().filter(|place| place.is_ok()).count(), 2);
        assert_eq!(door.knock("192.0.2.1").err(), Some(Refusal::TooFast));
        assert!(door.knock("192.0.2.2").is_ok());
        tokio::time::advance(WINDOW).await;
        assert!(door.knock("192.0.2.1").is_ok());
        assert_eq!(door.metrics.limit_handshakes_per_address.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_client_does_not_count_anew_with_each_address_of_its_network() {
        let door = Door::new(Limits { sessions_per_address: 1, ..Limits::default() });
        let _first = door.knock("2001:db8:1:2::1").expect("the first");
        assert_eq!(door.knock("2001:db8:1:2:ffff::").err(), Some(Refusal::AddressFull));
        assert!(door.knock("2001:db8:1:3::1").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_comes_back_when_its_session_ends() {
        let door = Door::new(Limits { sessions: 2, sessions_per_address: 1, ..Limits::default() });
        let first = door.knock("192.0.2.1").expect("the first");
        assert_eq!(door.knock("192.0.2.1").err(), Some(Refusal::AddressFull));
        let _second = door.knock("192.0.2.2").expect("another address");
        assert_eq!(door.knock("192.0.2.3").err(), Some(Refusal::Full));
        drop(first);
        assert!(door.knock("192.0.2.1").is_ok());
        assert_eq!((door.metrics.limit_sessions.get(), door.metrics.limit_sessions_per_address.get()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_hold_nothing_are_forgotten() {
        let door = Door::new(Limits { handshakes_per_second_per_address: 1, ..Limits::default() });
        let kept = door.knock("kept").expect("a place");
        for number in 0..3 * SWEEP_AT {
            if number % SWEEP_AT == 0 {
                tokio::time::advance(WINDOW).await;
            }
            drop(door.knock(&number.to_string()));
        }
        let state = door.gate.lock();
        assert!(state.addresses.shares.len() <= 2 * SWEEP_AT && state.addresses.shares.contains_key("kept"));
        drop(state);
        drop(kept);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shut_gate_admits_nobody() {
        let door = Door::new(Limits::default());
        door.gate.shut();
        assert_eq!(door.knock("192.0.2.1").err(), Some(Refusal::Draining));
    }

    struct Door {
        gate: Arc<Gate>,
        limits: Limits,
        metrics: Metrics,
    }

    impl Door {
        fn new(limits: Limits) -> Self {
            Self { gate: Arc::default(), limits, metrics: Metrics::default() }
        }

        fn knock(&self, address: &str) -> Result<Admission, Refusal> {
            self.gate.admit(address, Instant::now(), &self.limits, &self.metrics)
        }
    }
}
