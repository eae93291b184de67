//! An Engine.IO server that sends every message back as it came; for suites and benches.

mod example;

use clap::Parser;
use example::Flags;
use std::sync::Arc;
use stickyport::engine::{Application, CloseReason, Connection, Engine, Message, Session};

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Flags::parse();
    flags.runtime()?.block_on(serve(flags))
}

async fn serve(flags: Flags) -> Result<(), Box<dyn std::error::Error>> {
    flags.serve("/engine.io/", Engine::builder(), Echo, None).await
}
