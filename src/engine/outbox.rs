//! What waits to be sent to one session: packets in order, bounded by bytes.

use crate::metrics::Metrics;
use crate::protocol::eio::{Encoded, Version, payload, v3};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

/// Pieces that leave in one call; a call takes more than it can send at most once.
const SLICES: usize = 32;

/// Packets in order, and how much of the first one has already left.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    packets: VecDeque<Encoded>,
    bytes: usize,
    sent: usize,
    /// Only while somebody wants to know what has left.
    marks: Option<Box<Marks>>,
}

/// Where in the stream of packets somebody wants to be told that they have left.
#[derive(Debug, Default)]
struct Marks {
    /// Packets that have left since the first mark was set.
    left: usize,
    /// How many have to leave for each mark, in order.
    waiting: VecDeque<(usize, u64)>,
}

/// The body of a GET's answer.
#[derive(Debug)]
pub struct Payload {
    /// The packets, joined.
    pub body: Vec<u8>,
    /// Whether it is no text.
    pub is_binary: bool,
    /// Whether none of its packets forbids compression.
    pub compressible: bool,
    /// Counts the body as outbound until it is dropped: when the answer has left, or its client has.
    pub held: Option<Held>,
}

impl Payload {
    /// An answer that is too small to count.
    pub(super) fn of<'a>(version: Version, packets: impl IntoIterator<Item = &'a Encoded> + Clone) -> Self {
        let compressible = packets.clone().into_iter().all(Encoded::is_compressible);
        let (body, is_binary) = match version {
            Version::V3 => (v3::encode(packets.clone()), v3::is_binary(packets)),
            Version::V4 => (payload::encode(packets), false),
        };
        Self { body, is_binary, compressible, held: None }
    }

    /// An answer of the protocol's own.
    pub(super) fn control(version: Version, packets: &[&str]) -> Self {
        let packets: Vec<_> = packets.iter().copied().map(Encoded::control).collect();
        Self::of(version, &packets)
    }
}

/// Bytes that are on their way out.
#[derive(Debug)]
pub struct Held {
    metrics: Arc<Metrics>,
    bytes: usize,
}

