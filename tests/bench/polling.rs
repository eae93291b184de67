//! Socket.IO clients over long-polling: each with one connection for the request that waits and one for those that bring something.

use crate::lines::{Lines, connect};
use httparse::{EMPTY_HEADER, Response, Status};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::str;
use std::time::{Duration, Instant};

pub struct Pollers {
    lines: Lines,
    message: &'static str,
    pollers: Vec<Poller>,
}

struct Poller {
    sid: String,
    get: String,
    post: String,
    /// Whether the answer to its message is missing, and the one to the request that brought it.
    is_waiting: bool,
    is_bringing: bool,
    owes_pong: bool,
    sent: Instant,
}

impl Pollers {
    /// That many, each connected to `/` and greeted; what they bring from now on is `message`.
    pub fn open(server: SocketAddr, count: usize, message: &'static str) -> io::Result<Self> {
        let mut pollers = Self { lines: Lines::new()?, message, pollers: Vec::new() };
        for index in 0..count {
            let mut stream = connect(server)?;
            let open = ask(&mut stream, &get(""))?;
            let sid = open.split_once("\"sid\":\"").and_then(|(_, rest)| rest.split('"').next());
            let sid = format!("&sid={}", sid.ok_or_else(|| io::Error::other(open.clone()))?);
            ask(&mut stream, &post(&sid, "40"))?;
            let mut owes_pong = false;
            // What greets may come in two answers.
            loop {
                let greeting = ask(&mut stream, &get(&sid))?;
                owes_pong |= greeting.split('\x1e').any(|packet| packet == "2");
                if greeting.contains("42[\"auth\",") {
                    break;
                }
            }
            let (get, post) = (get(&sid), post(&sid, message));
            pollers.pollers.push(Poller {
                sid,
                get,
                post,
                is_waiting: false,
                is_bringing: false,
                owes_pong,
                sent: Instant::now(),
            });
            pollers.lines.put(2 * index, stream)?;
            pollers.lines.put(2 * index + 1, connect(server)?)?;
        }
        Ok(pollers)
    }

    /// Each brings its message.
    pub fn begin(&mut self) -> io::Result<()> {
        (0..self.pollers.len()).try_for_each(|index| self.bring(index))
    }

    pub fn spun(&self) -> Duration {
        self.lines.spun
    }

    /// Waits, at most until then, and reads what has arrived: `round` is given how long it took a client until it had `expected` and what it had brought was
    /// taken; it brings the next. Returns how many requests were answered.
    pub fn turn(&mut self, until: Instant, expected: &[u8], mut round: impl FnMut(Duration)) -> io::Result<u64> {
        let (mut answers, mut done) = (0, Vec::new());
        self.lines.turn(until, |line, stream, arrived| {
            let Some((head, body)) = answer(arrived)? else { return Ok(0) };
            let (index, is_get) = (line / 2, line % 2 == 0);
            let poller = &mut self.pollers[index];
            answers += 1;
            if is_get {
                for packet in body.split(|byte| *byte == 0x1e) {
                    match packet {
                        b"2" => poller.owes_pong = true,
                        packet if packet == expected => poller.is_waiting = false,
                        _ => return Err(io::Error::other(String::from_utf8_lossy(arrived))),
                    }
                }
                if poller.is_waiting {
                    stream.send(poller.get.as_bytes())?;
                }
            } else if body.eq_ignore_ascii_case(b"ok") {
                poller.is_bringing = false;
            } else {
                return Err(io::Error::other(String::from_utf8_lossy(arrived)));
            }
            if !poller.is_waiting && !poller.is_bringing {
                done.push(index);
            }
            Ok(head + body.len())
        })?;
        for index in done {
            round(self.pollers[index].sent.elapsed());
            self.bring(index)?;
        }
        Ok(answers)
    }

    fn bring(&mut self, index: usize) -> io::Result<()> {
        let poller = &mut self.pollers[index];
        (poller.is_waiting, poller.is_bringing, poller.sent) = (true, true, Instant::now());
        self.lines.send(2 * index, poller.get.as_bytes())?;
        if std::mem::take(&mut poller.owes_pong) {
            return self.lines.send(2 * index + 1, post(&poller.sid, &format!("3\x1e{}", self.message)).as_bytes());
        }
        self.lines.send(2 * index + 1, poller.post.as_bytes())
    }
}

fn get(sid: &str) -> String {
    format!("GET /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

fn post(sid: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: bench\r\nContent-Type: text/plain;charset=UTF-8\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends a request and waits for what answers it.
fn ask(stream: &mut TcpStream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let (mut arrived, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut buffer)?;
        arrived.extend_from_slice(&buffer[..length]);
        if let Some((_, body)) = answer(&arrived)? {
            return Ok(String::from_utf8_lossy(body).into_owned());
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// An answer that is there as a whole: the length of its head, and its body.
fn answer(arrived: &[u8]) -> io::Result<Option<(usize, &[u8])>> {
    let mut headers = [EMPTY_HEADER; 16];
    let mut response = Response::new(&mut headers);
    let Status::Complete(head) = response.parse(arrived).map_err(io::Error::other)? else { return Ok(None) };
    if response.code != Some(200) {
        return Err(io::Error::other(String::from_utf8_lossy(arrived)));
    }
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|length| str::from_utf8(length.value).ok()?.parse().ok());
    let length: usize = length.ok_or_else(|| io::Error::other("an answer without a length"))?;
    Ok(arrived.get(head..head + length).map(|body| (head, body)))
}
