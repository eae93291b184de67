//! Who is in the fleet: each node's number, address and state in Redis, and who a number belongs to.
//!
//! A number is claimed by a key that expires, `stickyport#<prefix>#number#<node>`, so that of two nodes that were given the same one the second learns it.
//! What a node says of itself stands in `stickyport#<prefix>#node#<uid>`; which of those there are, and who of them is alive, says the key of the [members].

use super::link;
use super::members::{self, LIFETIME, MEMORY, Member};
use super::options::Options;
use super::redis::UrlError;
use crate::engine::Hold;
use crate::metrics::Metrics;
use crate::protocol::sid::{Boot, Node};
use crate::reminder::Reminder;
use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ErrorKind, RedisError, RedisResult, Value, cmd, pipe};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::{Notify, watch};

/// Bytes of what one node says of itself; a longer value is none of ours.
const ENTRY_BYTES: usize = 1024;

/// Takes a number unless it belongs to a node at another address, or to a later start at this one; says who had it.
///
/// KEYS: the number's. ARGV: the claim, its address, its start, and for how long it holds.
const CLAIM: &str = r"
local held = redis.pcall('GET', KEYS[1])
if type(held) ~= 'string' or #held > 1024 then held = '' end
if held ~= ARGV[1] then
  local is_json, claim = pcall(cjson.decode, held)
  if is_json and type(claim) == 'table' and type(claim.address) == 'string' and type(claim.started) == 'number'
      and (claim.address ~= ARGV[2] or claim.started > tonumber(ARGV[3])) then
    return {0, held}
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
return {1, held}";

/// Gives a number back. KEYS: the number's. ARGV: the claim.
const RELEASE: &str = "if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";

/// A node of the cluster, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its number.
    pub node: Node,
    /// Where its own port is.
    pub address: String,
    /// The label of its start, which its sids carry.
    pub boot: String,
    /// When it started, in milliseconds since the epoch, by its own clock.
    pub started: u64,
    /// The version of its program.
    pub version: String,
    /// Whether it takes new sessions, and why not.
    pub state: NodeState,
    /// Sessions that are open.
    pub sessions: i64,
    /// Sockets connected to a namespace.
    pub clients: i64,
    /// Milliseconds since its last sign of life, of which it gives one every 3 s; more than 10,000 count as dead.
    #[serde(default)]
    pub silent: u64,
}

impl NodeInfo {
    /// Whether it gives signs of life.
    pub fn is_alive(&self) -> bool {
        self.silent < LIFETIME.as_millis() as u64
    }
}

/// What a node does with new sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NodeState {
    /// Takes them.
    Ready,
    /// Refuses them, because it goes.
    Draining,
    /// Refuses them, because its number belongs to another.
    Conflict,
}

/// The nodes of a cluster, as they stand in Redis.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// By their numbers; who left without a word stays for an hour. Not more than a thousand.
    pub nodes: Vec<NodeInfo>,
    /// Members of which nothing is known, or nothing that can be read.
    pub unreadable: usize,
}

/// Why nobody knows which nodes there are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The URL is none of a Redis.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// There is no connection to Redis now.
    #[error("Redis is away")]
    Away,
    /// Redis cannot be reached, or refuses.
    #[error("Redis does not say which nodes there are")]
    Redis(#[source] RedisError),
}

impl Fleet {
    /// Reads the nodes of a cluster, for who is none of them.
    ///
    /// # Errors
    /// Redis cannot be reached, or refuses.
    pub async fn of(options: &Options) -> Result<Self, FleetError> {
        let client = link::client(&options.url).map_err(UrlError::new)?;
        let mut connection = client.get_multiplexed_async_connection().await.map_err(FleetError::Redis)?;
        Self::read(&mut connection, &options.prefix).await.map_err(FleetError::Redis)
    }

    pub(super) async fn read(connection: &mut MultiplexedConnection, prefix: &str) -> RedisResult<Self> {
        let now = members::now(connection).await?;
        let held = members::held(connection, &members::key(prefix), now).await?;
        let members: Vec<_> = held.iter().filter_map(|(name, until)| Member::read(name, *until)).collect();
        let mut entries = pipe();
        for member in &members {
            // One byte more than there may be.
            entries.cmd("GETRANGE").arg(entry(prefix, &member.uid)).arg(0).arg(ENTRY_BYTES);
        }
        let found: Vec<RedisResult<Value>> =
            if members.is_empty() { Vec::new() } else { entries.ignore_errors().query_async(connection).await? };
        let silent = |member: &Member| (now + LIFETIME.as_millis() as u64).saturating_sub(member.until);
        let read = |(member, found): (&Member, &RedisResult<Value>)| {
            let info = readable(member, found.as_ref().ok()?)?;
            Some(NodeInfo { silent: silent(member), ..info })
        };
        let mut nodes: Vec<_> = members.iter().zip(&found).filter_map(read).collect();
        nodes.sort_by(|a, b| (a.node, a.silent, &a.address).cmp(&(b.node, b.silent, &b.address)));
        Ok(Self { unreadable: held.len() - nodes.len(), nodes })
    }
}

