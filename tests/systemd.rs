//! What systemd hears of the binary, over a real socket: that it is ready, what it does, that it is alive, and that it goes.

mod process;

use process::{Instance, Place, get};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};
use stickyport::engine::{Application, CloseReason, Connection, Engine, Message, Session};
use stickyport::http::Listeners;
use stickyport::{Server, Shutdown};

#[test]
fn the_url_is_for_a_terminal_and_not_for_the_journal() {
    let place = Place::new("journal");
    let path = place.folder.join("stdout");
    for (more, said) in [(0, ""), (1, "/page\n")] {
        let stdout = File::create(&path).expect("created");
        let its = stdout.metadata().expect("known");
        let mut command = place.command(0);
        command.env("JOURNAL_STREAM", format!("{}:{}", its.dev(), its.ino() + more)).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
        let is_up = log.any(|line| line.contains("listening"));
        child.kill().expect("there");
        child.wait().expect("waited");
        let printed = fs::read_to_string(&path).expect("UTF-8");
        assert!(is_up && printed.ends_with(said) && printed.is_empty() == said.is_empty(), "{printed}");
    }
}

#[test]
fn it_is_ready_when_clients_may_come_and_says_how_many_are_here() {
    let place = Place::new("notify-status");
    let manager = Manager::new(&place);
    let mut instance = Instance::start(place.command(0).env("NOTIFY_SOCKET", &manager.path));
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving: 0 sessions (0 over WebSocket), 0 clients, 0 rooms\n");
    assert_eq!(get(place.own(0), "/readyz"), "HTTP/1.1 200 OK");
    let sid = open(place.own(0));
    assert_eq!(manager.next(), "STATUS=serving: 1 sessions (0 over WebSocket), 0 clients, 0 rooms\n");
    post(place.own(0), &sid, "40");
    // Its own room, which it is in by being connected.
    assert_eq!(manager.next(), "STATUS=serving: 1 sessions (0 over WebSocket), 1 clients, 1 rooms\n");
    instance.signal("-TERM");
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping: 1 sessions (0 over WebSocket), 1 clients, 1 rooms\n");
    assert_eq!(instance.end().0.code(), Some(0));
}

#[test]
fn a_drain_is_told_and_is_not_the_end() {
    let place = Place::new("notify-drain");
    let manager = Manager::new(&place);
    let instance = Instance::start(place.command(0).env("NOTIFY_SOCKET", &manager.path));
    assert!(manager.next().starts_with("READY=1\n"));
    instance.signal("-USR1");
    assert_eq!(manager.next(), "STATUS=draining: 0 sessions (0 over WebSocket), 0 clients, 0 rooms\n");
    instance.signal("-TERM");
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping: 0 sessions (0 over WebSocket), 0 clients, 0 rooms\n");
}

#[test]
fn a_reload_is_told_from_its_beginning_to_its_end() {
    let place = Place::new("notify-reload");
    let manager = Manager::new(&place);
    let file = place.file("stickyport.toml", "");
    let mut command = place.command(0);
    let instance = Instance::start(command.arg("--config").arg(&file).env("NOTIFY_SOCKET", &manager.path));
    assert!(manager.next().starts_with("READY=1\n"));
    // A wrong one is the end of a reload, too.
    for text in ["[limits]\nsessions = 2\n", "[limits"] {
        place.file("stickyport.toml", text);
        instance.signal("-HUP");
        let told = manager.next();
        let since = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("it begins").trim_end();
        assert!(since.parse::<u64>().is_ok_and(|since| since > 0), "{told}");
        assert_eq!(manager.next(), "READY=1\n");
    }
}

