//! What is done for each receiver of a broadcast, and at each heartbeat, is done without allocating.

#![allow(unsafe_code, reason = "it takes an allocator to count allocations")]

mod crowd;

use bytes::Bytes;
use crowd::Crowd;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;
use stickyport::hub::{Broadcast, Namespace, SocketIo};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_broadcast_allocates_no_more_for_a_thousand_than_for_ten() {
    let targets: [(&str, Target); 6] = [
        ("everyone", |io| io.of("/")),
        ("a room", |io| io.to("all")),
        ("two rooms", |io| io.to(["odd", "all"])),
        ("everyone but a room", |io| io.of("/").except("odd")),
        ("a room but for another", |io| io.to("all").except(["odd", "nobody"])),
        ("everyone who listens", |io| io.of("/").volatile().compress(false)),
    ];
    let few = crowd(10).await;
    let many = crowd(1_000).await;
    for (whom, target) in targets {
        let (for_few, for_many) = (cost(&few, target).await, cost(&many, target).await);
        assert_eq!(for_few, for_many, "{whom}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_allocates_nothing() {
    let crowd = crowd(100).await;
    heartbeat(&crowd).await;
    let before = allocations();
    for _ in 0..10 {
        heartbeat(&crowd).await;
    }
    assert_eq!(allocations() - before, 0);
}

/// Time goes on when all that need not wait is done.
const MOMENT: Duration = Duration::from_millis(1);

/// All of them are in the room `all`, and every other is in `odd`.
async fn crowd(clients: usize) -> Crowd {
    let crowd = Crowd::of(clients, Namespace::new("/")).await;
    for (number, socket) in crowd.io.of("/").local_sockets().iter().enumerate() {
        let rooms = if number % 2 == 1 { vec!["all", "odd"] } else { vec!["all"] };
        socket.join(rooms).expect("room for two");
    }
    // The first event that a socket is sent makes room in its outbox.
    crowd.io.of("/").emit("first", Bytes::from_static(b"bytes")).expect("sent");
    crowd.hear();
    crowd
}

/// Whom a broadcast reaches.
type Target = fn(&SocketIo) -> Broadcast;

/// What a broadcast allocates.
async fn cost(crowd: &Crowd, target: Target) -> usize {
    // A volatile event is not sent in the moment of another.
    sleep(MOMENT).await;
    let receivers = target(&crowd.io).local_sockets().len();
    let before = allocations();
    target(&crowd.io).emit("news", Bytes::from_static(b"bytes")).expect("sent");
    let cost = allocations() - before;
    assert_eq!(crowd.hear(), receivers);
    cost
}

/// The time between two pings goes by, and each client answers the ping that comes then.
async fn heartbeat(crowd: &Crowd) {
    sleep(crowd.engine.options().ping_interval + MOMENT).await;
    assert_eq!(crowd.hear(), crowd.clients.len());
    crowd.clients.iter().for_each(|client| client.say("3"));
    sleep(MOMENT).await;
    assert_eq!(crowd.engine.len(), crowd.clients.len());
}

/// Allocations that this thread has made so far.
fn allocations() -> usize {
    ALLOCATIONS.get()
}

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The system's allocator, counted for each thread.
struct Counting;

// SAFETY: all is left to the system's allocator, and the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller has promised what it asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}
