//! A client's WebSocket: frames over one end of a connection in memory, read and written in pieces and at the client's own pace.

use crate::chance::Chance;
use crate::wire::{Frame, Frames};
use std::io::IoSlice;
use std::time::Duration;
use stickyport::engine::stream::Memory;
use tokio::time::{Instant, sleep_until};

/// What one write gives to the connection at most.
const PIECE: usize = 700;

pub struct Line {
    end: Memory,
    frames: Frames,
    unsent: Vec<u8>,
    /// When it next reads and writes.
    read_at: Instant,
    write_at: Instant,
    /// The longest pause between two reads or writes.
    lag: Duration,
    /// Bytes that one read takes.
    gulp: usize,
    /// It does not read for now.
    pub is_deaf: bool,
}

/// What a read came to.
pub struct Read {
    pub frames: Vec<Frame>,
    /// The server has closed its side, or the connection is broken.
    pub is_over: bool,
}

impl Line {
    pub fn new(end: Memory, lag: Duration) -> Self {
        let now = Instant::now();
        Self { end, frames: Frames::default(), unsent: Vec::new(), read_at: now, write_at: now, lag, gulp: 4096, is_deaf: false }
    }

    /// From now on it reads so slowly that the server has to wait for it.
    pub fn slow_down(&mut self) {
        self.gulp = 8;
        self.lag = Duration::from_millis(400);
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    pub fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Waits until [`Line::go_on`] has something to do.
    pub async fn stir(&self) {
        let reading = async {
            if self.is_deaf {
                std::future::pending::<()>().await;
            }
            sleep_until(self.read_at).await;
            let _ = self.end.readable().await;
        };
        let writing = async {
            if self.unsent.is_empty() {
                std::future::pending::<()>().await;
            }
            sleep_until(self.write_at).await;
            let _ = self.end.writable().await;
        };
        tokio::select! {
            biased;
            () = reading => {}
            () = writing => {}
        }
    }

    /// Reads and writes what can be now.
    pub fn go_on(&mut self, chance: &mut Chance) -> Read {
        let now = Instant::now();
        if self.write_at <= now && !self.unsent.is_empty() {
            let piece = if chance.one_in(3) { 1 + chance.below(20) as usize } else { PIECE };
            let piece = self.unsent.get(..piece).unwrap_or(&self.unsent);
            // A server that is gone is met by reading.
            let written = self.end.try_write_vectored(&[IoSlice::new(piece)]).unwrap_or(0);
            self.unsent.drain(..written);
            self.write_at = now + self.pause(chance);
        }
        let mut is_over = false;
        if self.read_at <= now && !self.is_deaf {
            let mut buffer = vec![0; self.gulp];
            match self.end.try_read(&mut buffer) {
                Ok(0) => is_over = true,
                Ok(count) => self.frames.read.extend_from_slice(&buffer[..count]),
                Err(error) => is_over = error.kind() != std::io::ErrorKind::WouldBlock,
            }
            self.read_at = now + self.pause(chance);
        }
        Read { frames: self.frames.by_ref().collect(), is_over }
    }

    fn pause(&mut self, chance: &mut Chance) -> Duration {
        if chance.one_in(4) { chance.up_to(self.lag) } else { Duration::ZERO }
    }

    /// Writes at once, behind all that waits.
    pub fn force(&mut self, bytes: &[u8]) {
        self.push(bytes);
        if let Ok(written) = self.end.try_write_vectored(&[IoSlice::new(&self.unsent)]) {
            self.unsent.drain(..written);
        }
    }

    pub fn shut_down(&self) {
        self.end.shut_down();
    }

    pub fn into_end(self) -> Memory {
        self.end
    }
}
