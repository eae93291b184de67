//! One run: a server whose options are drawn from the seed, its clients, and the end of it all.

use crate::application::{self, Desk};
use crate::chance::Chance;
use crate::client;
use crate::ledger::{FAREWELL, Ledger};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use stickyport::engine::stream::Memory;
use stickyport::engine::{self, Application, CloseReason, Connection, Engine, Entropy, Message, Session};
use stickyport::hub::{self, SocketIo};
use stickyport::metrics::Metrics;
use stickyport::protocol::limits::Limits;
use stickyport::protocol::sid::{Boot, Node};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// What is true at every moment is looked at so often.
const INSPECTION: Duration = Duration::from_millis(700);

/// The longest that a message of the application is, as a frame.
const LARGEST_MESSAGE: usize = 1_200;

/// What the seed decides before the run begins.
#[derive(Debug, Clone)]
pub struct Plan {
    pub clients: u64,
    /// Clients come over this time.
    pub span: Duration,
    /// The longest way from one end to the other.
    pub lag: Duration,
    /// One in so many steps of a client goes wrong; 0 is none.
    pub faults: u64,
    /// When the instance drains, and how long it takes over it.
    pub drain: Option<(Duration, Duration)>,
    pub options: engine::Options,
    pub limits: Limits,
    pub hub: hub::Options,
}

impl Plan {
    fn draw(chance: &mut Chance) -> Self {
        let seconds = |chance: &mut Chance, choice: &[u64]| Duration::from_secs(chance.pick(choice));
        let clients = if chance.one_in(40) { 100 + chance.below(200) } else { 1 + chance.below(24) };
        let span = Duration::from_secs(1 + chance.below(60));
        let drain_at = chance.up_to(span * 2);
        Self {
            clients,
            span,
            lag: Duration::from_millis(chance.pick(&[0, 5, 60])),
            faults: chance.pick(&[0, 4, 12, 50]),
            drain: chance.one_in(4).then(|| (drain_at, seconds(chance, &[0, 2, 30]))),
            options: engine::Options {
                ping_interval: seconds(chance, &[2, 8, 25]),
                ping_timeout: seconds(chance, &[3, 8, 20]),
                upgrade_timeout: seconds(chance, &[3, 10]),
                max_payload: chance.pick(&[2_000, 20_000]),
                allow_eio3: true,
                ..engine::Options::default()
            },
            limits: Limits {
                outbox_bytes: chance.pick(&[3_000, 30_000, 4_000_000]),
                outbound_bytes: chance.pick(&[30_000, 1_000_000_000, 1_000_000_000]),
                pending_events: chance.pick(&[2, 1_000]),
                ..Limits::default()
            },
            hub: hub::Options {
                connect_timeout: seconds(chance, &[10, 45]),
                cleanup_empty_child_namespaces: chance.one_in(2),
                recovery: seconds(chance, &[0, 0, 5, 120]),
                recovery_skip_middlewares: chance.one_in(2),
                ..hub::Options::default()
            },
        }
    }

    /// A session is over after this, if its client is not heard to live.
    pub fn silence(&self) -> Duration {
        let engine::Options { ping_interval, ping_timeout, .. } = self.options;
        // While an application makes its client wait, silence is excused for one round.
        let rounds = if self.limits.pending_events < 1_000 { 2 } else { 1 };
        // Whatever else it says puts the end off: in protocol 4 once, in protocol 3 between two pings.
        let talk = ping_interval.max(ping_timeout);
        (ping_interval + ping_timeout) * rounds + talk + self.slack()
    }

    /// The longest that a client which is well does nothing.
    pub fn stall(&self) -> Duration {
        self.options.ping_timeout / 4
    }

    /// What takes no time takes less than this.
    pub fn slack(&self) -> Duration {
        Duration::from_secs(2) + self.lag * 4
    }
}

pub struct World {
    pub plan: Plan,
    pub engine: Arc<Engine>,
    pub ledger: Ledger,
    io: SocketIo,
    /// Ends of connections whose clients have vanished.
    pub vanished: Mutex<Vec<Memory>>,
}

/// Runs one seed to its end; what went wrong is in the books.
pub async fn run(seed: u64, ledger: Ledger) {
    let mut chance = Chance::new(seed);
    let world = Arc::new(World::new(Plan::draw(&mut chance), seed, chance.fork(), ledger));
    world.ledger.note(format_args!("{:?}", world.plan));
    let mut clients = JoinSet::new();
    for number in 0..world.plan.clients {
        clients.spawn(client::live(Arc::clone(&world), number, chance.fork()));
    }
    if let Some((at, window)) = world.plan.drain {
        clients.spawn(drain(Arc::clone(&world), at, window));
    }
    let inspection = tokio::spawn(inspect(Arc::clone(&world)));
    while let Some(joined) = clients.join_next().await {
        joined.expect("no panic");
    }
    // The longest that anything of theirs can stay behind.
    let Plan { limits, hub, .. } = &world.plan;
    sleep(world.plan.silence().max(FAREWELL).max(limits.body_timeout) + hub.recovery * 9 / 8 + world.plan.slack()).await;
    inspection.abort();
    let _ = inspection.await;
    world.settle();
}

