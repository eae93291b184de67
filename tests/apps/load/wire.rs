//! HTTP and WebSocket as bytes, for clients that behave and for those that do not; every fault of the line is an error of its caller.

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Where the servers of this program listen for Socket.IO.
pub const PATH: &str = "/socket.io/";

/// One TCP connection and what was read of it in advance.
pub struct Line {
    pub stream: TcpStream,
    unread: BytesMut,
}

pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }
}

impl Line {
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::of(TcpStream::connect(address).await?))
    }

    /// A connection of a client with an address of its own, as far as loopback goes.
    pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source.into(), 0))?;
        Ok(Self::of(socket.connect(address).await?))
    }

    /// A connection whose kernel takes little for a client that does not read.
    pub async fn narrow(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        Ok(Self::of(socket.connect(address).await?))
    }

    fn of(stream: TcpStream) -> Self {
        // It can only fail on a connection that is broken already.
        let _ = stream.set_nodelay(true);
        Self { stream, unread: BytesMut::new() }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Sends a request and waits for its answer.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> io::Result<Answer> {
        self.write(request).await?;
        self.answer().await
    }

    pub async fn get(&mut self, query: &str) -> io::Result<Answer> {
        self.ask(get(query)).await
    }

    pub async fn post(&mut self, query: &str, body: impl AsRef<[u8]>) -> io::Result<Answer> {
        self.ask(post(query, body.as_ref())).await
    }

    pub async fn answer(&mut self) -> io::Result<Answer> {
        loop {
            if let Some(answer) = self.take_answer()? {
                return Ok(answer);
            }
            self.more().await?;
        }
    }

    /// Reads until the server closes.
    pub async fn drain(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while matches!(self.stream.read(&mut buffer).await, Ok(1..)) {}
    }

    /// The next read or write of the server finds a reset.
    pub fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Says that nothing more comes, and stays.
    pub fn half_close(&self) {
        let _ = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.unread).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn take_answer(&mut self) -> io::Result<Option<Answer>> {
        let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(self.unread.get(..end).unwrap_or_default()).map_err(io::Error::other)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        let length = head.lines().filter_map(|line| line.split_once(": "));
        let length =
            length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).find_map(|(_, value)| value.parse().ok());
        let length: usize = length.unwrap_or(0);
        if self.unread.len() < end + 4 + length {
            return Ok(None);
        }
        self.unread.advance(end + 4);
        Ok(Some(Answer { status, body: self.unread.split_to(length).freeze() }))
    }
}

/// What a server sends over WebSocket.
pub enum Frame {
    Text(String),
    Other,
}

/// A line on which a WebSocket is open.
pub struct WebSocket {
    pub line: Line,
}

impl WebSocket {
    pub async fn open(mut line: Line, query: &str) -> io::Result<Self> {
        let answer = line.ask(upgrade(query)).await?;
        if answer.status == 101 { Ok(Self { line }) } else { Err(io::Error::other(format!("answered {}", answer.status))) }
    }

    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        self.line.write(frame(1, text.as_bytes())).await
    }

    /// Nothing is lost when the future is dropped.
    pub async fn frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(frame);
            }
            self.line.more().await?;
        }
    }

    /// The next text; other frames are passed over.
    pub async fn text(&mut self) -> io::Result<String> {
        loop {
            if let Frame::Text(text) = self.frame().await? {
                return Ok(text);
            }
        }
    }

    fn take_frame(&mut self) -> io::Result<Option<Frame>> {
        let unread = &mut self.line.unread;
        let Some(&[first, second]) = unread.first_chunk() else { return Ok(None) };
        let (header, length) = match second {
            126 => {
                (4, unread.get(2..4).and_then(|length| length.try_into().ok()).map(|length| u16::from_be_bytes(length).into()))
            }
            127 => (10, unread.get(2..10).and_then(|length| length.try_into().ok()).map(u64::from_be_bytes)),
            short => (2, Some(short.into())),
        };
        let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else { return Ok(None) };
        if unread.len() < header + length {
            return Ok(None);
        }
        unread.advance(header);
        let payload = unread.split_to(length);
        match first {
            0x81 => Ok(Some(Frame::Text(String::from_utf8(payload.into()).map_err(io::Error::other)?))),
            0x88 => Err(ErrorKind::ConnectionAborted.into()),
            _ => Ok(Some(Frame::Other)),
        }
    }
}

pub fn get(query: &str) -> String {
    format!("GET {PATH}?{query} HTTP/1.1\r\nHost: load\r\n\r\n")
}

pub fn post(query: &str, body: &[u8]) -> Vec<u8> {
    [post_head(query, body.len()).as_bytes(), body].concat()
}

/// The headers of a POST whose body is to follow.
pub fn post_head(query: &str, length: usize) -> String {
    format!("POST {PATH}?{query} HTTP/1.1\r\nHost: load\r\nContent-Length: {length}\r\n\r\n")
}

pub fn upgrade(query: &str) -> String {
    format!(
        "GET {PATH}?{query} HTTP/1.1\r\nHost: load\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A frame as clients send it (RFC 6455, section 5.3).
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = frame_head(opcode, payload.len() as u64);
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A masked frame's header without its mask.
pub fn frame_head(opcode: u8, length: u64) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    if length < 126 {
        frame.push(0x80 | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        frame.push(0x80 | 126);
        frame.extend_from_slice(&length.to_be_bytes());
    } else {
        frame.push(0x80 | 127);
        frame.extend_from_slice(&length.to_be_bytes());
    }
    frame
}

/// The sid in an open packet.
pub fn sid(open: &str) -> io::Result<&str> {
    open.split_once("\"sid\":\"").and_then(|(_, rest)| rest.split('"').next()).ok_or_else(|| io::Error::other("no open packet"))
}

/// The query of a polling session that was just opened on this line.
pub async fn open_polling(line: &mut Line) -> io::Result<String> {
    let answer = line.get("EIO=4&transport=polling").await?;
    if answer.status != 200 {
        return Err(io::Error::other(format!("answered {}", answer.status)));
    }
    Ok(format!("EIO=4&transport=polling&sid={}", sid(answer.text())?))
}

/// A WebSocket session in the main namespace, its first packets read.
pub async fn open_websocket(line: Line) -> io::Result<WebSocket> {
    let mut socket = WebSocket::open(line, "EIO=4&transport=websocket").await?;
    sid(&socket.text().await?)?;
    join(&mut socket, "").await?;
    Ok(socket)
}

/// Joins a namespace, `""` for the main one, else as `/custom,`; waits for what the server says to that.
pub async fn join(socket: &mut WebSocket, namespace: &str) -> io::Result<()> {
    socket.send(&format!("40{namespace}")).await?;
    socket.text().await?;
    // The server of this program greets with what it was told.
    socket.text().await?;
    Ok(())
}
