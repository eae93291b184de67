//! Listening sockets: inherited from systemd or bound here, over TCP and unix, and the connections that they accept.

use crate::engine::stream::Stream;
use crate::metrics::Metrics;
use crate::reminder::Reminder;
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};
use std::fmt;
use std::fs;
use std::io::{self};
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Connections that wait in the kernel; it lowers this to its own `somaxconn`.
pub const BACKLOG: i32 = 4096;
/// How long to wait for a free descriptor, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Where to listen, unless systemd has done so already.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The shared port.
    pub http: SocketAddr,
    /// The own port.
    pub own: SocketAddr,
    /// The unix socket with the routes of the own port.
    pub socket: Option<PathBuf>,
}

/// Where this instance listens.
#[derive(Debug)]
pub struct Listeners {
    /// The port that siblings share.
    pub http: Vec<Listener>,
    /// What is this instance's alone: its port and its unix socket.
    pub own: Vec<Listener>,
}

impl Listeners {
    /// Binds one port of its own and nothing else.
    ///
    /// # Errors
    /// The address is taken or refused.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn only(own: SocketAddr) -> Result<Self, ListenError> {
        Ok(Self { http: Vec::new(), own: vec![Listener::tcp(own, Sharing::Exclusive)?] })
    }

    /// Takes what systemd hands over under the names `http` and `ws`, and binds the rest.
    ///
    /// The shared port is bound with SO_REUSEPORT, so that siblings may join; the own port so that nobody may. All of it or nothing is bound.
    ///
    /// # Errors
    /// An address is taken or refused, or systemd hands over what has no use here.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn bind(plan: &Plan) -> Result<Self, ListenError> {
        let Inherited { mut http, ws: mut own } = Inherited::take()?;
        // The own port first: who holds it is the instance, so a second one of the same number touches nothing else.
        if !own.iter().any(|listener| listener.address().is_some()) {
            own.push(Listener::tcp(plan.own, Sharing::Exclusive)?);
        }
        if let Some(path) = &plan.socket
            && own.iter().all(|listener| listener.address().is_some())
        {
            own.push(Listener::unix(path)?);
        }
        if http.is_empty() {
            http.push(Listener::tcp(plan.http, Sharing::Siblings)?);
        }
        Ok(Self { http, own })
    }

    /// The address of the shared port as it was bound.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.iter().find_map(Listener::address)
    }

    /// The own port as it was bound.
    pub fn own_port(&self) -> Option<u16> {
        self.own.iter().find_map(Listener::address).map(|address| address.port())
    }
}

/// Who may bind the same port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Processes of the same user that ask for it; the kernel spreads connections over them.
    Siblings,
    /// Nobody.
    Exclusive,
}

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    is_inherited: bool,
    is_short: Reminder,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf, Option<SocketFile>),
}

