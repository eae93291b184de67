//! Why a session id is unknown, as the operator of the binary sees it; the client is always told the same.

mod process;

use process::{Instance, Place, request};
use std::net::SocketAddr;

const UPGRADE: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn it_is_told_apart_in_metric_and_log_and_is_in_neither() {
    let place = Place::new("unknown-sid");
    let instance = Instance::start(place.command(3).args(["--set", "log.level=trace"]));
    let server = place.own(3);
    let open = request(server, "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n", "");
    let (_, rest) = open.split_once("\"sid\":\"").expect("an open packet");
    let (gone, _) = rest.split_once('"').expect("a sid");
    assert!(polling(server, "POST", gone, "1").ends_with("ok"), "its client closes it");

    let earlier = "3-00abcdefghijklmnop";
    let other = "7-00abcdefghijklmnop";
    let unknown = [gone, earlier, other, "garbage-in-20-chars.", "what"];
    for sid in unknown {
        for answer in [polling(server, "GET", sid, ""), polling(server, "POST", sid, "4")] {
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.ends_with(r#"{"code":1,"message":"Session ID unknown"}"#),
                "{answer}"
            );
        }
        let head = format!("GET /socket.io/?EIO=4&transport=websocket&sid={sid} HTTP/1.1\r\n{UPGRADE}");
        let answer = request(server, &head, "");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("Session ID unknown"), "{answer}");
    }
    let page = request(server, "GET /metrics HTTP/1.1\r\n", "");
    let (_, log) = instance.stop();

    for (reason, count) in [("sid_gone", 6), ("sid_other", 3), ("sid_garbage", 6)] {
        let sample = format!("stickyport_requests_refused_total{{reason=\"{reason}\"}} {count}");
        assert!(page.lines().any(|line| line == sample), "{sample}");
        let told: Vec<_> = log.lines().filter(|line| line.contains("session id unknown") && line.contains(reason)).collect();
        assert_eq!(told.len(), count, "{log}");
        assert!(told.iter().all(|line| line.contains("DEBUG") && line.contains("owner=7") == (reason == "sid_other")), "{log}");
    }
    for sid in unknown {
        assert!(!log.contains(sid) && !page.contains(sid), "a sid is a credential: {log}");
    }
}

fn polling(server: SocketAddr, method: &str, sid: &str, body: &str) -> String {
    request(server, &format!("{method} /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\n"), body)
}