impl Held {
    /// Counts the body as it is on its way: base64 and escapes make it longer, compression shorter.
    pub fn recount(&mut self, bytes: usize) {
        self.metrics.outbound_bytes.add(bytes as i64 - self.bytes as i64);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.outbound_bytes.add(-(self.bytes as i64));
    }
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes that what waits takes, places included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, packet: Encoded) {
        self.bytes += packet.weight();
        self.packets.push_back(packet);
    }

    /// The first packet, of which so many bytes have left already.
    pub(super) fn push_begun(&mut self, packet: Encoded, sent: usize) {
        self.push(packet);
        self.advance(sent);
    }

    /// [`Outbox::take_mark`] gives `mark` when all that waits now has left.
    pub(super) fn mark(&mut self, mark: u64) {
        let marks = self.marks.get_or_insert_default();
        marks.waiting.push_back((marks.left + self.packets.len(), mark));
    }

    /// The next mark before which everything has left.
    pub(super) fn take_mark(&mut self) -> Option<u64> {
        let marks = self.marks.as_mut()?;
        let (due, mark) = *marks.waiting.front()?;
        if due > marks.left {
            return None;
        }
        marks.waiting.pop_front();
        if marks.waiting.is_empty() {
            self.marks = None;
        }
        Some(mark)
    }

    /// Nobody wants to know any more.
    pub(super) fn drop_marks(&mut self) {
        self.marks = None;
    }

    fn count_left(&mut self, packets: usize) {
        if let Some(marks) = &mut self.marks {
            marks.left += packets;
        }
    }

    /// Drops all that waits, but for the rest of a frame that has begun to leave: what follows would land in its middle.
    pub(super) fn drop_unsent(&mut self) {
        self.packets.truncate(usize::from(self.sent > 0));
        if let Some(marks) = &mut self.marks {
            let left = marks.left + self.packets.len();
            marks.waiting.retain(|(due, _)| *due <= left);
        }
        self.bytes = self.packets.front().map_or(0, |packet| packet.weight() - self.sent);
    }

    /// All that waits, as one polling payload.
    pub(super) fn take_payload(&mut self, version: Version, metrics: &Arc<Metrics>) -> Payload {
        let Self { packets, bytes, marks, .. } = std::mem::take(self);
        self.marks = marks;
        self.count_left(packets.len());
        Payload { held: Some(Held { metrics: Arc::clone(metrics), bytes }), ..Payload::of(version, &packets) }
    }

    /// Writes frames with `write` (a `writev`) until it takes no more.
    ///
    /// # Errors
    /// Those of `write`; `WouldBlock` among them says that the rest waits.
    pub(super) fn write_with(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> std::io::Result<usize>) -> std::io::Result<()> {
        // Mostly one packet waits, and takes no list.
        if let (1, 0, Some(packet)) = (self.packets.len(), self.sent, self.packets.front())
            && let [[], frame] = packet.websocket()
        {
            let written = write(&[IoSlice::new(frame)])?;
            self.advance(written);
        }
        while !self.packets.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for packet in &self.packets {
                let [head, frame] = packet.websocket();
                if count + 2 > SLICES {
                    break;
                }
                if !head.is_empty() {
                    slices[count] = IoSlice::new(head);
                    count += 1;
                }
                slices[count] = IoSlice::new(frame);
                count += 1;
            }
            let mut unsent = &mut slices[..count];
            IoSlice::advance_slices(&mut unsent, self.sent);
            let written = write(unsent)?;
            self.advance(written);
        }
        // A burst must not leave its space behind in a session that is quiet from now on.
        if self.packets.capacity() > SLICES {
            self.packets.shrink_to(0);
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(packet) = self.packets.front() {
            let left = packet.len() - self.sent;
            if written < left {
                self.sent += written;
                self.bytes -= written;
                return;
            }
            written -= left;
            self.bytes -= packet.weight() - self.sent;
            self.sent = 0;
            self.packets.pop_front();
            self.count_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Error, ErrorKind};

    proptest! {
        #[test]
        fn every_byte_leaves_once_and_in_order(lengths in prop::collection::vec(0_usize..300, 1..80), steps in prop::collection::vec(0_usize..500, 1..50)) {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (index, length) in lengths.iter().enumerate() {
                let packet = Encoded::binary(&vec![index as u8; *length]);
                let packet = if index % 3 == 0 { packet.for_v3(false) } else { packet };
                expected.extend_from_slice(&packet.websocket().concat());
                outbox.push(packet);
            }
            prop_assert_eq!(outbox.bytes(), expected.len() + lengths.len() * size_of::<Encoded>());
            let mut left = Vec::new();
            let mut steps = steps.into_iter().cycle();
            while !outbox.is_empty() {
                let mut room = steps.next().expect("a cycle") + 1;
                let written = outbox.write_with(|slices| {
                    if room == 0 {
                        return Err(Error::from(ErrorKind::WouldBlock));
                    }
                    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(room).collect();
                    room -= bytes.len();
                    left.extend_from_slice(&bytes);
                    Ok(bytes.len())
                });
                prop_assert!(written.is_ok() || !outbox.is_empty());
                prop_assert_eq!(outbox.bytes(), expected.len() - left.len() + outbox.packets.len() * size_of::<Encoded>());
            }
            prop_assert_eq!(left, expected);
        }
    }

    #[test]
    fn a_mark_is_given_when_all_before_it_has_left() {
        let mut outbox = Outbox::default();
        let mut send = |mark| {
            outbox.push(Encoded::control("4a"));
            outbox.mark(mark);
        };
        send(1);
        send(2);
        assert_eq!(outbox.take_mark(), None);
        // A frame of four bytes, and half of the next one.
        let mut room = 6_usize;
        let _ = outbox
            .write_with(|_| std::mem::take(&mut room).checked_sub(1).map(|left| left + 1).ok_or(ErrorKind::WouldBlock.into()));
        assert_eq!((outbox.take_mark(), outbox.take_mark()), (Some(1), None));
        outbox.push(Encoded::control("4b"));
        outbox.mark(3);
        outbox.drop_unsent();
        outbox.take_payload(Version::V4, &Arc::default());
        assert_eq!((outbox.take_mark(), outbox.take_mark()), (Some(2), None));
        outbox.push(Encoded::control("4c"));
        outbox.mark(4);
        outbox.take_payload(Version::V4, &Arc::default());
        assert_eq!(outbox.take_mark(), Some(4));
        assert!(outbox.marks.is_none());
    }
}
