//! Socket.IO clients over WebSocket, with ready-made frames and no more parsing than it takes to find the end of a packet.

use crate::lines::{Line, Lines, connect};
use crate::server::Server;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const REQUEST: &[u8] =
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Clients that are on their way at once; fewer than any server's listening socket holds.
const OPENING: usize = 64;

/// Time after which a server that says nothing is given up.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Clients {
    /// The clients are spread over them in turn.
    servers: Vec<SocketAddr>,
    lines: Lines,
    clients: Vec<Client>,
    connect: Vec<u8>,
    pong: Vec<u8>,
}

#[derive(Clone)]
pub struct Client {
    is_upgraded: bool,
    /// When what it waits for was asked.
    pub sent: Instant,
}

impl Clients {
    /// None yet.
    pub fn new(servers: &[Server]) -> io::Result<Self> {
        Ok(Self {
            servers: servers.iter().map(|server| server.address).collect(),
            lines: Lines::new()?,
            clients: Vec::new(),
            connect: frame("40"),
            pong: frame("3"),
        })
    }

    /// That many, each connected to `/` and greeted.
    pub fn open(servers: &[Server], count: usize) -> io::Result<Self> {
        let mut clients = Self::new(servers)?;
        let mut greeted = 0;
        let patience = Instant::now() + PATIENCE;
        while greeted < count {
            while clients.clients.len() < count.min(greeted + OPENING) {
                clients.begin(clients.clients.len())?;
            }
            clients.turn(patience, |_, _, _, _| {
                greeted += 1;
                Ok(())
            })?;
            if Instant::now() > patience {
                return Err(io::Error::other(format!("{greeted} of {count} clients connected")));
            }
        }
        Ok(clients)
    }

    /// Begins a handshake that ends with the event `auth`, as a new client or in the place of one, which is closed.
    pub fn begin(&mut self, index: usize) -> io::Result<()> {
        let client = Client { is_upgraded: false, sent: Instant::now() };
        self.lines.put(index, connect(self.servers[index % self.servers.len()])?)?;
        match self.clients.get_mut(index) {
            Some(place) => *place = client,
            None => self.clients.push(client),
        }
        self.lines.send(index, REQUEST)
    }

    pub fn send(&mut self, index: usize, frame: &[u8]) -> io::Result<()> {
        self.clients[index].sent = Instant::now();
        self.lines.send(index, frame)
    }

    pub fn spun(&self) -> Duration {
        self.lines.spun
    }

    /// Waits, at most until then, and reads what has arrived: `event` is given each event's packet and client.
    pub fn turn(
        &mut self,
        until: Instant,
        mut event: impl FnMut(usize, &mut Client, &mut Line, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.lines.turn(until, |index, line, arrived| {
            let client = &mut self.clients[index];
            let mut unread = arrived;
            if !client.is_upgraded {
                let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(0) };
                if !unread.starts_with(b"HTTP/1.1 101 ") {
                    return Err(io::Error::other(String::from_utf8_lossy(unread)));
                }
                client.is_upgraded = true;
                unread = &unread[end + 4..];
            }
            while let Some((packet, after)) = first_frame(unread)? {
                unread = after;
                match packet {
                    [b'4', b'2', ..] => event(index, client, line, packet)?,
                    [b'0', ..] => line.send(&self.connect)?,
                    [b'2'] => line.send(&self.pong)?,
                    [b'4', b'0', ..] => {}
                    other => return Err(io::Error::other(String::from_utf8_lossy(other))),
                }
            }
            Ok(arrived.len() - unread.len())
        })
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
