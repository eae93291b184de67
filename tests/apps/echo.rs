//! An Engine.IO server that sends every message back as it came; for suites and benches.

mod flags;

use clap::Parser;
use flags::Flags;
use std::sync::Arc;
use stickyport::engine::{Application, CloseReason, Connection, Engine, Message, Session};
use stickyport::http::Listeners;
use stickyport::http::options::Cors;
use stickyport::{Server, Shutdown};

struct Echo;

impl Application for Echo {
    fn opened(&self, _: &Arc<Session>) -> Arc<dyn Connection> {
        Arc::new(Echo)
    }
}

impl Connection for Echo {
    fn message(&self, session: &Arc<Session>, message: Message) {
        // A session that closes in between takes no answer.
        let _ = session.send_message(&message);
    }

    fn closed(&self, _: &Arc<Session>, _: CloseReason) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Flags::parse();
    let shutdown = Shutdown::on_signals()?;
    let listeners = Listeners::only(flags.address())?;
    println!("listening on 127.0.0.1:{}", listeners.own_port().expect("just bound"));
    let engine = Engine::builder().options(flags.engine("/engine.io/")).build(Arc::new(Echo));
    let cors = Cors { origins: vec!["*".to_owned()], ..Cors::default() };
    Server::new(engine).cors(cors).run(listeners, &shutdown).await;
    Ok(())
}
