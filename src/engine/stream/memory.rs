//! A connection inside the process: two ends that behave like sockets, for tests of what runs above.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of a connection inside the process.
///
/// Dropping it closes it as a socket is closed: the other end reads what was written and then the end, or, if bytes were left unread here, a reset. An end
/// that is kept and not read is a slow reader; one that is never used again is a peer that has vanished.
///
/// ```
/// use std::io::IoSlice;
/// use stickyport::engine::stream::{Memory, Stream};
///
/// let (server, client) = Memory::pair(1024);
/// let server = Stream::Memory(server);
/// client.try_write_vectored(&[IoSlice::new(b"hello")])?;
/// let mut buffer = [0; 16];
/// assert_eq!(server.try_read(&mut buffer)?, 5);
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Memory {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// The writer writes no more.
    is_shut: bool,
    /// The writer has thrown the connection away.
    is_reset: bool,
    /// The reader reads no more.
    is_unread: bool,
    wakers: Vec<Waker>,
}

impl Memory {
    /// Both ends of a connection that holds so many bytes in each direction.
    pub fn pair(capacity: usize) -> (Self, Self) {
        let pipe = || Arc::new(Pipe { capacity, state: Mutex::default() });
        let (there, back) = (pipe(), pipe());
        let near = Self { incoming: Arc::clone(&back), outgoing: Arc::clone(&there) };
        (near, Self { incoming: there, outgoing: back })
    }

    /// Reads what is there; 0 bytes are the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is; otherwise the other end has reset the connection.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.incoming.change(|state| state.read(buffer))
    }

    /// Writes as much of several pieces as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; otherwise one of the ends is closed.
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.outgoing.change(|state| state.write(pieces, self.outgoing.capacity))
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// Waits until [`Memory::try_read`] is worth trying.
    ///
    /// # Errors
    /// None; it has the form of tokio's sockets.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Waits until [`Memory::try_write_vectored`] is worth trying.
    ///
    /// # Errors
    /// None; it has the form of tokio's sockets.
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_ready(cx)).await
    }

    pub(super) fn poll_read_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.incoming.ready(cx, State::is_readable).map(Ok)
    }

    pub(super) fn poll_write_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.ready(cx, |state| state.is_writable(self.outgoing.capacity)).map(Ok)
    }

    /// Tells the other end that nothing more will come.
    pub fn shut_down(&self) {
        self.outgoing.change(|state| state.is_shut = true);
    }

    /// Throws the connection away: the other end reads an error where it would have read the end.
    pub fn reset(self) {
        self.outgoing.change(|state| state.is_reset = true);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let leaves_bytes = self.incoming.change(|state| {
            state.is_unread = true;
            !std::mem::take(&mut state.bytes).is_empty()
        });
        self.outgoing.change(|state| {
            state.is_shut = true;
            state.is_reset |= leaves_bytes;
        });
    }
}

impl Pipe {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        // Without the lock, which a task may want that is dropped by its waker.
        while let Some(waker) = state.wakers.pop() {
            drop(state);
            waker.wake();
            state = self.lock();
        }
        result
    }

    fn ready(&self, cx: &Context<'_>, is_ready: impl FnOnce(&State) -> bool) -> Poll<()> {
        let mut state = self.lock();
        if is_ready(&state) {
            return Poll::Ready(());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that can panic runs under this lock")
    }
}

impl State {
    fn is_readable(&self) -> bool {
        !self.bytes.is_empty() || self.is_shut || self.is_reset
    }

    fn is_writable(&self, capacity: usize) -> bool {
        self.bytes.len() < capacity || self.is_shut || self.is_unread
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.is_readable() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.bytes.is_empty() && self.is_reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        io::Read::read(&mut self.bytes, buffer)
    }

    fn write(&mut self, pieces: &[IoSlice<'_>], capacity: usize) -> io::Result<usize> {
        if self.is_shut || self.is_unread {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if !self.is_writable(capacity) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let before = self.bytes.len();
        for piece in pieces {
            let room = capacity - self.bytes.len();
            self.bytes.extend(piece.iter().take(room));
        }
        Ok(self.bytes.len() - before)
    }
}

impl AsyncRead for Memory {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.incoming.ready(cx, State::is_readable).is_pending() {
            return Poll::Pending;
        }
        let read = self.try_read(buffer.initialize_unfilled());
        Poll::Ready(read.map(|count| buffer.advance(count)))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let is_writable = |state: &State| state.is_writable(self.outgoing.capacity);
        if self.outgoing.ready(cx, is_writable).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.try_write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_full_pipe_takes_no_more_until_it_is_read() {
        let (near, far) = Memory::pair(4);
        assert_eq!(write(&near, b"abcdef"), Ok(4));
        assert_eq!(write(&near, b"ef"), Err(ErrorKind::WouldBlock));
        assert_eq!(read(&far, 3), Ok(b"abc".to_vec()));
        assert_eq!(write(&near, b"ef"), Ok(2));
        assert_eq!(read(&far, 9), Ok(b"def".to_vec()));
        assert_eq!(read(&far, 9), Err(ErrorKind::WouldBlock));
    }

    #[test]
    fn an_end_is_read_behind_what_was_written() {
        let (near, far) = Memory::pair(8);
        assert_eq!(write(&near, b"last"), Ok(4));
        near.shut_down();
        assert_eq!(write(&near, b"more"), Err(ErrorKind::BrokenPipe));
        assert_eq!(write(&far, b"still"), Ok(5));
        assert_eq!((read(&far, 9), read(&far, 9)), (Ok(b"last".to_vec()), Ok(vec![])));
        assert_eq!(read(&near, 9), Ok(b"still".to_vec()));
        drop(near);
        assert_eq!(write(&far, b"more"), Err(ErrorKind::BrokenPipe));
    }

    #[test]
    fn closing_with_bytes_unread_resets_the_connection_as_it_does_a_socket() {
        let (near, far) = Memory::pair(8);
        assert_eq!((write(&near, b"last"), write(&far, b"unread")), (Ok(4), Ok(6)));
        drop(near);
        assert_eq!((read(&far, 9), read(&far, 9)), (Ok(b"last".to_vec()), Err(ErrorKind::ConnectionReset)));
        let (near, far) = Memory::pair(8);
        near.reset();
        assert_eq!(read(&far, 9), Err(ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let (mut near, mut far) = Memory::pair(3);
        let writing = tokio::spawn(async move {
            near.write_all(b"more than there is room for").await.expect("the far end reads");
            near.shutdown().await.expect("it cannot fail");
        });
        let mut read = String::new();
        far.read_to_string(&mut read).await.expect("the near end writes");
        assert_eq!(read, "more than there is room for");
        writing.await.expect("no panic");
    }

    fn write(end: &Memory, bytes: &[u8]) -> Result<usize, ErrorKind> {
        end.try_write_vectored(&[IoSlice::new(bytes)]).map_err(|error| error.kind())
    }

    fn read(end: &Memory, count: usize) -> Result<Vec<u8>, ErrorKind> {
        let mut buffer = vec![0; count];
        let read = end.try_read(&mut buffer).map_err(|error| error.kind())?;
        buffer.truncate(read);
        Ok(buffer)
    }
}
