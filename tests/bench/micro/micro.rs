//! What the pieces cost, in time and in allocations: decoders, encoders, framing, and how an event fans out.

#[path = "../../crowd/mod.rs"]
#[expect(dead_code, reason = "here nobody looks below the sockets")]
mod crowd;

use bytes::Bytes;
use bytestring::ByteString;
use crowd::Crowd;
use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher, black_box};
use mimalloc::MiMalloc;
use stickyport::hub::{Args, Namespace, Socket};
use stickyport::protocol::eio::handshake::Query;
use stickyport::protocol::eio::{Encoded, Packet, payload};
use stickyport::protocol::sio::{Decoder, Parser};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

const PARSERS: [Parser; 2] = [Parser::Json, Parser::MsgPack];

/// Packets in one payload.
const PACKETS: usize = 16;

fn main() {
    divan::main();
}

mod decode {
    use super::*;

    #[divan::bench]
    fn query() -> Query<'static> {
        Query::parse(black_box("EIO=4&transport=polling&t=PxyzABC.1&sid=0-aB0123456789abcdef"))
    }

    #[divan::bench]
    fn packet(bencher: Bencher) {
        bencher.with_inputs(|| ByteString::from(r#"42["message","0123456789abcdef"]"#)).bench_values(Packet::decode);
    }

    #[divan::bench]
    fn payload(bencher: Bencher) {
        let packets = vec![r#"42["message","0123456789abcdef"]"#; PACKETS].join("\x1e");
        bencher
            .with_inputs(|| ByteString::from(&*packets))
            .bench_values(|text| super::payload::decode(&text, PACKETS).filter(Result::is_ok).count());
    }

    #[divan::bench(args = PARSERS)]
    fn event(bencher: Bencher, parser: Parser) {
        message(bencher, parser, &small());
    }

    #[divan::bench(args = PARSERS)]
    fn large_event(bencher: Bencher, parser: Parser) {
        message(bencher, parser, &large());
    }

    fn message(bencher: Bencher, parser: Parser, args: &Args) {
        let sent = parser.event("/", None, "message", args);
        let [packet] = &sent[..] else { panic!("no attachments") };
        let bytes = packet.payload();
        let decoder = move || Decoder::new(parser, 10);
        let bencher = bencher.counter(BytesCount::new(bytes.len()));
        match parser {
            Parser::Json => {
                // Without the digit of the layer below.
                let text = std::str::from_utf8(bytes).ok().and_then(|text| text.get(1..)).expect("a text packet");
                bencher.with_inputs(|| ByteString::from(text)).bench_values(|text| decoder().text(text));
            }
            Parser::MsgPack => {
                bencher.with_inputs(|| Bytes::copy_from_slice(bytes)).bench_values(|bytes| decoder().binary(bytes))
            }
        }
    }
}

mod encode {
    use super::*;

    #[divan::bench]
    fn args() -> Args {
        Args::new(black_box(&("photo", 7, [1.5, 2.5]))).expect("JSON")
    }

    #[divan::bench(args = PARSERS)]
    fn event(bencher: Bencher, parser: Parser) {
        let args = small();
        bencher.bench(|| parser.event("/", None, "message", black_box(&args)));
    }

    #[divan::bench(args = PARSERS)]
    fn large_event(bencher: Bencher, parser: Parser) {
        let args = large();
        bencher.bench(|| parser.event("/", None, "message", black_box(&args)));
    }

    #[divan::bench]
    fn payload(bencher: Bencher) {
        let packets: Vec<_> = (0..PACKETS).flat_map(|_| Parser::Json.event("/", None, "message", &small())).collect();
        bencher.bench(|| super::payload::encode(black_box(&packets)));
    }

    #[divan::bench(args = [16, 1_024, 65_536])]
    fn frame(bencher: Bencher, length: usize) {
        let bytes = vec![7; length];
        bencher.counter(BytesCount::new(length)).bench(|| Encoded::binary(black_box(&bytes)));
    }
}

/// Over connections inside the process, which count for a little of it.
mod serve {
    use super::*;

    #[divan::bench]
    fn echo(bencher: Bencher) {
        let runtime = runtime();
        let namespace = Namespace::new("/").on("message", |socket: Socket, args: Args| socket.emit("message-back", args));
        let crowd = runtime.block_on(Crowd::of(1, namespace));
        let [client] = &crowd.clients[..] else { panic!("one client") };
        bencher.bench_local(|| {
            client.say(r#"42["message","0123456789abcdef"]"#);
            runtime.block_on(async {
                while client.hear() == 0 {
                    yield_now().await;
                }
            });
        });
    }

    #[divan::bench(args = [10, 100, 1_000], sample_size = 1, sample_count = 1_000)]
    fn room(bencher: Bencher, members: usize) {
        let runtime = runtime();
        let crowd = runtime.block_on(Crowd::of(members, Namespace::new("/")));
        for socket in crowd.io.of("/").local_sockets() {
            socket.join("room").expect("room for one");
        }
        bencher.with_inputs(|| crowd.hear()).bench_local_values(|_| crowd.io.to("room").emit("news", "0123456789abcdef"));
        assert_eq!(crowd.hear(), members);
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().expect("a runtime")
    }
}

fn small() -> Args {
    Args::new("0123456789abcdef").expect("JSON")
}

/// About seven kilobytes of lists and numbers.
fn large() -> Args {
    let rows: Vec<_> = (0..200).map(|row| ("a row", row, [0.5, 1.25, -3.0], true)).collect();
    Args::new(&rows).expect("JSON")
}