impl Listener {
    /// Binds a TCP port.
    ///
    /// # Errors
    /// The port is taken, or the operating system refuses it.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn tcp(address: SocketAddr, sharing: Sharing) -> Result<Self, ListenError> {
        let bind = || {
            let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // Without it a restart has to wait for the connections of the process before. It lets nobody listen twice.
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(sharing == Sharing::Siblings)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Self::of(socket)
        };
        bind().map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::Taken { address, source },
            _ => ListenError::Refused { address, source },
        })
    }

    /// Binds a unix socket that every user may connect to who may enter its folder; removes it when dropped.
    ///
    /// A socket that a process left behind when it was killed is replaced.
    ///
    /// # Errors
    /// Somebody answers there, the path is something else, or the operating system refuses it.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn unix(path: &Path) -> Result<Self, ListenError> {
        make_room(path)?;
        let bind = || {
            let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(path)?)?;
            let file = SocketFile::at(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
            socket.listen(BACKLOG)?;
            let mut listener = Self::of(socket)?;
            if let Socket::Unix(_, _, ours) = &mut listener.socket {
                *ours = Some(file);
            }
            Ok(listener)
        };
        bind().map_err(|source| ListenError::Socket { path: path.to_owned(), source })
    }

    /// A listening socket as tokio wants it.
    fn of(socket: socket2::Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let socket = if local.is_unix() {
            let path = local.as_pathname().map(Path::to_owned).unwrap_or_default();
            Socket::Unix(UnixListener::from_std(OwnedFd::from(socket).into())?, path, None)
        } else {
            let address = local.as_socket().ok_or(io::ErrorKind::Unsupported)?;
            Socket::Tcp(TcpListener::from_std(socket.into())?, address)
        };
        Ok(Self { socket, is_inherited: false, is_short: Reminder::default() })
    }

    /// The TCP address as it was bound; `None` for a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.socket {
            Socket::Tcp(_, address) => Some(address),
            Socket::Unix(..) => None,
        }
    }

    /// Whether the socket stays open when we drop it: who waits in it is then the next process's client, or a sibling's.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The next connection.
    ///
    /// Never fails: a client that is gone already is passed over, and without free descriptors clients wait in the kernel until there are some.
    /// Nothing is lost when the future is dropped.
    pub async fn accept(&self, metrics: &Metrics) -> Stream {
        let (mut pause, longest) = PAUSE;
        loop {
            let error = match self.try_accept().await {
                Ok(stream) => return stream,
                Err(error) => error,
            };
            use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
            if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
                continue;
            }
            metrics.accept_errors.inc();
            if self.is_short.is_due(Instant::now()) {
                tracing::warn!(listener = %self, %error, "cannot accept, clients wait");
            }
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    async fn try_accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener, _) => listener.accept().await.map(|(stream, peer)| tcp(stream, peer)),
            Socket::Unix(listener, ..) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Those who wait in the kernel this moment, whom the runtime need not have been told of yet; no more than can wait there, however many still come.
    pub fn waiting(&self) -> impl Iterator<Item = Stream> {
        std::iter::from_fn(|| self.accept_now().ok()).take(BACKLOG as usize)
    }

    fn accept_now(&self) -> io::Result<Stream> {
        let listener = match &self.socket {
            Socket::Tcp(listener, _) => SockRef::from(listener),
            Socket::Unix(listener, ..) => SockRef::from(listener),
        };
        let (stream, peer) = listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok(match peer.as_socket() {
            Some(peer) => tcp(TcpStream::from_std(stream.into())?, peer),
            None => Stream::Unix(UnixStream::from_std(OwnedFd::from(stream).into())?),
        })
    }
}

