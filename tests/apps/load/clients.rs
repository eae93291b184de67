//! Clients that behave: each counts its echoes in order, answers pings, and calls whatever else it sees a fault.

use super::wire::{Line, WebSocket, open_polling, open_websocket};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An echo that takes longer was lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Each client has an address of its own, this one or one that follows; attackers come from 127.0.0.1.
const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Polling,
    WebSocket,
    /// Polling first, WebSocket for the rest.
    Upgrade,
}

/// Clients that are there all along.
pub struct Fleet {
    ledger: Arc<Ledger>,
    leave: CancellationToken,
    tasks: TaskTracker,
}

/// What the clients have seen.
#[derive(Default)]
pub struct Ledger {
    pub echoes: AtomicU64,
    round_trips: Mutex<RoundTrips>,
    faults: Mutex<Vec<String>>,
}

/// Times from sending an event to reading its echo.
#[derive(Default)]
pub struct RoundTrips {
    pub polling: Vec<Duration>,
    pub websocket: Vec<Duration>,
    /// How late the clients themselves were, by their own clocks: above this nothing can be measured.
    pub late: Vec<Duration>,
}

impl Fleet {
    /// Lets so many clients of each way in, one after the other, each of which sends an event every `interval`.
    pub async fn start(address: SocketAddr, crowd: &[(Way, usize)], interval: Duration) -> Self {
        let fleet = Self { ledger: Arc::default(), leave: CancellationToken::new(), tasks: TaskTracker::new() };
        let total: usize = crowd.iter().map(|(_, count)| count).sum();
        for (number, way) in crowd.iter().flat_map(|&(way, count)| std::iter::repeat_n(way, count)).enumerate() {
            let source = Ipv4Addr::from_bits(FIRST_CLIENT.to_bits() + number as u32);
            let client = Client {
                address,
                source,
                ledger: Arc::clone(&fleet.ledger),
                leave: fleet.leave.clone(),
                interval,
                most: u64::MAX,
            };
            fleet.tasks.spawn(client.visit(way));
            // Spread over the interval, or they would all send at once for ever.
            sleep(interval / total as u32).await;
        }
        fleet
    }

    /// Somebody who comes, hears `most` echoes, and goes, again and again until `leave`.
    pub fn visitor(&self, address: SocketAddr, way: Way, most: u64, leave: CancellationToken) {
        let ledger = Arc::clone(&self.ledger);
        self.tasks.spawn(async move {
            while !leave.is_cancelled() {
                let client = Client {
                    address,
                    source: FIRST_CLIENT,
                    ledger: Arc::clone(&ledger),
                    leave: leave.clone(),
                    interval: Duration::from_millis(5),
                    most,
                };
                client.visit(way).await;
            }
        });
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// All of them hear their last echoes and go.
    pub async fn leave(self) -> Arc<Ledger> {
        self.leave.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.ledger
    }
}

impl Ledger {
    /// The round trips since the last call.
    pub fn take_round_trips(&self) -> RoundTrips {
        std::mem::take(&mut lock(&self.round_trips))
    }

    pub fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    fn echoed(&self, way: Way, took: Duration) {
        self.echoes.fetch_add(1, Relaxed);
        let mut trips = lock(&self.round_trips);
        if way == Way::Polling { trips.polling.push(took) } else { trips.websocket.push(took) }
    }

    fn sent(&self, late: Duration) {
        lock(&self.round_trips).late.push(late);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code that can panic runs under this lock")
}

struct Client {
    address: SocketAddr,
    source: Ipv4Addr,
    ledger: Arc<Ledger>,
    leave: CancellationToken,
    interval: Duration,
    /// Echoes after which it goes.
    most: u64,
}

/// What was sent and has not come back yet.
#[derive(Default)]
struct Talk {
    sent: VecDeque<Instant>,
    said: u64,
    heard: u64,
    owes_pong: bool,
}

impl Talk {
    fn say(&mut self, client: &Client, due: Instant) -> String {
        let now = Instant::now();
        client.ledger.sent(now - due);
        self.sent.push_back(now);
        self.said += 1;
        format!("42[\"message\",{}]", self.said)
    }

    fn hear(&mut self, client: &Client, way: Way, packet: &str) -> io::Result<()> {
        self.heard += 1;
        if packet != format!("42[\"message-back\",{}]", self.heard) {
            return Err(io::Error::other(format!("in place of echo {}: {packet}", self.heard)));
        }
        let sent = self.sent.pop_front().ok_or_else(|| io::Error::other("an echo of nothing"))?;
        client.ledger.echoed(way, sent.elapsed());
        Ok(())
    }

    /// When the oldest echo is lost.
    fn lost_at(&self) -> Instant {
        self.sent.front().map_or_else(|| Instant::now() + PATIENCE, |sent| *sent + PATIENCE)
    }
}

impl Client {
    async fn visit(self, way: Way) {
        if let Err(error) = self.converse(way).await {
            lock(&self.ledger.faults).push(format!("{way:?}: {error}"));
        }
    }

