//! What the floods do to the server, one kind at a time, from a process of its own.

use super::wire::{self, Line, WebSocket, frame, open_polling, open_websocket};
use clap::ValueEnum;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval, sleep, sleep_until};

/// The default of `engine.max_payload`, and of `limits.packets_per_payload`.
const MAX_PAYLOAD: usize = 1_000_000;
const MAX_PACKETS: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// 3,000 connections, each of which sends a byte of its headers every second.
    SlowHeaders,
    /// 1,000 sessions, each of which sends a byte of its POST ten times a second.
    SlowBodies,
    /// 15,000 connections that say nothing, each opened again when it is closed.
    Idle,
    /// Polling handshakes over 64 connections, each as fast as it is answered.
    Handshakes,
    /// Polling handshakes, a new connection for each, 64 at a time.
    NewHandshakes,
    /// WebSocket handshakes, 64 at a time, the session reset when it is open.
    WebSocketHandshakes,
    /// TCP connections that are reset when they are open, 64 at a time.
    Connects,
    /// POSTs and messages just under the limit, over 4 connections each way, each as fast as it is taken.
    Giants,
    /// The same just over the limit.
    TooLarge,
    /// POSTs of as many packets as are allowed, over 4 sessions.
    Packets,
    /// POSTs of one packet more.
    TooManyPackets,
    /// 50 sessions that join one namespace after the other, most of which do not exist.
    Namespaces,
    /// 200 sessions that announce attachments, send all but one, and begin again elsewhere.
    Attachments,
    /// 4 sessions that send events without end, and read what comes back.
    Events,
}

impl Attack {
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    /// Attackers that work side by side.
    fn hands(self) -> usize {
        match self {
            Self::SlowHeaders => 3_000,
            Self::SlowBodies => 1_000,
            Self::Idle => 15_000,
            Self::Handshakes | Self::NewHandshakes | Self::WebSocketHandshakes | Self::Connects => 64,
            Self::Giants | Self::TooLarge => 8,
            Self::Packets | Self::TooManyPackets | Self::Events => 4,
            Self::Namespaces => 50,
            Self::Attachments => 200,
        }
    }
}

/// Attacks until standard input ends; what is returned is how often.
pub async fn run(attack: Attack, address: SocketAddr) -> io::Result<u64> {
    let acts = Arc::new(AtomicU64::new(0));
    let pace = Duration::from_secs(3) / attack.hands() as u32;
    let start = Instant::now();
    for number in 0..attack.hands() {
        let hand = Hand { address, number, acts: Arc::clone(&acts) };
        tokio::spawn(async move {
            // Thousands at once would be another attack.
            sleep_until(start + pace * number as u32).await;
            loop {
                if hand.act(attack).await.is_err() {
                    sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    Ok(acts.load(Relaxed))
}

struct Hand {
    address: SocketAddr,
    number: usize,
    acts: Arc<AtomicU64>,
}

impl Hand {
    /// Ends when the server has cut it off, or when it is time for another connection.
    async fn act(&self, attack: Attack) -> io::Result<()> {
        let mut line = Line::connect(self.address).await?;
        match attack {
            Attack::SlowHeaders => {
                let endless = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: load\r\nX-Slow: "
                    .iter()
                    .chain([b'a'; 1000].iter());
                let mut clock = interval(Duration::from_secs(1));
                for byte in endless {
                    clock.tick().await;
                    line.write([*byte]).await?;
                    self.count();
                }
            }
            Attack::SlowBodies => {
                let query = open_polling(&mut line).await?;
                line.write(wire::post_head(&query, 100_000)).await?;
                let mut clock = interval(Duration::from_millis(100));
                for byte in std::iter::repeat_n(b'4', 100_000) {
                    clock.tick().await;
                    line.write([byte]).await?;
                    self.count();
                }
            }
            Attack::Idle => {
                self.count();
                line.drain().await;
            }
            Attack::Handshakes => loop {
                line.get("EIO=4&transport=polling").await?;
                self.count();
            },
            Attack::NewHandshakes => {
                line.get("EIO=4&transport=polling").await?;
                self.count();
                line.reset();
            }
            Attack::WebSocketHandshakes => {
                let socket = WebSocket::open(line, "EIO=4&transport=websocket").await?;
                self.count();
                socket.line.reset();
            }
            Attack::Connects => {
                self.count();
                line.reset();
            }
            Attack::Giants if self.number.is_multiple_of(2) => {
                let query = joined(&mut line).await?;
                let body = event(MAX_PAYLOAD);
                let mut polls = Line::connect(self.address).await?;
                loop {
                    line.post(&query, &body).await?;
                    self.count();
                    polls.get(&query).await?;
                }
            }
            Attack::Giants => {
                let mut socket = open_websocket(line).await?;
                let message = frame(1, event(MAX_PAYLOAD).as_bytes());
                loop {
                    socket.line.write(&message).await?;
                    self.count();
                    socket.text().await?;
                }
            }
            Attack::TooLarge if self.number.is_multiple_of(2) => {
                let query = joined(&mut line).await?;
                let body = event(MAX_PAYLOAD + 1);
                line.post(&query, &body).await?;
                self.count();
            }
            Attack::TooLarge => {
                let mut socket = open_websocket(line).await?;
                socket.line.write(frame(1, event(MAX_PAYLOAD + 1).as_bytes())).await?;
                self.count();
                line = socket.line;
                line.drain().await;
            }
            Attack::Packets | Attack::TooManyPackets => {
                let query = joined(&mut line).await?;
                let count = if attack == Attack::Packets { MAX_PACKETS } else { MAX_PACKETS + 1 };
                let body = vec!["42[\"message\"]"; count].join("\u{1e}");
                let mut polls = Line::connect(self.address).await?;
                loop {
                    line.post(&query, &body).await?;
                    self.count();
                    polls.get(&query).await?;
                }
            }
            Attack::Namespaces => {
                let mut socket = open_websocket(line).await?;
                for number in 0.. {
                    socket.send(&format!("40/{number},")).await?;
                    self.count();
                    socket.text().await?;
                }
            }
            Attack::Attachments => {
                let mut socket = open_websocket(line).await?;
                socket.send(r#"4510-["message",{"_placeholder":true,"num":0}]"#).await?;
                for _ in 0..9 {
                    socket.line.write(frame(2, &[7; 10_000])).await?;
                    self.count();
                    sleep(Duration::from_millis(10)).await;
                }
                socket.line.reset();
            }
            Attack::Events => {
                let socket = open_websocket(line).await?;
                let events = frame(1, br#"42["message","flood"]"#).repeat(1000);
                let (mut reader, mut writer) = socket.line.stream.into_split();
                let writing = async {
                    while writer.write_all(&events).await.is_ok() {
                        self.acts.fetch_add(1000, Relaxed);
                    }
                };
                let reading = async { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await };
                tokio::join!(writing, reading).1?;
            }
        }
        Ok(())
    }

    fn count(&self) {
        self.acts.fetch_add(1, Relaxed);
    }
}

/// An event that is a message of so many bytes, and echoed.
fn event(size: usize) -> String {
    let head = "42[\"message\",\"";
    format!("{head}{}\"]", "x".repeat(size - head.len() - 2))
}

/// A polling session in the main namespace.
async fn joined(line: &mut Line) -> io::Result<String> {
    let query = open_polling(line).await?;
    line.post(&query, "40").await?;
    line.get(&query).await?;
    Ok(query)
}
