//! What the example servers share: their flags, and how they serve.
//!
//! They run on one thread if nothing else is said, as the reference does: of two requests that a suite sends at once, the first is answered first.

use clap::Parser;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use stickyport::cluster::Redis;
use stickyport::engine::{self, Application};
use stickyport::http::Listeners;
use stickyport::http::options::Cors;
use stickyport::hub::{self, SocketIo};
use stickyport::protocol::limits::Limits;
use stickyport::{Server, Shutdown};
use tokio::runtime::{self, Runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times are milliseconds, sizes bytes, as the suites that drive these programs write them.
#[derive(Debug, Parser)]
pub struct Flags {
    /// Port on 127.0.0.1; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value_t = 25_000)]
    ping_interval: u64,
    #[arg(long, default_value_t = 20_000)]
    ping_timeout: u64,
    #[arg(long, default_value_t = 45_000)]
    connect_timeout: u64,
    #[arg(long, default_value_t = 1_000_000)]
    max_payload: usize,
    /// How packets are written: json or msgpack.
    #[arg(long, default_value = "json", value_parser = parser)]
    parser: hub::Parser,
    /// Whether clients of protocol 3 may connect.
    #[arg(long)]
    allow_eio3: bool,
    /// Longest disconnection that is recovered; 0 is none.
    #[arg(long, default_value_t = 0)]
    recovery: u64,
    /// Bounds, as JSON of the table `[limits]`; `{}` are the defaults, which hold all clients of a test together for one.
    #[arg(long, default_value = r#"{"handshakes_per_second_per_address":0}"#, value_parser = |json: &str| serde_json::from_str::<Limits>(json))]
    limits: Limits,
}

fn parser(name: &str) -> Result<hub::Parser, serde::de::value::Error> {
    hub::Parser::deserialize(name.into_deserializer())
}

impl Flags {
    pub fn runtime(&self) -> io::Result<Runtime> {
        match self.threads {
            1 => runtime::Builder::new_current_thread().enable_all().build(),
            threads => runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
        }
    }

    /// Serves `application` on `path`, alone or in a cluster, until told to stop; pages of any origin may connect.
    #[expect(clippy::print_stdout, reason = "whoever asked for any free port wants to know which")]
    pub async fn serve(
        self,
        path: &str,
        engine: engine::Builder,
        application: impl Application,
        cluster: Option<(Arc<Redis>, SocketIo)>,
    ) -> Result<(), Box<dyn Error>> {
        let shutdown = Shutdown::on_signals()?;
        let listeners = Listeners::only(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))?;
        println!("listening on 127.0.0.1:{}", listeners.own_port().expect("just bound"));
        let options = engine::Options {
            path: path.to_owned(),
            ping_interval: Duration::from_millis(self.ping_interval),
            ping_timeout: Duration::from_millis(self.ping_timeout),
            max_payload: self.max_payload,
            allow_eio3: self.allow_eio3,
            ..engine::Options::default()
        };
        let engine = engine.options(options).build(Arc::new(application));
        let cors = Cors { origins: vec!["*".to_owned()], ..Cors::default() };
        let mut server = Server::new(engine).cors(cors);
        if let Some((redis, io)) = cluster {
            server = server.cluster(redis, io);
        }
        server.run(listeners, &shutdown).await;
        Ok(())
    }

    /// What a hub is to be built with, which hands them on to its engine.
    #[allow(dead_code, reason = "an Engine.IO server has no hub")]
    pub fn limits(&self) -> Limits {
        self.limits.clone()
    }

    /// What of them is about Socket.IO.
    #[allow(dead_code, reason = "an Engine.IO server has no namespaces")]
    pub fn hub(&self) -> hub::Options {
        hub::Options {
            connect_timeout: Duration::from_millis(self.connect_timeout),
            parser: self.parser,
            recovery: Duration::from_millis(self.recovery),
            ..hub::Options::default()
        }
    }
}