/// What a claim is: of whom, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    uid: String,
    address: String,
    started: u64,
}

/// This node's place among the others.
#[derive(Debug)]
pub(super) struct Registry {
    prefix: String,
    uid: String,
    started: SystemTime,
    /// The number that is claimed, and the label of this start.
    ids: OnceLock<(Node, Boot)>,
    listener: OnceLock<SocketAddr>,
    /// As the others are told; found when Redis is.
    address: OnceLock<String>,
    is_draining: AtomicBool,
    /// Something changed that the others should know now.
    pub(super) changed: Notify,
    /// Why this node is not ready.
    hold: watch::Sender<Option<Hold>>,
    refused: Reminder,
    conflict: Reminder,
}

impl Registry {
    pub(super) fn new(prefix: &str, uid: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            uid: uid.to_owned(),
            started: SystemTime::now(),
            ids: OnceLock::new(),
            listener: OnceLock::new(),
            address: OnceLock::new(),
            is_draining: AtomicBool::new(false),
            changed: Notify::new(),
            hold: watch::Sender::new(Some(Hold::Joining)),
            refused: Reminder::default(),
            conflict: Reminder::default(),
        }
    }

    /// Which node this is.
    pub(super) fn is(&self, node: Node, boot: Boot) {
        self.ids.get_or_init(|| (node, boot));
    }

    pub(super) fn node(&self) -> Node {
        self.ids().0
    }

    fn ids(&self) -> (Node, Boot) {
        *self.ids.get().expect("set before anything is connected")
    }

    /// Where this node listens; without it nothing is registered.
    pub(super) fn listens(&self, own: SocketAddr) {
        self.listener.get_or_init(|| own);
    }

    pub(super) fn drain(&self) {
        self.is_draining.store(true, Relaxed);
        self.changed.notify_one();
    }

    pub(super) fn hold(&self) -> watch::Receiver<Option<Hold>> {
        self.hold.subscribe()
    }

    /// Redis does not say whose a number is; who was told so before still knows.
    pub(super) fn is_unknown(&self) {
        self.hold.send_if_modified(|hold| hold.take_if(|hold| *hold == Hold::Joining).is_some());
    }

    /// Claims the number, and tells the others of this node.
    pub(super) async fn beat(
        &self,
        connection: &mut MultiplexedConnection,
        redis: &ConnectionAddr,
        metrics: &Metrics,
    ) -> RedisResult<()> {
        let registered = match self.listener.get() {
            Some(listener) => self.register(connection, address(*listener, redis, &self.address).await, metrics).await,
            None => Ok(()),
        };
        match registered {
            // Then nobody knows whose a number is, and all else goes on.
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                if self.refused.is_due(Instant::now()) {
                    tracing::warn!("nodes cannot tell whether two of them have the same number: {error}");
                }
            }
            registered => registered?,
        }
        self.is_unknown();
        Ok(())
    }

    async fn register(&self, connection: &mut MultiplexedConnection, address: &str, metrics: &Metrics) -> RedisResult<()> {
        let ((node, boot), started) = (self.ids(), self.started());
        let mut claim = cmd("EVAL");
        claim.arg(CLAIM).arg(1).arg(self.number()).arg(self.claim());
        claim.arg(address).arg(started).arg(LIFETIME.as_millis() as u64);
        let (is_mine, held): (bool, String) = claim.query_async(connection).await?;
        let holder = serde_json::from_str::<Claim>(&held).ok().filter(|claim| claim.uid != self.uid);
        let hold = match holder {
            Some(holder) if is_mine => {
                self.forget(connection, &holder).await?;
                None
            }
            Some(holder) if holder.address != address => Some(Hold::NumberTaken(holder.address)),
            Some(_) => {
                if self.conflict.is_due(Instant::now()) {
                    tracing::warn!(%node, address, "a process that started later has taken this one's place");
                }
                None
            }
            None => None,
        };
        if let Some(Hold::NumberTaken(by)) = &hold
            && self.conflict.is_due(Instant::now())
        {
            tracing::error!(
                %node,
                address,
                "the node at {} has this number, so this one takes no sessions: `node` must be another on each of them",
                by.escape_debug()
            );
        }
        let state = match &hold {
            _ if self.is_draining.load(Relaxed) => NodeState::Draining,
            Some(_) => NodeState::Conflict,
            None => NodeState::Ready,
        };
        self.change(hold, metrics);
        let info = NodeInfo {
            node,
            address: address.to_owned(),
            boot: boot.as_str().to_owned(),
            started,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state,
            sessions: metrics.sessions.get(),
            clients: metrics.sockets.get(),
            silent: 0,
        };
        let info = serde_json::to_string(&info).expect("texts and numbers are JSON");
        let mut set = cmd("SET");
        set.arg(entry(&self.prefix, &self.uid)).arg(info).arg("PX").arg(MEMORY.as_millis() as u64);
        set.exec_async(connection).await
    }

    fn change(&self, hold: Option<Hold>, metrics: &Metrics) {
        self.hold.send_if_modified(|before| {
            let is_taken = |hold: &Option<Hold>| i64::from(matches!(hold, Some(Hold::NumberTaken(_))));
            metrics.node_conflict.add(is_taken(&hold) - is_taken(before));
            if is_taken(before) > is_taken(&hold) {
                tracing::info!(node = %self.node(), "the number is free, and this node's from now on");
            }
            let is_news = *before != hold;
            *before = hold;
            is_news
        });
    }

    /// Gives the number back, and is no longer in the list.
    pub(super) async fn leave(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        if self.address.get().is_none() {
            return Ok(());
        }
        let mut pipe = pipe();
        pipe.cmd("EVAL").arg(RELEASE).arg(1).arg(self.number()).arg(self.claim()).ignore();
        pipe.cmd("DEL").arg(entry(&self.prefix, &self.uid)).ignore();
        pipe.exec_async(connection).await
    }

    /// Nobody need wait for whoever was at this address before.
    async fn forget(&self, connection: &mut MultiplexedConnection, former: &Claim) -> RedisResult<()> {
        let mut pipe = pipe();
        pipe.cmd("ZREM").arg(members::key(&self.prefix)).arg(Member::name(self.node(), &former.uid)).ignore();
        pipe.cmd("DEL").arg(entry(&self.prefix, &former.uid)).ignore();
        pipe.exec_async(connection).await
    }

    fn number(&self) -> String {
        format!("stickyport#{}#number#{}", self.prefix, self.node())
    }

    fn started(&self) -> u64 {
        self.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn claim(&self) -> String {
        let address = self.address.get().cloned().unwrap_or_default();
        serde_json::to_string(&Claim { uid: self.uid.clone(), address, started: self.started() })
            .expect("texts and numbers are JSON")
    }
}