#[test]
fn the_watchdog_is_fed_until_the_last_client_is_gone() {
    let place = Place::new("notify-watchdog");
    let manager = Manager::new(&place);
    let mut command = place.command(0);
    command.args(["--set", "restart_window=2s"]).env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "100000");
    let mut instance = Instance::start(&mut command);
    manager.wait_for("READY=1\n");
    let since = Instant::now();
    (0..10).for_each(|_| manager.wait_for("WATCHDOG=1\n"));
    // The first two may come at once: one was late, and the next is not.
    assert!(since.elapsed() > Duration::from_millis(200), "at a third of the time, and not as fast as it can");
    let _sids = [open(place.own(0)), open(place.own(0))];
    instance.signal("-TERM");
    manager.wait_for("STOPPING=1\n");
    // The second session is let go a second later.
    (0..3).for_each(|_| manager.wait_for("WATCHDOG=1\n"));
    assert_eq!(instance.end().0.code(), Some(0));
}

#[test]
fn somebody_elses_watchdog_is_left_alone() {
    let place = Place::new("notify-other");
    let manager = Manager::new(&place);
    let mut command = place.command(0);
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let _instance = Instance::start(&mut command);
    assert!(manager.next().starts_with("READY=1\n"));
    let _sid = open(place.own(0));
    assert!(manager.next().starts_with("STATUS="), "and no beat in between");
}

#[test]
fn a_notify_socket_that_is_not_there_is_a_warning() {
    let place = Place::new("notify-nowhere");
    let (status, log) = Instance::start(place.command(0).env("NOTIFY_SOCKET", "/nowhere/notify")).stop();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("WARN") && log.contains("cannot reach NOTIFY_SOCKET"), "{log}");
}

#[test]
fn a_runtime_whose_workers_are_all_stuck_does_not_beat() {
    const WORKERS: usize = 2;
    const EVERY: Duration = Duration::from_millis(20);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().expect("a runtime");
    let (beat, beats) = mpsc::channel();
    let shutdown = Shutdown::new();
    let listeners = runtime.block_on(async { Listeners::only(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound") });
    let server = Server::new(Engine::builder().build(Arc::new(Nobody))).pulse(Some(EVERY), move || {
        let _ = beat.send(());
    });
    runtime.spawn(async move { server.run(listeners, &shutdown).await });
    (0..3).for_each(|_| beats.recv_timeout(PATIENCE).expect("it beats"));

    let (stuck, released) = (Arc::new(Barrier::new(WORKERS + 1)), Arc::new(Barrier::new(WORKERS + 1)));
    for _ in 0..WORKERS {
        let (stuck, released) = (Arc::clone(&stuck), Arc::clone(&released));
        runtime.spawn(async move {
            stuck.wait();
            released.wait();
        });
    }
    stuck.wait();
    while beats.try_recv().is_ok() {}
    // This is what is to be seen: that time goes by without one.
    assert_eq!(beats.recv_timeout(25 * EVERY), Err(mpsc::RecvTimeoutError::Timeout));
    released.wait();
    beats.recv_timeout(PATIENCE).expect("it beats again");
}

const PATIENCE: Duration = Duration::from_secs(20);

/// The socket that systemd would hold.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(place: &Place) -> Self {
        let path = place.folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        Self { socket, path }
    }

    fn next(&self) -> String {
        let mut buffer = [0; 512];
        let length = self.socket.recv(&mut buffer).expect("something is said");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn wait_for(&self, start: &str) {
        while !self.next().starts_with(start) {}
    }
}

/// Opens a session on polling: its sid.
fn open(server: SocketAddr) -> String {
    let answer = exchange(server, "GET /socket.io/?EIO=4&transport=polling", "");
    let (_, rest) = answer.split_once("\"sid\":\"").expect("an open packet");
    rest.split_once('"').expect("a sid").0.to_owned()
}

fn post(server: SocketAddr, sid: &str, payload: &str) {
    let answer = exchange(server, &format!("POST /socket.io/?EIO=4&transport=polling&sid={sid}"), payload);
    assert!(answer.ends_with("ok"), "{answer}");
}

fn exchange(server: SocketAddr, request: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(server).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let length = body.len();
    write!(stream, "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        .expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

struct Nobody;

impl Application for Nobody {
    fn opened(&self, _: &Arc<Session>) -> Arc<dyn Connection> {
        Arc::new(Self)
    }
}

impl Connection for Nobody {
    fn message(&self, _: &Arc<Session>, _: Message) {}

    fn closed(&self, _: &Arc<Session>, _: CloseReason) {}
}
