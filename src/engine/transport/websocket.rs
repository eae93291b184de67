//! WebSocket over a socket whose bytes stay ours: whole messages are taken at once, tungstenite reads at most the rest of one frame of what is left, and what it
//! writes goes to the outbox.

use crate::engine::stream::Stream;
use crate::engine::{Intake, Overflow};
use crate::protocol::eio::Message;
use bytes::Bytes;
use bytestring::ByteString;
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

/// What one read takes from the kernel at most; the buffer belongs to the thread and is borrowed.
const READ_SIZE: usize = 64 * 1024;

/// Messages and control frames that are taken before others get their turn; a read may hold ten thousand.
const FRAMES_A_TURN: usize = 64;

/// The space that tungstenite keeps for the frame that it is reading; larger frames grow it for as long as they last.
const FRAME_BUFFER: usize = 512;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
}

/// Lends the thread's buffer for one read.
pub(in crate::engine) fn with_read_buffer<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    READ_BUFFER.with_borrow_mut(|buffer| read(buffer))
}

/// The receiving half of a WebSocket connection.
pub(in crate::engine) struct WebSocket {
    stream: Arc<Stream>,
    /// From the first frame on that is not a whole message; it takes more than all the rest.
    tungstenite: Option<Box<WebSocketContext>>,
    max_message: usize,
    /// Bytes of the current frame that tungstenite has not been given yet.
    frame_left: u64,
    /// Whether that is a control frame, which is gone when it is whole.
    is_control: bool,
    /// Bytes that it has been given of a message that is not whole yet.
    unfinished: usize,
    /// Counts those and `carry`.
    intake: Intake,
    /// Bytes that were read and could not be used yet: part of a header, or what came behind the message at which reading stopped.
    carry: Bytes,
    is_stopped: bool,
    /// The last read took all that it could, so there may be more.
    was_full: bool,
}

/// Why a connection is of no more use.
#[derive(Debug)]
pub(in crate::engine) enum Lost {
    /// The peer closed, with or without a close frame.
    Closed,
    /// The socket broke, or the peer did not speak WebSocket.
    Broken,
    /// A message was larger than allowed.
    TooLarge,
    /// Too much has begun to arrive, from all clients together.
    Overflow,
}

impl WebSocket {
    /// A connection that was just upgraded; `unread` came with the request.
    pub(in crate::engine) fn new(stream: Stream, unread: &[u8], max_message: usize, intake: Intake) -> Self {
        Self {
            stream: Arc::new(stream),
            tungstenite: None,
            max_message,
            frame_left: 0,
            is_control: false,
            unfinished: 0,
            intake,
            carry: Bytes::copy_from_slice(unread),
            is_stopped: !unread.is_empty(),
            was_full: false,
        }
    }

    pub(in crate::engine) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Whether the last read was stopped before it had handed on all that it had.
    pub(in crate::engine) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Whether the next read finds something without waiting, as far as we know.
    pub(in crate::engine) fn has_more(&self) -> bool {
        self.is_stopped || self.was_full
    }

    /// Reads once and hands on each whole message, until `on_message` breaks or the turn is over; `replies` gets the control frames to send.
    ///
    /// After a break the rest of the last read comes first, so that no more is taken from a client than the application keeps up with.
    ///
    /// # Errors
    /// The connection is of no more use; messages that came before were handed on.
    pub(in crate::engine) fn read(
        &mut self,
        replies: &mut Vec<u8>,
        mut on_message: impl FnMut(Message) -> ControlFlow<()>,
    ) -> Result<(), Lost> {
        with_read_buffer(|buffer| {
            let carried = std::mem::take(&mut self.carry);
            let (count, end) = if self.is_stopped { (0, None) } else { self.try_read(buffer) };
            self.was_full = count == READ_SIZE;
            let read = buffer.get(..count).unwrap_or_default();
            let joined = if read.is_empty() || carried.is_empty() { carried } else { [&carried[..], read].concat().into() };
            let mut input = if joined.is_empty() { read } else { &joined[..] };
            let flow = self.take_messages(&mut input, replies, &mut on_message);
            self.is_stopped = matches!(flow, Ok(ControlFlow::Break(())));
            // Part of a header is copied, so that it does not keep the read alive that it came with.
            self.carry =
                if self.is_stopped && !joined.is_empty() { joined.slice_ref(input) } else { Bytes::copy_from_slice(input) };
            let flow = flow?;
            // Headers count, so that no number of empty fragments is for nothing; but more than a message nobody holds.
            self.intake.hold(self.unfinished.min(self.max_message) + self.carry.len()).map_err(|Overflow| Lost::Overflow)?;
            // The end is met again at the next read if messages still stand before it.
            match (flow, end) {
                (ControlFlow::Continue(()), Some(lost)) => Err(lost),
                _ => Ok(()),
            }
        })
    }