fn entry(prefix: &str, uid: &str) -> String {
    format!("stickyport#{prefix}#node#{uid}")
}

/// What a member says of itself, if it can be shown.
fn readable(member: &Member, entry: &Value) -> Option<NodeInfo> {
    let Value::BulkString(text) = entry else { return None };
    let info: NodeInfo = serde_json::from_slice(text).ok()?;
    // It may be shown on a terminal.
    let is_plain = |text: &str| text.chars().all(|character| !character.is_control());
    let is_readable =
        info.node == member.node && [&info.address, &info.boot, &info.version].into_iter().all(|text| is_plain(text));
    is_readable.then_some(info)
}

/// What the others are told of where this node listens.
async fn address<'a>(listener: SocketAddr, redis: &ConnectionAddr, known: &'a OnceLock<String>) -> &'a str {
    if let Some(known) = known.get() {
        return known;
    }
    let host = if listener.ip().is_unspecified() || listener.ip().is_loopback() {
        towards(redis).await.unwrap_or_else(|| listener.ip())
    } else {
        listener.ip()
    };
    // It stays the same though routes may change: another one would be another node.
    known.get_or_init(|| SocketAddr::new(host, listener.port()).to_string())
}

/// The address of this host on its way to Redis: the one of its addresses that the others may be expected not to have.
async fn towards(redis: &ConnectionAddr) -> Option<IpAddr> {
    let (host, port) = match redis {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.as_str(), *port),
        _ => return Some(Ipv4Addr::LOCALHOST.into()),
    };
    for address in lookup_host((host, port)).await.ok()? {
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // It sends nothing: the kernel only says which way it would go.
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { continue };
        if socket.connect(address).await.is_ok() {
            return socket.local_addr().ok().map(|address| address.ip());
        }
    }
    None
}
