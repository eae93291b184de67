//! The server that the reference's protocol suite expects, and the bench: echoes with and without acknowledgement in `/` and `/custom`.

mod example;

use clap::Parser;
use example::Flags;
use serde_json::{Value, json};
use std::time::SystemTime;
use stickyport::cluster::{self, Redis};
use stickyport::hub::{Ack, Args, EmitError, Namespace, Socket, SocketIo};
use stickyport::protocol::sid::{Boot, Node};

fn namespace(name: &str) -> Namespace {
    Namespace::new(name)
        .on_connect(async |socket: Socket| -> Result<(), EmitError> {
            let auth: Value = socket.handshake().auth().unwrap_or_else(|_| json!({}));
            socket.emit("auth", &auth)
        })
        .on("message", |socket: Socket, args: Args| socket.emit("message-back", args))
        .on("message-with-ack", |args: Args| Ack(args))
        .on("broadcast", |socket: Socket, args: Args| socket.io().of(socket.namespace()).emit("broadcast", args))
        .on("count", async |socket: Socket| {
            let sockets = socket.io().of(socket.namespace()).fetch_sockets().await;
            socket.emit("counted", sockets.value.len())
        })
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    /// URL of the Redis of the cluster that it joins.
    #[arg(long)]
    redis: Option<String>,
    /// Its number in the cluster.
    #[arg(long, default_value_t = 0)]
    node: u32,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    arguments.flags.runtime()?.block_on(serve(arguments))
}

async fn serve(Arguments { flags, redis, node }: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let redis = match redis {
        Some(url) => Some(Redis::new(&cluster::Options { url, ..Default::default() }, &flags.limits())?),
        None => None,
    };
    let mut builder = SocketIo::builder()
        .options(flags.hub())
        .limits(flags.limits())
        .ids(Node::try_from(node)?, Boot::at(SystemTime::now()))
        .namespace(namespace("/"))
        .namespace(namespace("/custom"));
    if let Some(redis) = &redis {
        builder = builder.adapter(redis.clone());
    }
    let io = builder.build();
    let cluster = redis.map(|redis| (redis, io.clone()));
    flags.serve("/socket.io/", io.engine(), io, cluster).await
}
