//! `stickyport emit`: an event for the clients of a cluster, from a shell.

use super::{Exit, Settings, chain, complain, print};
use crate::cluster::{Emitter, EmitterError};
use crate::hub::{Args as Arguments, EmitError};
use clap::Args;
use serde_json::value::RawValue;

pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  published; how many servers heard it is printed
  64  the command line or the configuration is wrong, or redis.url is not set
  75  Redis cannot be reached, or refuses";

/// An event, and whom it is for.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Emit {
    #[command(flatten)]
    settings: Settings,
    /// Namespace of the clients
    #[arg(long, value_name = "NAME", default_value = "/")]
    namespace: String,
    /// Only those in this room; may be repeated, and one of them is enough
    #[arg(long, value_name = "ROOM")]
    room: Vec<String>,
    /// Not those in this room; may be repeated
    #[arg(long, value_name = "ROOM")]
    except: Vec<String>,
    /// The event may be lost: only those hear it for whom nothing has to wait
    #[arg(long)]
    volatile: bool,
    /// Name of the event
    event: String,
    /// Its arguments, each of them JSON, such as '{"text":"tea?"}' or 7
    #[arg(value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
    args: Vec<String>,
}

impl Emit {
    pub(super) fn run(self, before: Settings) -> Exit {
        let options = match before.then(self.settings).cluster() {
            Ok(options) => options,
            Err(exit) => return exit,
        };
        let args = Arguments::from_raw(&format!("[{}]", self.args.join(",")), Vec::new()).expect("each of them is JSON");
        let emit = async {
            let mut sockets = Emitter::connect(&options).await?.of(&self.namespace).to(self.room).except(self.except);
            if self.volatile {
                sockets = sockets.volatile();
            }
            sockets.emit(&self.event, args).await
        };
        match super::wait_for(emit) {
            Err(exit) => exit,
            Ok(Ok(servers)) => print(&format!("{servers} servers heard it\n")),
            Ok(Err(error)) => {
                if let EmitterError::Event(EmitError::Reserved(_)) | EmitterError::Url(_) = error {
                    complain(&chain(&error));
                    return Exit::Configuration;
                }
                complain(&format!("Redis at {}: {}", options.address(), chain(&error)));
                Exit::Away
            }
        }
    }
}

fn json(text: &str) -> Result<String, String> {
    serde_json::from_str::<&RawValue>(text).map(|json| json.get().to_owned()).map_err(|error| format!("it is no JSON: {error}"))
}