    fn try_read(&self, buffer: &mut [u8]) -> (usize, Option<Lost>) {
        match self.stream.try_read(buffer) {
            Ok(0) => (0, Some(Lost::Closed)),
            Ok(count) => (count, None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, None),
            Err(_) => (0, Some(Lost::Broken)),
        }
    }

    fn take_messages(
        &mut self,
        input: &mut &[u8],
        replies: &mut Vec<u8>,
        on_message: &mut impl FnMut(Message) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Lost> {
        for _ in 0..FRAMES_A_TURN {
            let is_between = self.unfinished == 0 && self.frame_left == 0;
            if is_between && let Some(message) = take_whole(input, self.max_message) {
                if on_message(message?).is_break() {
                    break;
                }
                continue;
            }
            if is_between && input.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let tungstenite = self.tungstenite.get_or_insert_with(|| tungstenite(self.max_message));
            let Self { frame_left, is_control, unfinished, .. } = self;
            let mut wire = Wire { input, frame_left, is_control, unfinished, replies };
            let message = match tungstenite.read(&mut wire) {
                Ok(tungstenite::Message::Text(text)) => {
                    // tungstenite has just checked it; the second look costs less than an unsafe block is worth.
                    Message::Text(ByteString::try_from(Bytes::from(text)).map_err(|_| Lost::Broken)?)
                }
                Ok(tungstenite::Message::Binary(bytes)) => Message::Binary(bytes),
                Ok(tungstenite::Message::Close(_)) => {
                    // The answering close frame leaves with this flush.
                    let _ = tungstenite.flush(&mut wire);
                    return Err(Lost::Closed);
                }
                Ok(_) => {
                    // The pong leaves with this flush.
                    let _ = tungstenite.flush(&mut wire);
                    continue;
                }
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(ControlFlow::Continue(()));
                }
                Err(tungstenite::Error::Capacity(_)) => return Err(Lost::TooLarge),
                Err(_) => return Err(Lost::Broken),
            };
            // From here on it counts where it waits.
            self.unfinished = 0;
            self.intake.set(0);
            if on_message(message).is_break() {
                break;
            }
        }
        Ok(ControlFlow::Break(()))
    }
}

impl std::fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocket").field("carry", &self.carry.len()).finish_non_exhaustive()
    }
}

fn tungstenite(max_message: usize) -> Box<WebSocketContext> {
    let config = WebSocketConfig::default()
        .read_buffer_size(FRAME_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    Box::new(WebSocketContext::new(Role::Server, Some(config)))
}

/// Takes a message that is one masked frame and all there, as nearly all are: tungstenite, which is given everything else, would copy it three times. `None`
/// leaves it where it is.
fn take_whole(input: &mut &[u8], max_message: usize) -> Option<Result<Message, Lost>> {
    let (&[first, second], rest) = input.split_first_chunk()?;
    // RFC 6455, section 5.2: the last fragment of a text or binary message, which is the first one, masked.
    let is_text = match first {
        0x81 => true,
        0x82 => false,
        _ => return None,
    };
    let (length, rest) = match second {
        0x80..=0xfd => (usize::from(second & 0x7f), rest),
        0xfe => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (mask, rest) = rest.split_first_chunk::<4>()?;
    let (masked, rest) = rest.split_at_checked(length).filter(|_| length <= max_message)?;
    *input = rest;
    if is_text && masked == [b'3' ^ mask[0]] {
        // The pong of a quiet client, for which nothing is allocated.
        return Some(Ok(Message::Text(ByteString::from_static("3"))));
    }
    let mut payload = masked.to_vec();
    let mut chunks = payload.chunks_exact_mut(4);
    for chunk in &mut chunks {
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    chunks.into_remainder().iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    let payload = Bytes::from(payload);
    Some(if is_text {
        ByteString::try_from(payload).map(Message::Text).map_err(|_| Lost::Broken)
    } else {
        Ok(Message::Binary(payload))
    })
}

/// The stream that tungstenite sees for the length of one read.
struct Wire<'a, 'b> {
    input: &'a mut &'b [u8],
    frame_left: &'a mut u64,
    is_control: &'a mut bool,
    unfinished: &'a mut usize,
    replies: &'a mut Vec<u8>,
}

impl Read for Wire<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if *self.frame_left == 0 {
            *self.frame_left = frame_length(self.input).ok_or(io::ErrorKind::WouldBlock)?;
            // RFC 6455, section 5.5: the opcodes from 8 on.
            *self.is_control = self.input.first().is_some_and(|first| first & 0x08 != 0);
        }
        let left = usize::try_from(*self.frame_left).unwrap_or(usize::MAX);
        let count = left.min(self.input.len()).min(buffer.len());
        let (now, rest) = self.input.split_at(count);
        if now.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..count].copy_from_slice(now);
        *self.input = rest;
        *self.frame_left -= count as u64;
        if !*self.is_control {
            *self.unfinished += count;
        }
        Ok(count)
    }
}

