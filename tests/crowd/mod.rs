//! A server in this process, and a crowd of clients that are connected to it without any network.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::SystemTime;
use stickyport::engine::stream::{Memory, Stream};
use stickyport::engine::{Engine, Handshake, Version};
use stickyport::hub::{Namespace, SocketIo};
use stickyport::protocol::sid::Sid;
use tokio::task::yield_now;

pub struct Crowd {
    pub io: SocketIo,
    pub engine: Arc<Engine>,
    pub clients: Vec<Client>,
}

/// One that speaks WebSocket, and counts what it hears instead of reading it.
pub struct Client(Memory);

impl Crowd {
    /// So many clients that are connected to this namespace, which is `/`, and have heard so.
    pub async fn of(clients: usize, namespace: Namespace) -> Self {
        let io = SocketIo::builder().namespace(namespace).build();
        let engine = io.engine().build(Arc::new(io.clone()));
        let clients: Vec<_> = (0..clients).map(|number| Client::open(&engine, number)).collect();
        let crowd = Self { io, engine, clients };
        crowd.clients.iter().for_each(|client| client.say("40"));
        while crowd.io.of("/").local_sockets().len() < crowd.clients.len() {
            yield_now().await;
        }
        crowd.hear();
        crowd
    }

    /// How many of them were sent something.
    pub fn hear(&self) -> usize {
        self.clients.iter().filter(|client| client.hear() > 0).count()
    }
}

impl Client {
    fn open(engine: &Arc<Engine>, number: usize) -> Self {
        let handshake = Handshake {
            version: Version::V4,
            headers: Default::default(),
            query: Vec::new(),
            url: "/socket.io/".to_owned(),
            address: number.to_string(),
            secure: false,
            issued: SystemTime::UNIX_EPOCH,
        };
        let admission = engine.admit(&handshake.address).expect("a place for everyone");
        let (server, client) = Memory::pair(64 * 1024);
        engine.open_websocket(Sid::from(&*format!("0-00{number:016}")), admission, handshake, Stream::Memory(server), &[]);
        Self(client)
    }

    /// Sends a packet of at most 125 bytes, masked with zeros.
    pub fn say(&self, packet: &str) {
        let head = [0x81, 0x80 | packet.len() as u8, 0, 0, 0, 0];
        self.0.try_write_vectored(&[IoSlice::new(&head), IoSlice::new(packet.as_bytes())]).expect("room");
    }

    /// How many bytes it was sent.
    pub fn hear(&self) -> usize {
        self.0.try_read(&mut [0; 4096]).unwrap_or(0)
    }
}
