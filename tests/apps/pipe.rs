//! The pipe of the harness programs: a JSON object per line, events and questions out, commands and answers in.
#![allow(dead_code, reason = "each program uses its part")]

use serde_json::{Map, Value};
use socket2::SockRef;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

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

/// The commands as they come.
///
/// They are read on the runtime's own thread, as the requests are: none that was made after a command is met before it.
pub struct Commands {
    input: Receiver,
    /// What was read and is not taken yet.
    text: Vec<u8>,
}

impl Commands {
    /// Takes standard input, which must be a pipe or a socket.
    ///
    /// # Errors
    /// It is neither.
    pub fn new() -> io::Result<Self> {
        let input = File::from(stdin().as_fd().try_clone_to_owned()?);
        SockRef::from(&input).set_nonblocking(true)?;
        // Node gives a socket, which is read alike.
        Ok(Self { input: Receiver::from_file_unchecked(input)?, text: Vec::new() })
    }

    /// The next command; `None` when the input has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(command) = self.take() {
                return Some(command);
            }
            self.input.readable().await.ok()?;
            match self.read() {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return None,
            }
        }
    }

    /// The next command, if it is there.
    pub fn next_now(&mut self) -> Option<Value> {
        self.take().or_else(|| {
            // The end, too, is left to whoever waits.
            self.read().ok()?;
            self.take()
        })
    }

    fn take(&mut self) -> Option<Value> {
        loop {
            let end = self.text.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.text.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(command) => return Some(command),
                Err(error) => tracing::error!(%error, "not a command"),
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let count = self.input.try_read(&mut buffer)?;
        self.text.extend(buffer.iter().take(count));
        Ok(count)
    }
}