impl Write for Wire<'_, '_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of the frame that begins here, header included, or `None` while its header is incomplete (RFC 6455, section 5.2).
fn frame_length(bytes: &[u8]) -> Option<u64> {
    let second = *bytes.get(1)?;
    let (extended, payload) = match second & 0x7f {
        126 => (2, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (8, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (0, u64::from(short)),
    };
    let header = 2 + extended + if second & 0x80 == 0 { 0 } else { 4 };
    bytes.get(header - 1)?;
    Some(payload.saturating_add(header as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::limits::Limits;
    use proptest::prelude::*;
    use tokio::net::UnixStream;

    proptest! {
        #[test]
        fn frames_cut_anywhere_give_the_same_messages(
            texts in prop::collection::vec(("[ -~]{0,300}", 0_usize..4), 1..12),
            cuts in prop::collection::vec(1_usize..600, 1..20),
        ) {
            let frames = |(text, form): &(String, usize)| {
                let (first, second) = text.as_bytes().split_at(text.len() / 2);
                match form {
                    0 => masked(1, text.as_bytes()),
                    1 => masked(2, text.as_bytes()),
                    2 => [masked(9, b"hi"), masked(1, text.as_bytes())].concat(),
                    _ => [vec![0x01], masked(1, first)[1..].to_vec(), masked(9, b"hi"), masked(0, second)].concat(),
                }
            };
            let bytes: Vec<u8> = texts.iter().flat_map(frames).collect();
            let mut read = Vec::new();
            let mut socket = Pieces::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                socket.give(now, &mut |message| { read.push(message); ControlFlow::Continue(()) }).expect("good frames");
                rest = later;
                if rest.is_empty() { break; }
            }
            let expected: Vec<_> = texts
                .iter()
                .map(|(text, form)| if *form == 1 { Bytes::copy_from_slice(text.as_bytes()).into() } else { Message::from(text.as_str()) })
                .collect();
            prop_assert_eq!(read, expected);
            let pings = texts.iter().filter(|(_, form)| *form >= 2).count();
            prop_assert_eq!(socket.replies, [0x8a, 2, b'h', b'i'].repeat(pings));
            prop_assert_eq!((socket.socket.unfinished, socket.socket.frame_left), (0, 0));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pieces::new().give(&bytes, &mut |_| ControlFlow::Continue(()));
        }
    }

    #[test]
    fn reading_stops_between_two_whole_messages() {
        let mut socket = Pieces::new();
        let bytes = [masked(1, b"one"), masked(1, b"two"), masked(2, &[7; 70_000])].concat();
        let mut read = Vec::new();
        socket
            .give(&bytes, &mut |message| {
                read.push(message);
                ControlFlow::Break(())
            })
            .expect("good frames");
        assert_eq!(read, [Message::from("one")]);
        assert_eq!(socket.input.len(), bytes.len() - masked(1, b"one").len());
        let mut more = 0;
        socket
            .give(&[], &mut |_| {
                more += 1;
                ControlFlow::Continue(())
            })
            .expect("good frames");
        assert_eq!(more, 2);
    }

    #[test]
    fn a_ping_is_answered_into_the_outbox() {
        let mut socket = Pieces::new();
        socket.give(&masked(9, b"hi"), &mut |_| ControlFlow::Continue(())).expect("a good frame");
        assert_eq!(socket.replies, [0x8a, 2, b'h', b'i']);
    }

    #[test]
    fn a_header_that_announces_too_much_is_refused_before_its_payload() {
        let mut frame = vec![0x82, 0xff];
        frame.extend_from_slice(&u64::MAX.to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        assert!(matches!(Pieces::new().give(&frame, &mut |_| ControlFlow::Continue(())), Err(Lost::TooLarge)));
    }

    /// A frame as clients send it (RFC 6455, section 5.3), with an odd mask.
    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x5a, 0x01, 0xff, 0x80];
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// A connection that is given its bytes in pieces, without a socket below it.
    struct Pieces {
        socket: WebSocket,
        input: Vec<u8>,
        replies: Vec<u8>,
        _runtime: tokio::runtime::Runtime,
    }

    impl Pieces {
        fn new() -> Self {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
            let stream = runtime.block_on(async { UnixStream::pair().expect("a pair").0 });
            let intake = Intake::new(&Arc::default(), &Limits::default());
            let socket = WebSocket::new(Stream::Unix(stream), &[], 100_000, intake);
            Self { socket, input: Vec::new(), replies: Vec::new(), _runtime: runtime }
        }

        fn give(&mut self, bytes: &[u8], on_message: &mut impl FnMut(Message) -> ControlFlow<()>) -> Result<(), Lost> {
            self.input.extend_from_slice(bytes);
            let input = std::mem::take(&mut self.input);
            let mut rest = &input[..];
            let result = self.socket.take_messages(&mut rest, &mut self.replies, on_message);
            self.input = rest.to_vec();
            result.map(drop)
        }
    }
}
