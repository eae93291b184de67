//! The two ways to go, as a phase that only moves forward and that anyone may wait for.

use std::fmt;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::watch;

/// Time for requests in flight and last words, after all sessions were closed; a stop is not to hang on a client that does not read.
pub const GRACE: Duration = Duration::from_secs(5);

/// Where the process stands between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Not ready, taking no handshakes, letting clients go one after the other; then waiting to be stopped.
    Draining,
    /// Accepting nothing, closing what is open, and then gone.
    Stopping,
}

/// The phase of this process; clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Running) }
    }
}

impl Shutdown {
    /// A process that is running.
    pub fn new() -> Self {
        Self::default()
    }

    /// A process that goes when it is signalled: see [`Signals`].
    ///
    /// # Errors
    /// The operating system refuses to tell of signals.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        tokio::spawn(Signals::catch()?.drive(shutdown.clone()));
        Ok(shutdown)
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes to a later phase; an earlier one changes nothing.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    /// Waits until the process is in that phase or a later one.
    pub async fn reached(&self, phase: Phase) {
        self.phase.subscribe().wait_for(|now| *now >= phase).await.expect("the sender is borrowed here");
    }

    /// The phase as a channel, for a loop that wants to see every change.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// What the outside asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGUSR1.
    Drain,
    /// SIGTERM or SIGINT (Ctrl-C), with its number.
    Stop(i32),
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::Drain => "SIGUSR1",
            Self::Stop(signal) if signal == SignalKind::interrupt().as_raw_value() => "SIGINT",
            Self::Stop(_) => "SIGTERM",
        })
    }
}

/// What follows from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Enter the phase.
    Enter(Phase),
    /// Leave at once with this exit code, whatever is still open.
    Exit(i32),
    /// It was asked before.
    Nothing,
}

/// Stop stops in place, a second stop does not wait for the first, and drain comes only before a stop.
pub const fn step(phase: Phase, request: Request) -> Step {
    match (phase, request) {
        (Phase::Running, Request::Drain) => Step::Enter(Phase::Draining),
        (Phase::Draining | Phase::Stopping, Request::Drain) => Step::Nothing,
        (Phase::Running | Phase::Draining, Request::Stop(_)) => Step::Enter(Phase::Stopping),
        // A shell reports death by a signal as 128 and its number.
        (Phase::Stopping, Request::Stop(signal)) => Step::Exit(128 + signal),
    }
}

/// The signals that ask this process to go, caught from here on.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    drain: unix::Signal,
}

impl Signals {
    /// Catches them; before that each of them kills, so do it before anything is bound.
    ///
    /// # Errors
    /// The operating system refuses.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            drain: unix::signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop(SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => Request::Stop(SignalKind::interrupt().as_raw_value()),
            _ = self.drain.recv() => Request::Drain,
        }
    }

    /// Moves the phase as the signals ask, for as long as the process lives; ends the process itself when it is asked twice to stop.
    pub async fn drive(mut self, shutdown: Shutdown) {
        loop {
            let request = self.next().await;
            match step(shutdown.phase(), request) {
                Step::Enter(phase) => {
                    shutdown.enter(phase);
                    tracing::info!(%request, ?phase, "asked to go");
                }
                Step::Exit(code) => {
                    tracing::warn!("asked twice to stop, leaving at once");
                    std::process::exit(code);
                }
                Step::Nothing => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drain_comes_before_stop_and_a_second_stop_is_at_once() {
        assert_eq!(step(Phase::Running, Request::Drain), Step::Enter(Phase::Draining));
        assert_eq!(step(Phase::Draining, Request::Drain), Step::Nothing);
        assert_eq!(step(Phase::Draining, Request::Stop(15)), Step::Enter(Phase::Stopping));
        assert_eq!(step(Phase::Running, Request::Stop(2)), Step::Enter(Phase::Stopping));
        assert_eq!(step(Phase::Stopping, Request::Drain), Step::Nothing);
        assert_eq!(step(Phase::Stopping, Request::Stop(2)), Step::Exit(130));
    }

    #[test]
    fn a_phase_only_moves_forward() {
        let shutdown = Shutdown::new();
        shutdown.enter(Phase::Stopping);
        shutdown.enter(Phase::Draining);
        assert_eq!(shutdown.phase(), Phase::Stopping);
    }

    #[tokio::test]
    async fn a_later_phase_counts_as_reached() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.reached(Phase::Draining).await }
        });
        shutdown.enter(Phase::Stopping);
        waiting.await.expect("no panic");
        shutdown.reached(Phase::Running).await;
    }

    #[tokio::test]
    async fn a_signal_moves_the_phase() {
        let shutdown = Shutdown::new();
        let driver = tokio::spawn(Signals::catch().expect("signals").drive(shutdown.clone()));
        // The shell's own `kill`: the program is not on every system.
        let kill = format!("kill -USR1 {}", std::process::id());
        std::process::Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        shutdown.reached(Phase::Draining).await;
        assert_eq!(shutdown.phase(), Phase::Draining);
        driver.abort();
    }
}