fn tcp(stream: TcpStream, peer: SocketAddr) -> Stream {
    // It can only fail on a connection that is broken already, and the first read tells that.
    let _ = stream.set_nodelay(true);
    Stream::Tcp(stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Socket::Tcp(_, address) => address.fmt(f),
            Socket::Unix(_, path, _) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why this instance cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("port {} on {} is taken", address.port(), address.ip())]
    Taken {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system refuses the address.
    #[error("cannot listen on {address}")]
    Refused {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process answers on the unix socket.
    #[error("{} is taken: another process answers there", .0.display())]
    Answered(PathBuf),
    /// What is there is no socket, so it is not ours to remove.
    #[error("{} is in the way: it is no socket", .0.display())]
    NoSocket(PathBuf),
    /// The operating system refuses the unix socket.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// The path that was asked for.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// systemd hands over a socket that nobody here would answer.
    #[error("systemd hands over a socket named `{0}`; FileDescriptorName= must be `http` or `ws`")]
    UnknownName(String),
    /// systemd hands over something that is no listening stream socket.
    #[error("systemd hands over `{0}`, which is no listening stream socket (ListenStream=, Accept=no)")]
    NotListening(String),
    /// What systemd says about its sockets makes no sense.
    #[error("cannot take over systemd's sockets")]
    Inherit(#[source] io::Error),
}

/// Listening sockets from systemd, by their names.
#[derive(Debug, Default)]
struct Inherited {
    http: Vec<Listener>,
    ws: Vec<Listener>,
}

impl Inherited {
    /// Takes them; whoever comes second gets none, because a descriptor has one owner.
    #[expect(unsafe_code, reason = "a number becomes a descriptor with an owner")]
    fn take() -> Result<Self, ListenError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, SeqCst) {
            return Ok(Self::default());
        }
        let descriptors = sd_notify::listen_fds_with_names().map_err(ListenError::Inherit)?;
        // SAFETY: systemd opened these descriptors for this process, sd-notify has checked that they are, and `TAKEN` gives them one owner.
        let descriptors = descriptors.map(|(fd, name)| (unsafe { OwnedFd::from_raw_fd(fd) }, name)).collect();
        Self::sort(descriptors)
    }

    fn sort(descriptors: Vec<(OwnedFd, String)>) -> Result<Self, ListenError> {
        let mut inherited = Self::default();
        for (descriptor, name) in descriptors {
            let list = match name.as_str() {
                "http" => &mut inherited.http,
                "ws" => &mut inherited.ws,
                _ => return Err(ListenError::UnknownName(name)),
            };
            let socket = socket2::Socket::from(descriptor);
            if !matches!((socket.is_listener(), socket.r#type()), (Ok(true), Ok(Type::STREAM))) {
                return Err(ListenError::NotListening(name));
            }
            let listener = Listener::of(socket).map_err(ListenError::Inherit)?;
            list.push(Listener { is_inherited: true, ..listener });
        }
        Ok(inherited)
    }
}

/// Removes a socket that nobody answers any more.
fn make_room(path: &Path) -> Result<(), ListenError> {
    let refused = |source| ListenError::Socket { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NoSocket(path.to_owned()));
    }
    match knock(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(refused),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(refused(error)),
        _ => Err(ListenError::Answered(path.to_owned())),
    }
}

/// Connects without waiting: a process that hangs, with its queue full, is still there.
fn knock(path: &Path) -> io::Result<()> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// A socket's file, removed when dropped if it is still the same one.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: Self::id(path)? })
    }

    fn id(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The next process may have bound the path while this one was finishing.
        if Self::id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stream::Peer;
    use std::io::IoSlice;
    use std::net::Ipv4Addr;
    use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    #[tokio::test]
    async fn siblings_share_a_port() {
        let first = Listener::tcp(anywhere(), Sharing::Siblings).expect("a free port");
        let address = first.address().expect("tcp");
        Listener::tcp(address, Sharing::Siblings).expect("shared");
    }

    #[tokio::test]
    async fn an_own_port_is_not_shared_and_the_error_names_it() {
        for (first, second) in [
            (Sharing::Exclusive, Sharing::Exclusive),
            (Sharing::Exclusive, Sharing::Siblings),
            (Sharing::Siblings, Sharing::Exclusive),
        ] {
            let held = Listener::tcp(anywhere(), first).expect("a free port");
            let address = held.address().expect("tcp");
            let error = Listener::tcp(address, second).expect_err("taken");
            assert_eq!(error.to_string(), format!("port {} on 127.0.0.1 is taken", address.port()));
        }
    }

    #[tokio::test]
    async fn an_own_port_is_taken_on_any_address() {
        let held = Listener::tcp(anywhere(), Sharing::Exclusive).expect("a free port");
        let port = held.address().expect("tcp").port();
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        assert!(matches!(Listener::tcp(everywhere, Sharing::Exclusive), Err(ListenError::Taken { .. })));
    }

    #[tokio::test]
    async fn a_restart_finds_its_port_free_although_connections_linger() {
        let listener = Listener::tcp(anywhere(), Sharing::Exclusive).expect("a free port");
        let address = listener.address().expect("tcp");
        let client = TcpStream::connect(address).await.expect("connected");
        // The server's end closes first, so it is the one that lingers.
        drop(listener.accept(&Metrics::default()).await);
        drop(listener);
        Listener::tcp(address, Sharing::Exclusive).expect("free again");
        drop(client);
    }

    #[tokio::test]
    async fn bytes_pass_over_tcp_and_unix() {
        let folder = Folder::new("bytes");
        let tcp = Listener::tcp(anywhere(), Sharing::Exclusive).expect("a free port");
        let unix = Listener::unix(&folder.socket()).expect("bound");
        let over_tcp = TcpStream::connect(tcp.address().expect("tcp")).await.expect("connected");
        let local = over_tcp.local_addr().expect("an address");
        let accepted = tcp.accept(&Metrics::default()).await;
        assert_eq!(accepted.peer(), Peer::Tcp(local));
        exchange(over_tcp, accepted).await;

        let over_unix = UnixStream::connect(folder.socket()).await.expect("connected");
        let accepted = unix.accept(&Metrics::default()).await;
        assert_eq!(accepted.peer(), Peer::Unix);
        exchange(over_unix, accepted).await;
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced() {
        let folder = Folder::new("stale");
        drop(StdUnixListener::bind(folder.socket()).expect("bound"));
        assert!(folder.socket().exists());
        let listener = Listener::unix(&folder.socket()).expect("replaced");
        StdUnixStream::connect(folder.socket()).expect("answered");
        assert_eq!(fs::metadata(folder.socket()).expect("there").permissions().mode() & 0o777, 0o666);
        drop(listener);
        assert!(!folder.socket().exists(), "removed at the end");
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_left_alone() {
        let folder = Folder::new("alive");
        let first = Listener::unix(&folder.socket()).expect("bound");
        let error = Listener::unix(&folder.socket()).expect_err("taken");
        assert!(matches!(error, ListenError::Answered(_)), "{error:?}");
        StdUnixStream::connect(folder.socket()).expect("still answered");
        drop(first);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let folder = Folder::new("file");
        fs::write(folder.socket(), "precious").expect("written");
        assert!(matches!(Listener::unix(&folder.socket()), Err(ListenError::NoSocket(_))));
        assert_eq!(fs::read_to_string(folder.socket()).expect("there"), "precious");
    }

    #[tokio::test]
    async fn the_next_process_keeps_the_socket_that_it_bound() {
        let folder = Folder::new("next");
        let first = Listener::unix(&folder.socket()).expect("bound");
        fs::remove_file(folder.socket()).expect("removed");
        let _next = Listener::unix(&folder.socket()).expect("bound");
        drop(first);
        StdUnixStream::connect(folder.socket()).expect("still answered");
    }

    #[tokio::test]
    async fn inherited_sockets_go_by_their_names() {
        let folder = Folder::new("inherited");
        let tcp = || OwnedFd::from(std::net::TcpListener::bind(anywhere()).expect("bound"));
        let unix = OwnedFd::from(StdUnixListener::bind(folder.socket()).expect("bound"));
        let handed = vec![(tcp(), "http".to_owned()), (tcp(), "ws".to_owned()), (unix, "ws".to_owned())];
        let inherited = Inherited::sort(handed).expect("sorted");
        assert_eq!((inherited.http.len(), inherited.ws.len()), (1, 2));
        assert_eq!(inherited.ws.iter().filter(|listener| listener.address().is_some()).count(), 1);
        drop(inherited);
        assert!(folder.socket().exists(), "it is systemd's");
    }

    #[tokio::test]
    async fn an_inherited_socket_that_nobody_would_answer_is_an_error() {
        let tcp = OwnedFd::from(std::net::TcpListener::bind(anywhere()).expect("bound"));
        let unknown = Inherited::sort(vec![(tcp, "stickyport@0.socket".to_owned())]);
        assert!(matches!(unknown, Err(ListenError::UnknownName(name)) if name == "stickyport@0.socket"));
        let udp = OwnedFd::from(std::net::UdpSocket::bind(anywhere()).expect("bound"));
        assert!(matches!(Inherited::sort(vec![(udp, "ws".to_owned())]), Err(ListenError::NotListening(_))));
        let file = OwnedFd::from(fs::File::open("/dev/null").expect("opened"));
        assert!(matches!(Inherited::sort(vec![(file, "ws".to_owned())]), Err(ListenError::NotListening(_))));
    }

    async fn exchange(mut client: impl AsyncRead + AsyncWrite + Unpin, mut server: Stream) {
        let mut buffer = [0; 8];
        assert_eq!(server.try_read(&mut buffer).expect_err("nothing yet").kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"ping").await.expect("written");
        server.readable().await.expect("readable");
        assert_eq!(server.try_read(&mut buffer).expect("read"), 4);
        server.writable().await.expect("writable");
        assert_eq!(server.try_write_vectored(&[IoSlice::new(b"po"), IoSlice::new(b"ng")]).expect("written"), 4);
        server.write_all(b"!").await.expect("written");
        server.shutdown().await.expect("shut down");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("read");
        assert_eq!(answer, b"pong!");
    }

    fn anywhere() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    /// A folder of one test's own.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("stickyport-listen-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("created");
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("0.sock")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
