//! The server that the reference's protocol suite expects: echoes with and without acknowledgement in `/` and `/custom`.

mod example;

use clap::Parser;
use example::Flags;
use serde_json::{Value, json};
use stickyport::hub::{Ack, Args, EmitError, Namespace, Socket, SocketIo};

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Flags::parse();
    flags.runtime()?.block_on(serve(flags))
}

async fn serve(flags: Flags) -> Result<(), Box<dyn std::error::Error>> {
    let io = SocketIo::builder()
        .options(flags.hub())
        .limits(flags.limits())
        .namespace(namespace("/"))
        .namespace(namespace("/custom"))
        .build();
    flags.serve("/socket.io/", io.engine(), io).await
}
