//! The conformance example on socketioxide, over hyper as its own examples have it.

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef, TryData};
use std::error::Error;
use std::sync::Arc;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (service, io) = SocketIo::new_svc();
    for namespace in ["/", "/custom"] {
        io.ns(namespace, connected);
    }
    let service = Arc::new(service);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            // A client that goes is no fault of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

async fn connected(socket: SocketRef, TryData(auth): TryData<Value>) {
    // Whoever is gone already misses nothing.
    let _ = socket.emit("auth", &auth.unwrap_or_else(|_| serde_json::json!({})));
    socket.on("message", async |socket: SocketRef, Data::<Value>(data)| drop(socket.emit("message-back", &data)));
    socket.on("message-with-ack", async |Data::<Value>(data), ack: AckSender| drop(ack.send(&data)));
    socket.on("broadcast", async |socket: SocketRef, Data::<Value>(data), io: SocketIo| {
        if let Some(namespace) = io.of(socket.ns()) {
            let _ = namespace.emit("broadcast", &data).await;
        }
    });
}
