//! What systemd is told: that we are ready, how much we do, that we are alive, and that we go.

use crate::metrics::Metrics;
use crate::shutdown::{Phase, Shutdown};
use sd_notify::NotifyState;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::iter;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How often to look for news for `systemctl status`, each of which travels over D-Bus.
const LOOK: Duration = Duration::from_secs(5);

/// systemd, or whoever else understands `sd_notify(3)`; clones speak to the same one, and the default to nobody.
#[derive(Debug, Clone, Default)]
pub struct Systemd {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Whoever started this process, if they asked to be told.
    pub fn of_this_process() -> Self {
        let connected = std::env::var_os("NOTIFY_SOCKET").map(|address| connect(&address)).transpose();
        let socket = connected.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot reach NOTIFY_SOCKET: systemd is not told how far we are");
            None
        });
        Self { socket: socket.map(Arc::new), watchdog: sd_notify::watchdog_enabled() }
    }

    /// How often to give it a [beat](Self::beat): three times in the time after which it kills. `sd_watchdog_enabled(3)` advises twice, for beats that are
    /// never lost.
    pub fn beat_interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 3).filter(|interval| !interval.is_zero())
    }

    /// Says that the process is alive; to be called by what must not stand still.
    pub fn beat(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Says that clients may come, then how many are here, and that the process goes, as soon as it is asked to; returns never.
    pub async fn report(self, metrics: Arc<Metrics>, shutdown: Shutdown) -> Infallible {
        let mut phase = shutdown.subscribe();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_ready, mut is_stopping, mut said) = (false, false, String::new());
        loop {
            // For the next look at the numbers, the first of which is now, or for a word to go.
            tokio::select! {
                _ = looks.tick() => {}
                _ = phase.changed() => {}
            }
            let now = shutdown.phase();
            let status = status(now, &metrics);
            let mut news = Vec::new();
            if !is_ready {
                news.push(NotifyState::Ready);
            }
            if now == Phase::Stopping && !is_stopping {
                news.push(NotifyState::Stopping);
            }
            if status != said {
                news.push(NotifyState::Status(&status));
            }
            // What was not heard is said again at the next look.
            if !news.is_empty() && self.tell(&news) {
                (is_ready, is_stopping, said) = (true, now == Phase::Stopping, status);
            }
        }
    }

    /// Says that settings are read again while `work` does so, and then that clients are served as before.
    pub async fn reloading(&self, work: impl Future<Output = ()>) {
        let since = NotifyState::monotonic_usec_now();
        let news: Vec<_> = iter::once(NotifyState::Reloading).chain(since).collect();
        self.tell(&news);
        work.await;
        // It waits for this word, and of several in one message it would take the last.
        while !self.tell(&[NotifyState::Ready]) {
            sleep(LOOK).await;
        }
    }

    /// Whether it was heard; nobody here waits for that.
    fn tell(&self, states: &[NotifyState<'_>]) -> bool {
        let Some(socket) = &self.socket else { return true };
        let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
        match socket.send(lines.as_bytes()) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "systemd does not listen");
                false
            }
        }
    }
}

/// The line in `systemctl status`.
fn status(phase: Phase, metrics: &Metrics) -> String {
    let doing = match phase {
        Phase::Running => "serving",
        Phase::Draining => "draining",
        Phase::Stopping => "stopping",
    };
    let Metrics { sessions, sessions_websocket, sockets, rooms, .. } = metrics;
    format!(
        "{doing}: {} sessions ({} over WebSocket), {} clients, {} rooms",
        sessions.get(),
        sessions_websocket.get(),
        sockets.get(),
        rooms.get()
    )
}

/// A socket that never waits: with a queue that systemd does not empty, a beat would stop what it is to watch.
/// Whether standard output goes to the journal: `JOURNAL_STREAM` names that, but also for whoever was started with another one.
pub fn has_stdout() -> bool {
    let stdout = fs::metadata("/proc/self/fd/1").map(|stdout| format!("{}:{}", stdout.dev(), stdout.ino()));
    stdout.is_ok_and(|stdout| std::env::var_os("JOURNAL_STREAM").is_some_and(|journal| journal == *stdout))
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_three_times_in_the_time_that_it_waits() {
        let watched = |watchdog| Systemd { socket: None, watchdog }.beat_interval();
        assert_eq!(watched(Some(Duration::from_secs(30))), Some(Duration::from_secs(10)));
        assert_eq!(watched(Some(Duration::ZERO)), None);
        assert_eq!(watched(None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_is_news_only_when_it_changes() {
        let (systemd, heard) = pair();
        let metrics = Arc::new(Metrics::default());
        let shutdown = Shutdown::new();
        tokio::spawn(systemd.report(Arc::clone(&metrics), shutdown.clone()));
        let quiet = "serving: 0 sessions (0 over WebSocket), 0 clients, 0 rooms";
        assert_eq!(next(&heard).await, format!("READY=1\nSTATUS={quiet}\n"));
        tokio::time::sleep(10 * LOOK).await;
        metrics.sessions.add(3);
        metrics.sessions_websocket.add(2);
        metrics.sockets.add(4);
        metrics.rooms.add(5);
        assert_eq!(next(&heard).await, "STATUS=serving: 3 sessions (2 over WebSocket), 4 clients, 5 rooms\n");
        shutdown.enter(Phase::Draining);
        assert_eq!(next(&heard).await, "STATUS=draining: 3 sessions (2 over WebSocket), 4 clients, 5 rooms\n");
        shutdown.enter(Phase::Stopping);
        assert_eq!(next(&heard).await, "STOPPING=1\nSTATUS=stopping: 3 sessions (2 over WebSocket), 4 clients, 5 rooms\n");
        metrics.sessions.add(-3);
        assert_eq!(next(&heard).await, "STATUS=stopping: 0 sessions (2 over WebSocket), 4 clients, 5 rooms\n");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_full_queue_has_no_room_for_is_said_again() {
        let (systemd, heard) = pair();
        while systemd.tell(&[NotifyState::Watchdog]) {}
        let metrics = Arc::new(Metrics::default());
        tokio::spawn(systemd.report(metrics, Shutdown::new()));
        tokio::time::sleep(3 * LOOK).await;
        let mut said = String::from("WATCHDOG=1\n");
        while said == "WATCHDOG=1\n" {
            said = next(&heard).await;
        }
        assert!(said.starts_with("READY=1\n"), "{said}");
    }

    #[test]
    fn its_address_may_be_abstract() {
        let name = format!("stickyport-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let heard = UnixDatagram::bind_addr(&address).expect("bound");
        let socket = connect(OsStr::new(&format!("@{name}"))).expect("connected");
        Systemd { socket: Some(socket.into()), watchdog: None }.beat();
        let mut buffer = [0; 64];
        let length = heard.recv(&mut buffer).expect("heard");
        assert_eq!(buffer.get(..length), Some(&b"WATCHDOG=1\n"[..]));
    }

    fn pair() -> (Systemd, UnixDatagram) {
        let (socket, heard) = UnixDatagram::pair().expect("a pair");
        socket.set_nonblocking(true).expect("set");
        heard.set_nonblocking(true).expect("set");
        (Systemd { socket: Some(socket.into()), watchdog: None }, heard)
    }

    /// What it hears next; the clock goes on when there is nothing else to do.
    async fn next(heard: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        for _ in 0..1000 {
            match heard.recv(&mut buffer) {
                Ok(length) => return String::from_utf8_lossy(buffer.get(..length).expect("read")).into_owned(),
                Err(_) => tokio::time::sleep(LOOK / 10).await,
            }
        }
        panic!("nothing was said")
    }
}