    async fn converse(&self, way: Way) -> io::Result<()> {
        match way {
            Way::Polling => {
                let (line, query) = in_time(self.join_polling()).await?;
                self.poll(line, &query).await
            }
            Way::WebSocket => {
                let socket = in_time(async { open_websocket(self.connect().await?).await }).await?;
                self.talk(socket).await
            }
            Way::Upgrade => self.talk(in_time(self.upgrade()).await?).await,
        }
    }

    async fn connect(&self) -> io::Result<Line> {
        Line::connect_from(self.source, self.address).await
    }

    /// A polling session in the main namespace, its first packets read.
    async fn join_polling(&self) -> io::Result<(Line, String)> {
        let mut line = self.connect().await?;
        let query = open_polling(&mut line).await?;
        line.post(&query, "40").await?;
        let mut packets = 0;
        while packets < 2 {
            packets += line.get(&query).await?.text().split('\u{1e}').count();
        }
        Ok((line, query))
    }

    async fn upgrade(&self) -> io::Result<WebSocket> {
        let (_, query) = self.join_polling().await?;
        let mut socket = WebSocket::open(self.connect().await?, &query.replace("polling", "websocket")).await?;
        socket.send("2probe").await?;
        if socket.text().await? != "3probe" {
            return Err(io::Error::other("the probe was not answered"));
        }
        socket.send("5").await?;
        Ok(socket)
    }

    fn is_leaving(&self, talk: &Talk) -> bool {
        self.leave.is_cancelled() || talk.said >= self.most
    }

    fn is_done(&self, talk: &Talk) -> bool {
        self.is_leaving(talk) && talk.sent.is_empty()
    }

    async fn talk(&self, mut socket: WebSocket) -> io::Result<()> {
        let mut talk = Talk::default();
        let mut due = Instant::now();
        loop {
            if self.is_done(&talk) {
                // As the official client leaves: the namespace, then the line.
                return socket.send("41").await;
            }
            let is_leaving = self.is_leaving(&talk);
            tokio::select! {
                text = socket.text() => match &*text? {
                    "2" => socket.send("3").await?,
                    packet => talk.hear(self, Way::WebSocket, packet)?,
                },
                () = sleep_until(due), if !is_leaving => {
                    let event = talk.say(self, due);
                    socket.send(&event).await?;
                    due = (due + self.interval).max(Instant::now());
                }
                () = self.leave.cancelled(), if !is_leaving => {}
                () = sleep_until(talk.lost_at()) => return Err(lost(&talk)),
            }
        }
    }

    /// Polls on one line and posts on another.
    async fn poll(&self, polls: Line, query: &str) -> io::Result<()> {
        let posts = self.connect().await?;
        let talk = Mutex::default();
        let heard = Notify::new();
        tokio::try_join!(self.hear(polls, query, &talk, &heard), self.say(posts, query, &talk, &heard)).map(drop)
    }

    async fn hear(&self, mut line: Line, query: &str, talk: &Mutex<Talk>, heard: &Notify) -> io::Result<()> {
        loop {
            let answer = line.get(query).await?;
            if answer.status == 400 && self.is_done(&lock(talk)) {
                // Our own close was faster than this poll.
                return Ok(());
            }
            if answer.status != 200 {
                return Err(io::Error::other(format!("a poll was answered {} {}", answer.status, answer.text())));
            }
            for packet in answer.text().split('\u{1e}') {
                let mut talk = lock(talk);
                match packet {
                    "2" => talk.owes_pong = true,
                    // The session was closed, which is right if it was us who closed it.
                    "1" | "6" if self.is_done(&talk) => return Ok(()),
                    packet => talk.hear(self, Way::Polling, packet)?,
                }
            }
            heard.notify_one();
        }
    }

    async fn say(&self, mut line: Line, query: &str, talk: &Mutex<Talk>, heard: &Notify) -> io::Result<()> {
        let mut due = Instant::now();
        loop {
            let (is_leaving, is_done, owes_pong, lost_at) = {
                let mut talk = lock(talk);
                (self.is_leaving(&talk), self.is_done(&talk), std::mem::take(&mut talk.owes_pong), talk.lost_at())
            };
            let body = if owes_pong {
                "3".to_owned()
            } else if is_done {
                "1".to_owned()
            } else {
                tokio::select! {
                    () = heard.notified() => continue,
                    () = sleep_until(due), if !is_leaving => {
                        let event = lock(talk).say(self, due);
                        due = (due + self.interval).max(Instant::now());
                        event
                    }
                    () = self.leave.cancelled(), if !is_leaving => continue,
                    () = sleep_until(lost_at) => return Err(lost(&lock(talk))),
                }
            };
            let answer = in_time(line.post(query, &body)).await?;
            if answer.text() != "ok" {
                return Err(io::Error::other(format!("a POST was answered {} {}", answer.status, answer.text())));
            }
            if is_done && !owes_pong {
                return Ok(());
            }
        }
    }
}

fn lost(talk: &Talk) -> io::Error {
    io::Error::other(format!("echo {} did not come", talk.heard + 1))
}

async fn in_time<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, future).await.map_err(io::Error::other)?
}
