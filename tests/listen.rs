//! The binary and its ports: shared, owned, inherited, taken, and given back.

mod process;

use process::{Instance, Place, get, get_unix, run};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

const OK: &str = "HTTP/1.1 200 OK";

#[test]
fn four_instances_share_a_port_and_own_one_each() {
    let place = Place::new("four");
    let instances: Vec<_> = (0..4).map(|instance| Instance::start(&mut place.command(instance))).collect();
    for instance in 0..4 {
        assert_eq!(get(place.own(instance), "/healthz"), OK);
        assert_eq!(get_unix(&place.socket(instance), "/healthz"), OK);
    }
    for _ in 0..40 {
        assert_eq!(get(place.http, "/healthz"), OK);
    }
    for instance in instances {
        assert_eq!(instance.stop().0.code(), Some(0));
    }
    assert_eq!(std::fs::read_dir(&place.folder).expect("there").count(), 0, "the sockets are gone");
}

#[test]
fn a_process_whose_log_nobody_reads_still_ends_when_it_is_asked() {
    let place = Place::new("unread");
    assert_eq!(Instance::start(&mut place.command(0)).stop_unread().code(), Some(0));
}

#[test]
fn a_taken_port_is_named() {
    let place = Place::new("taken");
    let held = TcpListener::bind(place.own(2)).expect("bound");
    let (code, out, log) = run(&mut place.command(2));
    assert_eq!((code, out.as_str()), (Some(69), ""));
    let said = |port: u16| format!("port {port} on 127.0.0.1 is taken: Address already in use");
    assert!(log.contains(&said(place.own(2).port())), "{log}");
    drop(held);

    let held = TcpListener::bind(place.http).expect("bound");
    let (code, _, log) = run(&mut place.command(2));
    assert_eq!(code, Some(69));
    assert!(log.contains(&said(place.http.port())), "{log}");
    assert!(!place.socket(2).exists(), "nothing is left behind");
    drop(held);
}

#[test]
fn the_second_instance_of_a_number_leaves_the_first_alone() {
    let place = Place::new("twice");
    let first = Instance::start(&mut place.command(1));
    let (code, _, log) = run(&mut place.command(1));
    assert_eq!(code, Some(69));
    assert!(log.contains(&format!("port {} on 127.0.0.1 is taken", place.own(1).port())), "{log}");
    // Another port does not help: the folder is shared, so the unix socket is the same.
    let (code, _, log) = run(place.command(1).args(["--set", "ws.base_port=0"]));
    assert_eq!(code, Some(69));
    assert!(log.contains("1.sock is taken: another process answers there"), "{log}");
    assert_eq!(get(place.own(1), "/healthz"), OK);
    assert_eq!(get_unix(&place.socket(1), "/healthz"), OK);
    drop(first);
}

#[test]
fn an_instance_that_was_killed_is_replaced_at_once() {
    let place = Place::new("killed");
    let first = Instance::start(&mut place.command(0));
    // The server's end of this connection lingers in the kernel.
    let client = TcpStream::connect(place.own(0)).expect("connected");
    first.signal("-KILL");
    drop(first);
    assert!(place.socket(0).exists(), "nobody was left to remove it");
    let _second = Instance::start(&mut place.command(0));
    assert_eq!(get(place.own(0), "/healthz"), OK);
    assert_eq!(get_unix(&place.socket(0), "/healthz"), OK);
    drop(client);
}

#[test]
fn inherited_sockets_answer_and_a_restart_refuses_nobody() {
    let place = Place::new("inherited");
    let http = TcpListener::bind("127.0.0.1:0").expect("bound");
    let ws = TcpListener::bind("127.0.0.1:0").expect("bound");
    let (shared, own) = (http.local_addr().expect("an address"), ws.local_addr().expect("an address"));

    let mut first = inheriting(&place, &http, &ws, "http:ws");
    assert_eq!(get(shared, "/healthz"), OK);
    assert_eq!(get(own, "/healthz"), OK);
    assert_eq!(get_unix(&place.socket(0), "/healthz"), OK);
    assert!(TcpStream::connect(place.own(0)).is_err(), "its own port was handed over, so it binds none");
    first.stop();

    let mut early = TcpStream::connect(own).expect("the socket is open without a process");
    write!(early, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("written");
    let mut second = inheriting(&place, &http, &ws, "http:ws");
    let mut answer = String::new();
    early.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with(OK), "{answer}");
    second.stop();
}

#[test]
fn an_inherited_socket_of_an_unknown_name_is_an_error() {
    let place = Place::new("unknown");
    let sockets = [TcpListener::bind("127.0.0.1:0").expect("bound"), TcpListener::bind("127.0.0.1:0").expect("bound")];
    let mut inheriting = inheriting(&place, &sockets[0], &sockets[1], "http:stickyport@0.socket");
    let (code, log) = inheriting.end();
    assert_eq!(code, Some(64));
    assert!(log.contains("a socket named `stickyport@0.socket`; FileDescriptorName= must be `http` or `ws`"), "{log}");
}

#[test]
fn without_descriptors_clients_wait_and_the_log_says_so() {
    let place = Place::new("descriptors");
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n 48; exec "$@""#, "sh", env!("CARGO_BIN_EXE_stickyport")]).args(place.arguments(0));
    let mut instance = Instance::start(&mut command);
    let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(place.own(0)).expect("the kernel takes it")).collect();
    instance.wait_for_log("cannot accept, clients wait");
    drop(clients);
    for _ in 0..8 {
        assert_eq!(get(place.own(0), "/healthz"), OK);
    }
    assert_eq!(instance.stop().0.code(), Some(0));
}

/// Hands over two sockets as systemd does: descriptors 3 and 4, with their names and the process's own id in the environment.
fn inheriting(place: &Place, first: &TcpListener, second: &TcpListener, names: &str) -> Inheriting {
    let script = r#"exec 3<&0 4>&1 0</dev/null 1>&2; LISTEN_PID=$$ LISTEN_FDS=2 exec "$@""#;
    let descriptor = |listener: &TcpListener| Stdio::from(OwnedFd::from(listener.try_clone().expect("cloned")));
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_stickyport")]).args(place.arguments(0)).env("LISTEN_FDNAMES", names);
    command.stdin(descriptor(first)).stdout(descriptor(second)).stderr(Stdio::piped());
    Inheriting(command.spawn().expect("sh runs"))
}

struct Inheriting(std::process::Child);

impl Inheriting {
    fn end(&mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.0.stderr.take().expect("piped").read_to_string(&mut log).expect("UTF-8");
        (self.0.wait().expect("waited").code(), log)
    }

    fn stop(&mut self) {
        let status = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.0.id())]).status().expect("a shell");
        assert!(status.success());
        assert_eq!(self.end().0, Some(0));
    }
}

impl Drop for Inheriting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
