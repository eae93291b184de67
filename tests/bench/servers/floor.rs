//! What a server costs that does nothing: one thread, epoll, and one write of a ready-made frame for each message; no sessions.
//!
//! It believes its clients: requests and frames come in one piece, and whoever is written to takes it.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const PING_INTERVAL: Duration = Duration::from_secs(25);

/// The answer to the key `dGhlIHNhbXBsZSBub25jZQ==` (RFC 6455, section 1.3), the only one that is asked.
const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const LISTENER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    is_upgraded: bool,
}

fn main() -> io::Result<()> {
    let [open, connected, auth, echo, broadcast, ping] = [
        r#"0{"sid":"0-00000000000000000","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#,
        r#"40{"sid":"0-00000000000000000"}"#,
        r#"42["auth",{}]"#,
        r#"42["message-back","0123456789abcdef"]"#,
        r#"42["broadcast","0123456789abcdef"]"#,
        "2",
    ]
    .map(frame);
    let accepted = [ACCEPTED, &open].concat();
    let connected = [connected, auth].concat();

    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    // Whoever has gone stays in it until it would have been pinged; another may have its descriptor by then and is pinged early.
    let mut pings = VecDeque::<(Instant, usize)>::new();
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = [0; 4096];
    loop {
        let now = Instant::now();
        let mut timeout = EpollTimeout::NONE;
        while let Some(&(at, descriptor)) = pings.front() {
            if at > now {
                timeout = EpollTimeout::try_from(at - now + Duration::from_millis(1)).expect("at most an interval");
                break;
            }
            pings.pop_front();
            if let Some(connection) = connections.get_mut(descriptor).and_then(Option::as_mut) {
                connection.stream.write_all(&ping)?;
                pings.push_back((now + PING_INTERVAL, descriptor));
            }
        }
        let ready = epoll.wait(&mut events, timeout)?;
        for event in events.iter().take(ready) {
            if event.data() == LISTENER {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let descriptor = stream.as_raw_fd() as usize;
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, descriptor as u64))?;
                connections.resize_with(connections.len().max(descriptor + 1), || None);
                connections[descriptor] = Some(Connection { stream, is_upgraded: false });
                continue;
            }
            let descriptor = event.data() as usize;
            let Some(connection) = &mut connections[descriptor] else { continue };
            let length = match connection.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Ok(length @ 1..) => length,
                _ => {
                    connections[descriptor] = None;
                    continue;
                }
            };
            if !connection.is_upgraded {
                connection.is_upgraded = true;
                connection.stream.write_all(&accepted)?;
                pings.push_back((now + PING_INTERVAL, descriptor));
                continue;
            }
            match &start(&buffer[..length]) {
                [b'4', b'0', ..] => connection.stream.write_all(&connected)?,
                [b'4', b'2', b'[', b'"', b'm'] => connection.stream.write_all(&echo)?,
                [b'4', b'2', b'[', b'"', b'b'] => {
                    for connection in connections.iter_mut().flatten() {
                        connection.stream.write_all(&broadcast)?;
                    }
                }
                _ => {}
            }
        }
    }
}

/// The first bytes of a masked frame of less than 126.
fn start(frame: &[u8]) -> [u8; 5] {
    let mut start = [0; 5];
    let (mask, payload) = frame.get(2..).and_then(|rest| rest.split_at_checked(4)).unwrap_or_default();
    for (start, (byte, mask)) in start.iter_mut().zip(payload.iter().zip(mask.iter().cycle())) {
        *start = byte ^ mask;
    }
    start
}

fn frame(payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).expect("a short frame");
    [&[0x81, length], payload.as_bytes()].concat()
}
