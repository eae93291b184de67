//! The real binary as a child process, with ports and a folder of its own.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

/// The binary, with nothing of this environment in it.
pub fn stickyport() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stickyport"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself: its exit code, standard output and standard error.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A folder and a range of ports of one test's own.
pub struct Place {
    pub folder: PathBuf,
    pub http: SocketAddr,
    pub base_port: u16,
}

impl Place {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("stickyport-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("created");
        let http = SocketAddr::from(([127, 0, 0, 1], free_ports(5)));
        Self { folder, http, base_port: http.port() + 1 }
    }

    pub fn own(&self, instance: u16) -> SocketAddr {
        SocketAddr::new(self.http.ip(), self.base_port + instance)
    }

    pub fn socket(&self, instance: u16) -> PathBuf {
        self.folder.join(format!("{instance}.sock"))
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("written");
        path
    }

    /// The binary, told to stay in this place.
    pub fn command(&self, instance: u16) -> Command {
        let mut command = stickyport();
        command.args(self.arguments(instance));
        command
    }

    pub fn arguments(&self, instance: u16) -> Vec<String> {
        let mut arguments = vec!["--instance".to_owned(), instance.to_string()];
        for setting in [
            format!("http.listen={}", self.http),
            "ws.host=127.0.0.1".to_owned(),
            format!("ws.base_port={}", self.base_port),
            format!("run_dir={}", self.folder.display()),
            "restart_window=0s".to_owned(),
        ] {
            arguments.extend(["--set".to_owned(), setting]);
        }
        arguments
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The first of so many ports that nobody uses, below those that the kernel gives away.
fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 1000) as u16 * 16;
    for _ in 0..1000 {
        let first = 10_000 + (start + NEXT.fetch_add(1, Relaxed) * 16) % 20_000;
        if (first..first + count).all(|port| TcpListener::bind(("0.0.0.0", port)).is_ok()) {
            return first;
        }
    }
    panic!("no free ports");
}

/// A process that serves; killed when dropped.
pub struct Instance {
    child: Child,
    log: Option<BufReader<ChildStderr>>,
    /// The line that it printed when its ports were bound.
    pub url: String,
}

impl Instance {
    /// Starts it and waits until it says that it listens.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("a line");
        let log = child.stderr.take().map(BufReader::new);
        let mut instance = Self { child, log, url: url.trim_end().to_owned() };
        assert!(!instance.url.is_empty(), "it does not listen: {}", instance.end().1);
        instance
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill {name} {}", self.child.id())]).status().expect("a shell");
        assert!(status.success());
    }

    /// Asks it to end when nobody reads its log any more, and gives it time for that.
    #[allow(dead_code, reason = "not every test stops it so")]
    pub fn stop_unread(mut self) -> ExitStatus {
        self.log = None;
        // TERM, and after 20 s the end that needs no answer.
        let stop = format!(
            "kill -TERM {0}; i=0; while [ $i -lt 20 ] && kill -0 {0}; do i=$((i+1)); sleep 1; done; kill -KILL {0}",
            self.child.id()
        );
        let mut watch = Command::new("sh").args(["-c", &stop]).stderr(Stdio::null()).spawn().expect("a shell");
        let status = self.child.wait().expect("it ends");
        watch.wait().expect("it follows");
        status
    }

    fn log(&mut self) -> &mut BufReader<ChildStderr> {
        self.log.as_mut().expect("read until it stops")
    }

    /// Waits until it logs this.
    pub fn wait_for_log(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.log().read_line(&mut line).expect("UTF-8") > 0, "it ended without: {text}");
        }
    }

    /// Waits for its end: how, and what it logged that nobody has waited for.
    pub fn end(&mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        self.log().read_to_string(&mut log).expect("UTF-8");
        (self.child.wait().expect("waited"), log)
    }

    pub fn stop(mut self) -> (ExitStatus, String) {
        self.signal("-TERM");
        self.end()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request that begins with this head; the whole answer.
pub fn request(server: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(server).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let close = if head.contains("Connection: ") { "" } else { "Connection: close\r\n" };
    write!(stream, "{head}Host: localhost\r\n{close}Content-Length: {}\r\n\r\n{body}", body.len()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

/// The status of an answer to `GET path` over TCP.
pub fn get(address: SocketAddr, path: &str) -> String {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    exchange(stream, path)
}

/// The status of an answer to `GET path` over a unix socket.
pub fn get_unix(socket: &Path, path: &str) -> String {
    exchange(UnixStream::connect(socket).expect("connected"), path)
}

fn exchange(mut stream: impl Read + Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer.lines().next().unwrap_or_default().to_owned()
}
