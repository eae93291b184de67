//! SIGHUP: the configuration is read again, and what a running process can take of it counts from then on.

use crate::config::{Config, Reloaded, Sources};
use crate::current::Current;
use crate::http::cors::Cors;
use crate::protocol::limits::Limits;
use crate::systemd::Systemd;
use crate::telemetry::Log;
use std::io;
use tokio::signal::unix::{self, SignalKind};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

/// The signal that asks for it, caught from here on.
#[derive(Debug)]
pub struct Hangups(unix::Signal);

impl Hangups {
    /// Catches it; before that it kills, so do it before anything is bound.
    ///
    /// # Errors
    /// The operating system refuses.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn catch() -> io::Result<Self> {
        unix::signal(SignalKind::hangup()).map(Self)
    }
}

/// What a process runs with, and where what may change is held.
#[derive(Debug)]
pub struct Running {
    /// The settings that count now.
    pub config: Config,
    /// Where they are read.
    pub sources: Sources,
    /// Has `log.level`.
    pub log: Log,
    /// The table `[limits]`: counts of sessions and of parameters hold at once, the rest of it for new connections and sessions.
    pub limits: Current<Limits>,
    /// The table `[cors]`, which holds at once.
    pub cors: Current<Cors>,
    /// Whose pages are ours, too, and stay so.
    pub page_port: Option<u16>,
}

impl Running {
    /// Reloads at each signal, for as long as the process lives.
    pub async fn reload_at(mut self, mut hangups: Hangups, systemd: Systemd) {
        while hangups.0.recv().await.is_some() {
            systemd.reloading(self.reload()).await;
        }
    }

    async fn reload(&mut self) {
        let (config, sources) = (self.config.clone(), self.sources.clone());
        // A file may be on a disk that does not answer.
        let read = spawn_blocking(move || config.reload(sources)).await.expect("it does not panic");
        match read {
            Ok(reloaded) => self.take(reloaded),
            Err(wrong) => {
                let problems: Vec<_> = wrong.problems.iter().map(ToString::to_string).collect();
                error!("nothing is reloaded, the configuration is wrong: {}", problems.join("; "));
            }
        }
    }

    fn take(&mut self, Reloaded { config, now, later }: Reloaded) {
        self.log.set_level(&config.log).expect("checked when the configuration was loaded");
        self.limits.set(config.limits.clone());
        self.cors.set(Cors::new(config.cors.clone(), self.page_port));
        self.config = config;
        if now.is_empty() {
            info!("reloaded: nothing changes");
        } else {
            info!("reloaded: {}", now.join(", "));
        }
        if !later.is_empty() {
            warn!("takes effect at the next start: {}", later.join(", "));
        }
    }
}
