//! The server that the reference's protocol suite expects: echoes with and without acknowledgement in `/` and `/custom`.

mod flags;

use clap::Parser;
use flags::Flags;
use serde_json::{Value, json};
use std::sync::Arc;
use stickyport::engine::Engine;
use stickyport::http::Listeners;
use stickyport::http::options::Cors;
use stickyport::hub::{self, Ack, Args, EmitError, Namespace, Socket, SocketIo};
use stickyport::{Server, Shutdown};

fn namespace(name: &str) -> Namespace {
    Namespace::new(name)
        .on_connect(async |socket: Socket| -> Result<(), EmitError> {
            let auth: Value = socket.handshake().auth().unwrap_or_else(|_| json!({}));
            socket.emit("auth", &auth)
        })
        .on("message", |socket: Socket, args: Args| socket.emit("message-back", args))
        .on("message-with-ack", |args: Args| Ack(args))
        .on("broadcast", |socket: Socket, args: Args| socket.io().of(socket.namespace()).emit("broadcast", args))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Flags::parse();
    let shutdown = Shutdown::on_signals()?;
    let listeners = Listeners::only(flags.address())?;
    println!("listening on 127.0.0.1:{}", listeners.own_port().expect("just bound"));
    let io = SocketIo::builder()
        .options(hub::Options { connect_timeout: flags.connect_timeout(), ..hub::Options::default() })
        .namespace(namespace("/"))
        .namespace(namespace("/custom"))
        .build();
    let engine = Engine::builder().options(flags.engine("/socket.io/")).build(Arc::new(io));
    let cors = Cors { origins: vec!["*".to_owned()], ..Cors::default() };
    Server::new(engine).cors(cors).run(listeners, &shutdown).await;
    Ok(())
}
