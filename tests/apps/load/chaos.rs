//! What the soak does to the server: sessions of every kind that are cut, stalled, flooded or made of garbage, from one process.

use super::wire::{self, Line, WebSocket, frame, frame_head, join, open_polling, open_websocket};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How many of each kind are at it at any time.
const ACTORS: [(Kind, usize); 9] = [
    (Kind::Visit, 40),
    (Kind::Crowd, 2),
    (Kind::Flood, 3),
    (Kind::Deaf, 8),
    (Kind::Stall, 60),
    (Kind::Garbage, 20),
    (Kind::HalfOpen, 20),
    (Kind::Abandon, 5),
    (Kind::Shout, 1),
];

/// Connections that a crowd opens at once.
const CROWD: usize = 300;
/// What a deaf client asks to be told.
const LARGE: usize = 50_000;

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Comes, talks, and goes, each step of it the last one at times.
    Visit,
    /// Hundreds at once that connect and go.
    Crowd,
    /// Sends as fast as it can, and reads.
    Flood,
    /// Asks for more and more and reads nothing.
    Deaf,
    /// Stops in the middle of something.
    Stall,
    /// Random bytes as HTTP, as WebSocket, as Engine.IO, as Socket.IO.
    Garbage,
    /// Has said all that it will ever say, and stays.
    HalfOpen,
    /// Opens polling sessions and never polls.
    Abandon,
    /// Sends large events to everybody in the namespace of the deaf.
    Shout,
}

/// Does harm for so long; what is returned is the number of connections that it took.
pub async fn run(address: SocketAddr, time: Duration, seed: u64) -> u64 {
    let until = Instant::now() + time;
    let world = Arc::new(World { address, connections: AtomicU64::new(0) });
    let mut tasks = JoinSet::new();
    for (number, kind) in ACTORS.iter().flat_map(|&(kind, count)| std::iter::repeat_n(kind, count)).enumerate() {
        let mut actor = Actor { world: Arc::clone(&world), rng: Rng::new(seed ^ (number as u64 + 1) << 32) };
        tasks.spawn(async move {
            while Instant::now() < until {
                // Whatever the server does about it, the next one comes; how it goes is told by the server's side.
                let _ = timeout_at(until, actor.act(kind)).await;
                let pause = actor.rng.below(50);
                sleep(Duration::from_millis(pause)).await;
            }
        });
    }
    tasks.join_all().await;
    world.connections.load(Relaxed)
}

struct World {
    address: SocketAddr,
    connections: AtomicU64,
}

struct Actor {
    world: Arc<World>,
    rng: Rng,
}

impl Actor {
    async fn act(&mut self, kind: Kind) -> io::Result<()> {
        match kind {
            Kind::Visit => self.visit().await,
            Kind::Crowd => self.crowd().await,
            Kind::Flood => self.flood().await,
            Kind::Deaf => self.deaf().await,
            Kind::Stall => self.stall().await,
            Kind::Garbage => self.garbage().await,
            Kind::HalfOpen => self.half_open().await,
            Kind::Abandon => self.abandon().await,
            Kind::Shout => self.shout().await,
        }
    }

    async fn connect(&self) -> io::Result<Line> {
        self.world.connections.fetch_add(1, Relaxed);
        Line::connect(self.world.address).await
    }

