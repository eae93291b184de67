//! The pipe of the harness programs: a JSON object per line, events and questions out, commands and answers in.
#![allow(dead_code, reason = "each program uses its part")]

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::{BufRead, Write, stdin, stdout};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};

/// A JSON object from names and values.
macro_rules! object {
    ($($name:ident: $value:expr),* $(,)?) => {{
        let mut object = serde_json::Map::new();
        $(crate::pipe::put(&mut object, stringify!($name), $value);)*
        object
    }};
}
pub(crate) use object;

/// Puts a value into an object.
pub fn put(object: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    object.insert(name.to_owned(), value.into());
}

/// Puts a value into an object if there is one, as JavaScript leaves out what is undefined.
pub fn put_some(object: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        put(object, name, value);
    }
}

/// The pipe; clones are the same one.
///
/// What happens before the runtime turns leaves in one piece, so that whoever reads sees it at once, as who listens inside the reference's process does:
/// an event of a client that has disconnected behind it, for example.
#[derive(Clone, Default)]
pub struct Pipe(Arc<Inner>);

#[derive(Default)]
struct Inner {
    questions: Mutex<Questions>,
    /// Lines that have not left.
    lines: Mutex<String>,
}

type Answered = Box<dyn FnOnce(&Value) + Send>;

#[derive(Default)]
struct Questions {
    asked: u64,
    waiting: HashMap<u64, Answered>,
}

impl Pipe {
    /// Says what happened.
    pub fn tell(&self, event: &str, mut fields: Map<String, Value>) {
        fields.insert("t".to_owned(), event.into());
        let line = Value::Object(fields).to_string();
        let is_first = {
            let mut lines = self.0.lines.lock().expect("nothing panics under this lock");
            let is_first = lines.is_empty();
            lines.push_str(&line);
            lines.push('\n');
            is_first
        };
        if is_first {
            let pipe = self.clone();
            tokio::spawn(async move { pipe.flush() });
        }
    }

    /// Lets go what was said.
    pub fn flush(&self) {
        let lines = std::mem::take(&mut *self.0.lines.lock().expect("nothing panics under this lock"));
        // Whoever reads may have gone, which standard input tells as well.
        let _ = stdout().lock().write_all(lines.as_bytes());
    }

    /// Asks, and calls `then` with the answer.
    pub fn ask(&self, question: &str, mut fields: Map<String, Value>, then: impl FnOnce(&Value) + Send + 'static) {
        let number = {
            let mut questions = self.0.questions.lock().expect("nothing panics under this lock");
            questions.asked += 1;
            let number = questions.asked;
            questions.waiting.insert(number, Box::new(then));
            number
        };
        fields.insert("n".to_owned(), number.into());
        self.tell(question, fields);
    }

    /// Asks and waits for the answer, for ever if none comes.
    pub async fn answer_to(&self, question: &str, fields: Map<String, Value>) -> Value {
        let (sender, receiver) = oneshot::channel();
        self.ask(question, fields, move |answer| drop(sender.send(answer.clone())));
        match receiver.await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes the command `answer`.
    pub fn answered(&self, command: &Value) {
        let number = command["n"].as_u64().unwrap_or_default();
        let then = self.0.questions.lock().expect("nothing panics under this lock").waiting.remove(&number);
        if let Some(then) = then {
            then(command);
        }
    }
}

/// The commands as they come; the channel ends with standard input.
pub fn commands() -> mpsc::UnboundedReceiver<Value> {
    let (sender, receiver) = mpsc::unbounded_channel();
    // tokio's own standard input would hold the runtime up at its end.
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(command) => {
                    if sender.send(command).is_err() {
                        return;
                    }
                }
                Err(error) => tracing::error!(%error, line, "not a command"),
            }
        }
    });
    receiver
}
