//! What the conformance server does not show: acknowledgements from the client, rooms, and a middleware that refuses.

mod example;

use bytes::Bytes;
use clap::Parser;
use example::Flags;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use stickyport::hub::{Ack, All, Args, Auth, ConnectError, Data, HandlerResult, Namespace, Socket, SocketIo};

#[derive(Deserialize)]
struct Credentials {
    token: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Flags::parse();
    flags.runtime()?.block_on(serve(flags))
}

async fn serve(flags: Flags) -> Result<(), Box<dyn std::error::Error>> {
    let main = Namespace::new("/")
        .on("ask", async |socket: Socket, args: Args| -> HandlerResult {
            let answer = socket.timeout(Duration::from_secs(10)).emit_with_ack("question", args).await?;
            socket.emit("answer", answer)?;
            Ok(())
        })
        .on("join", async |socket: Socket, Data(room): Data<String>| -> HandlerResult<Ack<()>> {
            socket.join(room)?;
            Ok(Ack(()))
        })
        .on("tell", async |socket: Socket, All((room, bytes)): All<(String, Bytes)>| -> HandlerResult<Ack<()>> {
            socket.io().to(room).emit("told", bytes)?;
            Ok(Ack(()))
        });
    let guarded = Namespace::new("/guarded").middleware(async |Auth(credentials): Auth<Credentials>| {
        if credentials.token == "secret" {
            return Ok(());
        }
        Err(ConnectError::new("not authorized").data(&json!({ "code": 401 })))
    });
    let io = SocketIo::builder().options(flags.hub()).namespace(main).namespace(guarded).build();
    flags.serve("/socket.io/", io.engine(), io, None).await
}
