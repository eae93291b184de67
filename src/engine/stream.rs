//! The socket below a connection, TCP, unix or inside the process, for reading and writing without waiting.

mod memory;

pub use memory::Memory;

use socket2::SockRef;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Somebody at this address; an IPv4 address is written as one, also when it came over IPv6.
    Tcp(SocketAddr),
    /// A process on this host, which may be this one.
    Unix,
}

impl Peer {
    /// The address, if there is one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// An accepted connection; TCP comes with TCP_NODELAY.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, with the peer's address.
    Tcp(TcpStream, SocketAddr),
    /// Over a unix socket.
    Unix(UnixStream),
    /// Inside the process.
    Memory(Memory),
}

macro_rules! either {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            Stream::Tcp($stream, _) => $call,
            Stream::Unix($stream) => $call,
            Stream::Memory($stream) => $call,
        }
    };
}

impl Stream {
    /// Who is at the other end.
    pub const fn peer(&self) -> Peer {
        match self {
            Self::Tcp(_, address) => Peer::Tcp(*address),
            Self::Unix(_) | Self::Memory(_) => Peer::Unix,
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is; otherwise the connection is broken.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = None;
        let mut read = |socket: SockRef<'_>| {
            let read = (&*socket).read(buffer)?;
            count = Some(read);
            // Epoll tells of what comes from now on, so a read that leaves room has taken all; left as readable, the socket would be read again for nothing.
            if (1..buffer.len()).contains(&read) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        };
        let result = match self {
            Self::Tcp(stream, _) => stream.try_io(Interest::READABLE, || read(stream.into())),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || read(stream.into())),
            Self::Memory(end) => return end.try_read(buffer),
        };
        count.map_or_else(|| result.map(|()| 0), Ok)
    }

    /// Writes what the kernel takes now of several pieces.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; otherwise the connection is broken.
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces {
            // The kernel asks less for one piece than for a list of one.
            [only] => either!(self, stream => stream.try_write(only)),
            _ => either!(self, stream => stream.try_write_vectored(pieces)),
        }
    }

    /// Waits until [`Stream::try_read`] is worth trying.
    ///
    /// # Errors
    /// The runtime is going down.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Waits until [`Stream::try_write_vectored`] is worth trying.
    ///
    /// # Errors
    /// The runtime is going down.
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_writable(cx)).await
    }

    /// [`Stream::readable`] by hand; only who asked last is woken, and waits without a place in a list.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read_ready(context))
    }

    /// [`Stream::writable`] in the same way.
    pub(crate) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_write_ready(context))
    }

    /// Tells the peer that nothing more will come, once all that was written has left.
    pub fn shut_down(&self) {
        let socket = match self {
            Self::Tcp(stream, _) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
            Self::Memory(end) => return end.shut_down(),
        };
        // A peer that is gone already needs no telling.
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_read_that_leaves_room_is_the_last_until_more_has_come() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut tcp = TcpStream::connect(address).await.expect("it listens");
        let stream = Stream::Tcp(listener.accept().await.expect("connected").0, address);
        let (mut unix, end) = UnixStream::pair().expect("a pair");
        takes_all_at_once(&stream, &mut tcp).await;
        takes_all_at_once(&Stream::Unix(end), &mut unix).await;
    }

    async fn takes_all_at_once(stream: &Stream, peer: &mut (impl AsyncWrite + Unpin)) {
        let mut buffer = [0; 4];
        for _ in 0..2 {
            peer.write_all(b"one").await.expect("it is read");
            stream.readable().await.expect("the runtime stays");
            assert_eq!(stream.try_read(&mut buffer).expect("bytes"), 3);
            assert!(!is_readable(stream));
        }
        peer.write_all(b"more").await.expect("it is read");
        stream.readable().await.expect("the runtime stays");
        assert_eq!(stream.try_read(&mut buffer).expect("bytes"), 4);
        assert!(is_readable(stream), "there may be more behind a buffer that was filled");
        assert_eq!(stream.try_read(&mut buffer).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        assert!(!is_readable(stream));
        peer.shutdown().await.expect("connected");
        stream.readable().await.expect("the runtime stays");
        assert_eq!(stream.try_read(&mut buffer).expect("the end"), 0);
        assert!(is_readable(stream), "the end stays");
    }

    fn is_readable(stream: &Stream) -> bool {
        stream.poll_readable(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}
