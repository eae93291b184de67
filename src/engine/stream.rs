//! The socket below a connection, TCP, unix or inside the process, for reading and writing without waiting.

mod memory;

pub use memory::Memory;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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
        either!(self, stream => stream.try_read(buffer))
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
            Self::Tcp(stream, _) => socket2::SockRef::from(stream),
            Self::Unix(stream) => socket2::SockRef::from(stream),
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
