//! Many Socket.IO clients on one thread: epoll, one read for what has arrived, ready-made frames, and no more parsing than that takes.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const REQUEST: &[u8] =
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Clients that are on their way at once; fewer than any server's listening socket holds.
const OPENING: usize = 64;

/// Time after which a server that says nothing is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time without anything to read after which this core may sleep.
const AWAKE: Duration = Duration::from_micros(50);

pub struct Clients {
    server: SocketAddr,
    epoll: Epoll,
    clients: Vec<Client>,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
    connect: Vec<u8>,
    pong: Vec<u8>,
    /// Time that it was awake for nothing.
    pub spun: Duration,
}

pub struct Client {
    stream: TcpStream,
    is_upgraded: bool,
    /// The beginning of what has not arrived as a whole.
    rest: Vec<u8>,
    /// When its message went.
    pub sent: Instant,
}

impl Clients {
    pub fn new(server: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            server,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            clients: Vec::new(),
            events: vec![EpollEvent::empty(); 64],
            buffer: vec![0; 64 * 1024],
            connect: frame("40"),
            pong: frame("3"),
            spun: Duration::ZERO,
        })
    }

    /// That many, each connected to `/` and greeted.
    pub fn open(server: SocketAddr, count: usize) -> io::Result<Self> {
        let mut clients = Self::new(server)?;
        let mut greeted = 0;
        let patience = Instant::now() + PATIENCE;
        while greeted < count {
            while clients.clients.len() < count.min(greeted + OPENING) {
                clients.begin()?;
            }
            clients.turn(patience, |_, _, _| {
                greeted += 1;
                Ok(())
            })?;
            if Instant::now() > patience {
                return Err(io::Error::other(format!("{greeted} of {count} clients connected")));
            }
        }
        Ok(clients)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.clients.iter_mut()
    }

    /// Waits, at most until then, and reads what has arrived: `event` is given each event's client and packet.
    pub fn turn(&mut self, until: Instant, mut event: impl FnMut(usize, &mut Client, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let ready = self.wait(until)?;
        for ready in self.events.iter().take(ready) {
            let index = ready.data() as usize;
            let client = &mut self.clients[index];
            let length = match client.stream.read(&mut self.buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                length => length?,
            };
            let mut rest = std::mem::take(&mut client.rest);
            let mut unread = &self.buffer[..length];
            if !rest.is_empty() {
                rest.extend_from_slice(unread);
                unread = &rest;
            }
            if !client.is_upgraded {
                let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") else {
                    client.rest = unread.to_vec();
                    continue;
                };
                if !unread.starts_with(b"HTTP/1.1 101 ") {
                    return Err(io::Error::other(String::from_utf8_lossy(unread)));
                }
                client.is_upgraded = true;
                unread = &unread[end + 4..];
            }
            while let Some((packet, after)) = first_frame(unread)? {
                unread = after;
                match packet {
                    [b'4', b'2', ..] => event(index, client, packet)?,
                    [b'0', ..] => client.send(&self.connect)?,
                    [b'2'] => client.send(&self.pong)?,
                    [b'4', b'0', ..] => {}
                    other => return Err(io::Error::other(String::from_utf8_lossy(other))),
                }
            }
            client.rest = unread.to_vec();
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
            self.spun += turned - now;
            now = turned;
        }
        // Rounded up, so that nobody turns in vain for the rest of a millisecond.
        let wait = until.saturating_duration_since(now).as_nanos().div_ceil(1_000_000) as u64;
        Ok(self.epoll.wait(&mut self.events, EpollTimeout::try_from(wait).map_err(io::Error::other)?)?)
    }

    fn begin(&mut self) -> io::Result<()> {
        let stream = TcpStream::connect(self.server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, self.clients.len() as u64))?;
        let mut client = Client { stream, is_upgraded: false, rest: Vec::new(), sent: Instant::now() };
        client.send(REQUEST)?;
        self.clients.push(client);
        Ok(())
    }
}

impl Client {
    /// Nobody sends so much before it is answered that the kernel would not take it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}

/// The payload of a frame that is there as a whole, and what follows it.
fn first_frame(unread: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let (length, rest) = match *unread {
        [0x81, 126, high, low, ref rest @ ..] => (u16::from_be_bytes([high, low]).into(), rest),
        [0x81, length, ref rest @ ..] if length < 126 => (length.into(), rest),
        [0x81, 126, ..] | [0x81] | [] => return Ok(None),
        _ => return Err(io::Error::other(format!("a frame that begins with {:?}", unread.get(..4)))),
    };
    Ok(rest.split_at_checked(length))
}

/// A short text as clients send it (RFC 6455, section 5.3).
pub fn frame(payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).expect("a short frame");
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x81, 0x80 | length];
    frame.extend_from_slice(&mask);
    frame.extend(payload.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
