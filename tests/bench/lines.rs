//! Many TCP connections on one thread: epoll, one read for what has arrived, and whole writes.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Time without anything to read after which this core may sleep.
const AWAKE: Duration = Duration::from_micros(50);

/// What one look that finds nothing takes at most.
const TURN: Duration = Duration::from_micros(2);

pub struct Lines {
    epoll: Epoll,
    lines: Vec<Line>,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
    /// Time that this thread was awake for nothing.
    pub spun: Duration,
}

pub struct Line {
    stream: TcpStream,
    /// The beginning of what has not arrived as a whole.
    rest: Vec<u8>,
}

impl Lines {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            lines: Vec::new(),
            events: vec![EpollEvent::empty(); 64],
            buffer: vec![0; 64 * 1024],
            spun: Duration::ZERO,
        })
    }

    /// Adds a line, or puts it in the place of another.
    pub fn put(&mut self, index: usize, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        let line = Line { stream, rest: Vec::new() };
        match self.lines.get_mut(index) {
            Some(place) => *place = line,
            None => self.lines.push(line),
        }
        Ok(())
    }

    pub fn send(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        self.lines[index].send(bytes)
    }

    /// Waits, at most until then, and hands on what has arrived: `read` says how much of it was whole, and is given the rest again with what follows.
    pub fn turn(&mut self, until: Instant, mut read: impl FnMut(usize, &mut Line, &[u8]) -> io::Result<usize>) -> io::Result<()> {
        let ready = self.wait(until)?;
        for ready in self.events.iter().take(ready) {
            let index = ready.data() as usize;
            let line = &mut self.lines[index];
            let length = match line.stream.read(&mut self.buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                length => length?,
            };
            let arrived = &self.buffer[..length];
            if line.rest.is_empty() {
                let whole = read(index, line, arrived)?;
                line.rest.extend_from_slice(&arrived[whole..]);
            } else {
                let mut rest = std::mem::take(&mut line.rest);
                rest.extend_from_slice(arrived);
                let whole = read(index, line, &rest)?;
                rest.drain(..whole);
                line.rest = rest;
            }
        }
        Ok(())
    }

    /// Stays awake for a while before it sleeps: to wake a core costs the server that does it more than a write does, and which server has to is decided by
    /// nothing but who is slower.
    fn wait(&mut self, until: Instant) -> io::Result<usize> {
        let began = Instant::now();
        let mut now = began;
        while now - began < AWAKE && now < until {
            let ready = self.epoll.wait(&mut self.events, EpollTimeout::ZERO)?;
            if ready > 0 {
                return Ok(ready);
            }
            let turned = Instant::now();
            // Whoever was off its core in between was not awake.
            self.spun += (turned - now).min(TURN);
            now = turned;
        }
        // Rounded up, so that nobody turns in vain for the rest of a millisecond.
        let wait = until.saturating_duration_since(now).as_nanos().div_ceil(1_000_000) as u64;
        Ok(self.epoll.wait(&mut self.events, EpollTimeout::try_from(wait).map_err(io::Error::other)?)?)
    }
}

impl Line {
    /// Nobody sends so much before it is answered that the kernel would not take it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}

pub fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