impl World {
    fn new(plan: Plan, seed: u64, ids: Chance, ledger: Ledger) -> Self {
        let ids = Mutex::new(ids);
        let draw = move || {
            let mut ids = ids.lock().expect("no panic");
            u128::from(ids.draw()) << 64 | u128::from(ids.draw())
        };
        ledger.lock().keep(plan.hub.recovery);
        let builder = SocketIo::builder()
            .options(plan.hub.clone())
            .limits(plan.limits.clone())
            .ids(Node::try_from(7).expect("a node"), Boot::at(UNIX_EPOCH))
            .entropy(Entropy::new(draw));
        let patience = Duration::from_secs(20) + plan.options.ping_timeout;
        let io = application::furnish(builder, Desk { ledger: ledger.clone(), seed, patience });
        let witness = Witness { io: io.clone(), ledger: ledger.clone() };
        let engine = io.engine().options(plan.options.clone()).build(Arc::new(witness));
        Self { plan, engine, ledger, io, vanished: Mutex::default() }
    }

    pub fn metrics(&self) -> &Metrics {
        self.engine.metrics()
    }

    /// What is true when everybody has left.
    fn settle(&self) {
        let metrics = self.metrics();
        let gauges =
            [&metrics.sessions, &metrics.sessions_websocket, &metrics.sockets, &metrics.outbound_bytes].map(|gauge| gauge.get());
        let sockets: usize = application::NAMESPACES.iter().map(|name| self.io.of(name).local_sockets().len()).sum();
        let tasks = (self.engine.tasks().len(), Handle::current().metrics().num_alive_tasks());
        let kept = self.plan.hub.cleanup_empty_child_namespaces && self.io.has("/made-1");
        let mut books = self.ledger.lock();
        books.settle(metrics);
        books.check(self.engine.is_empty(), format_args!("no session is left of {}", self.engine.len()));
        books.check(gauges == [0; 4], format_args!("the gauges {gauges:?} are back at zero"));
        books.check(sockets == 0, format_args!("no socket is left of {sockets}"));
        books.check(tasks == (0, 0), format_args!("no task is left of {tasks:?}"));
        books.check(!kept, format_args!("a namespace that was made for a client goes with it"));
        books.check(metrics.handler_panics.get() == 0, format_args!("no handler panics"));
        books.check(metrics.handler_errors.get() == 0, format_args!("every argument can be read"));
    }
}

/// Looks at the server from time to time.
async fn inspect(world: Arc<World>) {
    // A message that is larger than the bound is taken if nothing waits before it.
    let largest_outbox = world.plan.limits.outbox_bytes.max(LARGEST_MESSAGE);
    loop {
        sleep(INSPECTION).await;
        let sockets: usize = application::NAMESPACES.iter().map(|name| world.io.of(name).local_sockets().len()).sum();
        let counted = world.metrics().sockets.get();
        let mut books = world.ledger.lock();
        books.check(sockets as i64 == counted, format_args!("the gauge {counted} counts the sockets, {sockets}"));
        books.inspect(world.metrics(), &world.plan, largest_outbox);
    }
}

/// Lets everybody go over `window`.
async fn drain(world: Arc<World>, at: Duration, window: Duration) {
    sleep(at).await;
    world.ledger.note(format_args!("the instance drains over {window:?}"));
    let start = Instant::now();
    let there = world.ledger.lock().open_sessions();
    for sid in &there {
        world.ledger.lock().lets_go(sid, CloseReason::ServerShuttingDown, window);
    }
    world.engine.close_all(window).await;
    sleep_until(start + window + world.plan.slack() + world.plan.stall()).await;
    let mut books = world.ledger.lock();
    for sid in &there {
        books.has_gone(sid);
    }
}

/// Stands between the engine and the hub, and writes down what it sees.
struct Witness {
    io: SocketIo,
    ledger: Ledger,
}

struct Watched {
    connection: Arc<dyn Connection>,
    ledger: Ledger,
    metrics: Arc<Metrics>,
}

impl Application for Witness {
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
        let client = session.request().query.iter().find(|(name, _)| name == "client").expect("they all tell").1.clone();
        self.ledger.lock().opened(session.sid().as_str(), &client, Arc::downgrade(session));
        Arc::new(Watched {
            connection: self.io.opened(session),
            ledger: self.ledger.clone(),
            metrics: Arc::clone(self.io.metrics()),
        })
    }
}

impl Connection for Watched {
    fn message(&self, session: &Arc<Session>, message: Message) {
        self.ledger.lock().message_is_heard(session.sid().as_str(), session.request().version);
        self.connection.message(session, message);
    }

    fn heartbeat(&self, session: &Arc<Session>) {
        self.ledger.lock().beat_is_heard(session.sid().as_str());
        self.connection.heartbeat(session);
    }

    fn upgrading(&self, session: &Arc<Session>) {
        self.connection.upgrading(session);
    }

    fn sent(&self, session: &Arc<Session>, mark: u64) {
        self.connection.sent(session, mark);
    }

    fn upgraded(&self, session: &Arc<Session>) {
        self.ledger.lock().upgraded(session.sid().as_str());
        self.connection.upgraded(session);
    }

    fn closed(&self, session: &Arc<Session>, reason: CloseReason) {
        self.ledger.lock().closed(session.sid().as_str(), reason, &self.metrics);
        self.connection.closed(session, reason);
    }

    fn deadline(&self) -> Option<Instant> {
        self.connection.deadline()
    }

    fn timeout(&self, session: &Arc<Session>, now: Instant) {
        self.connection.timeout(session, now);
    }

    fn ready(&self) -> bool {
        self.connection.ready()
    }
}
