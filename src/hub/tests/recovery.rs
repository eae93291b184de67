//! How clients take up a connection again.

mod missed;
mod returning;

use crate::hub::testing::{Client, Server};
use crate::hub::{Namespace, Options, Socket};
use serde_json::Value;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Who a client is.
#[derive(Debug, Clone, PartialEq)]
struct Me {
    sid: String,
    pid: String,
}

impl Me {
    /// From the answer to CONNECT.
    fn read(packet: &str) -> Self {
        let json = packet
            .strip_prefix('0')
            .and_then(|rest| rest.get(rest.find('{')?..))
            .unwrap_or_else(|| panic!("{packet} is no welcome"));
        let welcome: Value = serde_json::from_str(json).expect("JSON");
        let text = |key: &str| welcome[key].as_str().unwrap_or_else(|| panic!("{packet} has no {key}")).to_owned();
        Self { sid: text("sid"), pid: text("pid") }
    }

    /// A CONNECT packet.
    fn connect(&self, prefix: &str, offset: Option<&str>) -> String {
        let offset = offset.map(|offset| format!(r#","offset":"{offset}""#)).unwrap_or_default();
        format!(r#"0{prefix}{{"pid":"{}"{offset},"more":1}}"#, self.pid)
    }
}

impl Client {
    async fn enter(&mut self, namespace: &str, auth: &str) -> Me {
        self.say(&format!("0{namespace},{auth}")).await;
        Me::read(&self.hear().await)
    }
}

fn recovering() -> Options {
    Options { recovery: 2 * MINUTE, ..Options::default() }
}

fn server(namespace: Namespace) -> Server {
    Server::with(|builder| builder.options(recovering()).namespace(namespace))
}

/// A client that was not here before.
async fn came(server: &Server, namespace: &str, auth: &str) -> (Client, Me) {
    let mut client = server.client();
    let me = client.enter(namespace, auth).await;
    (client, me)
}

/// A client that comes back, and what it is told up to the welcome.
async fn back(server: &Server, namespace: &str, me: &Me, offset: Option<&str>) -> (Client, Vec<String>) {
    let mut client = server.client();
    client.say(&me.connect(&format!("{namespace},"), offset)).await;
    let mut told = Vec::new();
    while !told.last().is_some_and(|packet: &String| packet.starts_with('0')) {
        told.push(client.hear().await);
    }
    (client, told)
}

fn socket(server: &Server, sid: &str) -> Socket {
    let sockets = server.io.of("/").local_sockets();
    sockets.into_iter().find(|socket| socket.id().as_str() == sid).expect("connected")
}

/// The offset at the end of an event whose rest is `expected`.
fn offset(packet: &str, expected: &str) -> String {
    let json = packet.get(packet.find('[').unwrap_or_default()..).unwrap_or_default();
    let mut event: Vec<Value> = serde_json::from_str(json).unwrap_or_else(|_| panic!("{packet} is no event"));
    let offset = event.pop().and_then(|offset| offset.as_str().map(str::to_owned));
    let rest = Value::from(event).to_string();
    assert_eq!(rest, expected, "{packet}");
    offset.unwrap_or_else(|| panic!("{packet} has no offset"))
}