    async fn visit(&mut self) -> io::Result<()> {
        let mut line = self.connect().await?;
        if self.rng.one_in(3) {
            let mut socket = open_websocket(line).await?;
            for _ in 0..self.rng.below(20) {
                socket.send(r#"42["message","hello"]"#).await?;
                if self.rng.one_in(2) {
                    socket.text().await?;
                }
            }
            return self.part(socket.line).await;
        }
        let query = open_polling(&mut line).await?;
        if self.rng.one_in(8) {
            return self.part(line).await;
        }
        line.post(&query, "40\u{1e}40/custom,").await?;
        line.get(&query).await?;
        if self.rng.one_in(2) {
            let body = vec![r#"42["message","hello"]"#; self.rng.below(50) as usize + 1].join("\u{1e}");
            line.post(&query, body).await?;
            line.get(&query).await?;
        }
        if self.rng.one_in(2) {
            let candidate = self.connect().await?;
            let mut socket = WebSocket::open(candidate, &query.replace("polling", "websocket")).await?;
            if self.rng.one_in(4) {
                return self.part(socket.line).await;
            }
            socket.send("2probe").await?;
            socket.text().await?;
            if self.rng.one_in(4) {
                return self.part(socket.line).await;
            }
            socket.send("5").await?;
            socket.send(r#"42["message","upgraded"]"#).await?;
            socket.text().await?;
            self.part(socket.line).await?;
        }
        if self.rng.one_in(3) {
            // A parked GET, and nobody there any more.
            line.write(wire::get(&query)).await?;
        }
        self.part(line).await
    }

    async fn crowd(&mut self) -> io::Result<()> {
        let mut lines = Vec::new();
        let request =
            if self.rng.one_in(2) { wire::upgrade("EIO=4&transport=websocket") } else { wire::get("EIO=4&transport=polling") };
        let is_silent = self.rng.one_in(4);
        for _ in 0..CROWD {
            let mut line = self.connect().await?;
            if !is_silent {
                line.write(&request).await?;
            }
            lines.push(line);
        }
        for line in lines {
            self.part(line).await?;
        }
        sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    async fn flood(&mut self) -> io::Result<()> {
        let socket = open_websocket(self.connect().await?).await?;
        let event = frame(1, br#"42["message","flood"]"#).repeat(1000);
        let (mut reader, mut writer) = socket.line.stream.into_split();
        let writing = async {
            for _ in 0..20 {
                writer.write_all(&event).await?;
            }
            writer.shutdown().await
        };
        let reading = async { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.map(drop) };
        tokio::try_join!(writing, reading).map(drop)?;
        sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    async fn deaf(&mut self) -> io::Result<()> {
        self.world.connections.fetch_add(1, Relaxed);
        let mut line = Line::narrow(self.world.address).await?;
        let event = format!("42/custom,[\"message\",\"{}\"]", "x".repeat(LARGE));
        if self.rng.one_in(2) {
            let mut socket = open_websocket(line).await?;
            join(&mut socket, "/custom,").await?;
            if self.rng.one_in(2) {
                // Others talk to it.
                return self.hold(socket.line).await;
            }
            loop {
                socket.send(&event).await?;
            }
        }
        let query = open_polling(&mut line).await?;
        line.post(&query, "40/custom,").await?;
        while line.post(&query, &event).await?.status == 200 {}
        Ok(())
    }

    async fn shout(&mut self) -> io::Result<()> {
        let mut socket = open_websocket(self.connect().await?).await?;
        join(&mut socket, "/custom,").await?;
        let event = format!("42/custom,[\"broadcast\",\"{}\"]", "x".repeat(LARGE));
        for _ in 0..100 {
            socket.send(&event).await?;
            socket.text().await?;
            sleep(Duration::from_millis(30)).await;
        }
        self.part(socket.line).await
    }

    async fn stall(&mut self) -> io::Result<()> {
        let mut line = self.connect().await?;
        match self.rng.below(9) {
            0 => {}
            1 => line.write("GET /socket.io/?EIO=4&tra").await?,
            2 => line.write("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: load\r\nX-").await?,
            3 => {
                let query = open_polling(&mut line).await?;
                line.write(wire::post_head(&query, 1000) + "42[\"message\",").await?;
            }
            4 => {
                let query = open_polling(&mut line).await?;
                let candidate = wire::upgrade(&query.replace("polling", "websocket"));
                let part = self.rng.below(candidate.len() as u64) as usize;
                line.write(candidate.as_bytes().get(..part).unwrap_or_default()).await?;
            }
            5 => {
                let query = open_polling(&mut line).await?;
                let mut socket = WebSocket::open(self.connect().await?, &query.replace("polling", "websocket")).await?;
                let steps = [frame(1, b"2probe"), frame(1, b"5")].concat();
                let part = self.rng.below(steps.len() as u64) as usize;
                socket.line.write(steps.get(..part).unwrap_or_default()).await?;
                self.hold(socket.line).await?;
            }
            6 => {
                let mut socket = open_websocket(line).await?;
                socket.line.write(frame_head(1, 100_000)).await?;
                let started = vec![b'x'; self.rng.below(90_000) as usize];
                socket.line.write(started).await?;
                return self.hold(socket.line).await;
            }
            7 => {
                let mut socket = open_websocket(line).await?;
                socket.send(r#"4510-["message",{"_placeholder":true,"num":0}]"#).await?;
                for _ in 0..self.rng.below(10) {
                    socket.line.write(frame(2, &[7; 10_000])).await?;
                }
                return self.hold(socket.line).await;
            }
            _ => {
                let query = open_polling(&mut line).await?;
                line.write("POST /socket.io/?").await?;
                line.write(query + " HTTP/1.1\r\nHost: load\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n42").await?;
            }
        }
        self.hold(line).await
    }

    async fn garbage(&mut self) -> io::Result<()> {
        let mut line = self.connect().await?;
        let length = self.rng.below(3000) as usize;
        let bytes = self.rng.bytes(length);
        match self.rng.below(5) {
            0 => line.write(&bytes).await?,
            1 => {
                let mut request = wire::get("EIO=4&transport=polling").into_bytes();
                for _ in 0..3 {
                    let at = self.rng.below(request.len() as u64) as usize;
                    request[at] = self.rng.next() as u8;
                }
                line.write(request).await?;
            }
            2 => {
                let mut socket = open_websocket(line).await?;
                socket.line.write(&bytes).await?;
                line = socket.line;
            }
            3 => {
                let mut socket = open_websocket(line).await?;
                let text = self.rng.text();
                socket.send(&text).await?;
                line = socket.line;
            }
            _ => {
                let query = open_polling(&mut line).await?;
                line.post(&query, "40").await?;
                let body = if self.rng.one_in(2) { bytes } else { self.rng.text().into_bytes() };
                line.write(wire::post(&query, &body)).await?;
            }
        }
        let _ = timeout(Duration::from_millis(200), line.drain()).await;
        self.part(line).await
    }

    async fn half_open(&mut self) -> io::Result<()> {
        let mut line = self.connect().await?;
        match self.rng.below(4) {
            0 => {}
            1 => line.write(wire::get("EIO=4&transport=polling")).await?,
            2 => {
                let query = open_polling(&mut line).await?;
                line.post(&query, "40").await?;
                line.get(&query).await?;
                line.write(wire::get(&query)).await?;
            }
            _ => line = open_websocket(line).await?.line,
        }
        line.half_close();
        let _ = timeout(Duration::from_secs(10), line.drain()).await;
        self.part(line).await
    }

    async fn abandon(&mut self) -> io::Result<()> {
        let mut line = self.connect().await?;
        for _ in 0..50 {
            let query = open_polling(&mut line).await?;
            line.post(&query, "40\u{1e}42[\"message\",\"nobody will read this\"]").await?;
        }
        sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    /// Stays as it is for some time.
    async fn hold(&mut self, line: Line) -> io::Result<()> {
        let most = self.rng.below(8_000);
        sleep(Duration::from_millis(most)).await;
        self.part(line).await
    }

    /// Goes with a reset, with an end, or only for one direction until the server has had enough.
    async fn part(&mut self, mut line: Line) -> io::Result<()> {
        match self.rng.below(4) {
            0 | 1 => line.reset(),
            2 => drop(line),
            _ => {
                line.half_close();
                let _ = timeout(Duration::from_millis(500), line.drain()).await;
            }
        }
        Ok(())
    }
}

/// xorshift64*: the same chaos for the same seed, as far as the kernel allows.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Something that begins as a packet does.
    fn text(&mut self) -> String {
        const PIECES: &[&str] = &[
            "4",
            "0",
            "1",
            "2",
            "3",
            "5",
            "6",
            "40",
            "41",
            "42",
            "43",
            "44",
            "451-",
            "4510-",
            "459999-",
            "/custom,",
            "/nowhere,",
            "[",
            "]",
            "{",
            "}",
            "\"message\"",
            "\"connect\"",
            ",",
            "null",
            "1e999",
            "\\u",
            "\u{1e}",
            "b",
            "bAAA=",
            "é",
            "\u{1f30d}",
            "_placeholder",
            ":",
            "{\"_placeholder\":true,\"num\":0}",
        ];
        (0..=self.below(12)).map(|_| PIECES[self.below(PIECES.len() as u64) as usize]).collect()
    }
}
