//! Joins the layers: what listens, what answers where, and how all of it goes.

use crate::cluster::{Periodic, Redis, Turn};
use crate::current::Current;
use crate::engine::stream::Stream;
use crate::engine::{Engine, Hold};
use crate::http::client_address::Networks;
use crate::http::cors::Cors;
use crate::http::metrics::Page;
use crate::http::options::{Cors as CorsOptions, Http as HttpOptions, Metrics as MetricsOptions};
use crate::http::{EngineIo, Listener, Listeners, connection, own};
use crate::hub::SocketIo;
use crate::shutdown::{GRACE, Phase, Shutdown};
use axum::Router;
use http::Request;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt;
use tracing::{info, warn};

/// Connections that a port takes before others get their turn.
const ACCEPTED_A_TURN: u64 = 8;

/// A server on its ports.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use stickyport::engine::{Application, CloseReason, Connection, Engine, Message, Session};
/// use stickyport::http::Listeners;
/// use stickyport::{Server, Shutdown};
/// use std::sync::Arc;
///
/// struct Echo;
///
/// impl Application for Echo {
///     fn opened(&self, _: &Arc<Session>) -> Arc<dyn Connection> {
///         Arc::new(Echo)
///     }
/// }
///
/// impl Connection for Echo {
///     fn message(&self, session: &Arc<Session>, message: Message) {
///         let _ = session.send_message(&message);
///     }
///
///     fn closed(&self, _: &Arc<Session>, _: CloseReason) {}
/// }
///
/// let engine = Engine::builder().build(Arc::new(Echo));
/// let listeners = Listeners::only("127.0.0.1:3131".parse()?)?;
/// Server::new(engine).run(listeners, &Shutdown::on_signals()?).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    engine: Arc<Engine>,
    cors: Current<Cors>,
    trusted_proxies: Networks,
    metrics_allow: Networks,
    instance: u16,
    application: Router,
    fallback: Router,
    restart_window: Duration,
    drain_timeout: Duration,
    pulse: Pulse,
    cluster: Option<(Arc<Redis>, SocketIo)>,
    periodic: Vec<Periodic>,
}

impl Server {
    /// A server of these sessions, with the defaults of the configuration.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            cors: CorsOptions::default().into(),
            trusted_proxies: HttpOptions::default().trusted_proxies,
            metrics_allow: MetricsOptions::default().allow,
            instance: 0,
            application: Router::new(),
            fallback: Router::new(),
            restart_window: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(30),
            pulse: Pulse::default(),
            cluster: None,
            periodic: Vec::new(),
        }
    }

    /// Keeps `io` connected to the other nodes of its cluster.
    #[must_use]
    pub fn cluster(mut self, redis: Arc<Redis>, io: SocketIo) -> Self {
        self.cluster = Some((redis, io));
        self
    }

    /// Has a task carried out once in each period by exactly one node of the cluster, and by this one if it is alone.
    ///
    /// The node that has it keeps it. When it dies, another one takes over before two periods are over; when it drains or stops, at once. While
    /// Redis is away the task rests: rather none than two. The first turn comes within two periods, and one that has not ended when the next is due
    /// costs that one. It is dropped, at whatever it waits for, when this node can no longer be sure that no other has it, and when it goes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use stickyport::Server;
    /// use stickyport::hub::SocketIo;
    ///
    /// fn with_heartbeat(server: Server, io: SocketIo) -> Server {
    ///     server.periodic("heartbeat", Duration::from_secs(10), move |turn| {
    ///         let io = io.clone();
    ///         async move {
    ///             let _ = io.emit("heartbeat", turn.number);
    ///         }
    ///     })
    /// }
    /// ```
    ///
    /// # Panics
    /// There is a task of that name, or the period is shorter than 100 ms.
    #[must_use]
    pub fn periodic<F>(mut self, name: &str, period: Duration, task: impl Fn(Turn) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        assert!(self.periodic.iter().all(|other| other.name() != name), "there is a task of the name {name}");
        self.periodic.push(Periodic::new(name, period, task));
        self
    }

    /// Sets which pages of other origins may connect; who keeps a clone can change it later.
    #[must_use]
    pub fn cors(mut self, cors: impl Into<Current<Cors>>) -> Self {
        self.cors = cors.into();
        self
    }

    /// Sets whose X-Forwarded-For is believed.
    #[must_use]
    pub fn trusted_proxies(mut self, networks: Networks) -> Self {
        self.trusted_proxies = networks;
        self
    }

    /// Sets who may read `/metrics`.
    #[must_use]
    pub fn metrics_allow(mut self, networks: Networks) -> Self {
        self.metrics_allow = networks;
        self
    }

    /// Sets which instance of its host this is, which `/metrics` tells.
    #[must_use]
    pub fn instance(mut self, instance: u16) -> Self {
        self.instance = instance;
        self
    }

    /// Sets what the shared port answers beside its health and the client script.
    #[must_use]
    pub fn application(mut self, application: Router) -> Self {
        self.application = application;
        self
    }

    /// Sets what the own port answers where it has no route of its own, for a server with one port; 404 without it.
    #[must_use]
    pub fn fallback(mut self, application: Router) -> Self {
        self.fallback = application;
        self
    }

    /// Sets over which time sessions are closed when the process stops.
    #[must_use]
    pub fn restart_window(mut self, window: Duration) -> Self {
        self.restart_window = window;
        self
    }

    /// Sets over which time sessions are closed when the instance drains.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Calls `beat` so often, from the very loop that takes new clients and later lets all of them go: a watchdog's sign that they are served.
    ///
    /// It must not wait. When no worker of the runtime gets round to that loop, nothing is called.
    #[must_use]
    pub fn pulse(mut self, every: Option<Duration>, beat: impl Fn() + Send + Sync + 'static) -> Self {
        self.pulse = Pulse(every.map(|every| (every, Arc::new(beat) as _)));
        self
    }

    /// Serves until `shutdown` is in its last phase and everything is said.
    pub async fn run(self, listeners: Listeners, shutdown: &Shutdown) {
        for listener in listeners.http.iter().chain(&listeners.own) {
            info!(%listener, instance = self.instance, "listening");
        }
        if let Some((redis, _)) = &self.cluster {
            if let Some(own) = listeners.own.iter().find_map(Listener::address) {
                redis.listens(own);
            }
            // Before anybody asks.
            self.engine.hold(redis.hold().borrow().clone());
        }
        let engine_io = Arc::new(EngineIo::new(Arc::clone(&self.engine), self.cors, self.trusted_proxies));
        let metrics = Page::new(Arc::clone(self.engine.metrics()), self.instance, self.engine.node(), SystemTime::now());
        let own = Arc::new(own::Routes::new(Arc::clone(&engine_io), metrics, self.metrics_allow, self.fallback));
        let shared = own::shared(&engine_io, self.application);
        let connections = TaskTracker::new();
        let ports = TaskTracker::new();
        let finish_shared = CancellationToken::new();
        let finish_own = CancellationToken::new();

        // The shared port is left to the siblings as soon as this instance drains; the own port as soon as it stops.
        let port = |finish: &CancellationToken, pulse: Pulse| Port {
            engine: Arc::clone(&self.engine),
            connections: connections.clone(),
            finish: finish.clone(),
            pulse,
        };
        for listener in listeners.http {
            let port = port(&finish_shared, Pulse::default());
            ports.spawn(port.accept(listener, shutdown.clone(), Phase::Draining, Shared(shared.clone())));
        }
        for (listener, number) in listeners.own.into_iter().zip(0..) {
            // One of them beats, or they would beat for each other.
            let pulse = if number == 0 { self.pulse.clone() } else { Pulse::default() };
            let port = port(&finish_own, pulse);
            ports.spawn(port.accept(listener, shutdown.clone(), Phase::Stopping, Own(Arc::clone(&own))));
        }

        let member = self.cluster.map(|(redis, io)| {
            let hold = AbortOnDropHandle::new(tokio::spawn(heed(redis.hold(), Arc::clone(&self.engine))));
            tokio::spawn(Arc::clone(&redis).run(io));
            (redis, hold)
        });

        let resting = CancellationToken::new();
        let tasks = TaskTracker::new();
        for periodic in self.periodic {
            let redis = member.as_ref().map(|(redis, _)| Arc::clone(redis));
            tasks.spawn(periodic.run(redis, Arc::clone(self.engine.metrics()), resting.clone()));
        }

        shutdown.reached(Phase::Draining).await;
        resting.cancel();
        if let Some((redis, _)) = &member {
            redis.drain();
        }
        finish_shared.cancel();
        if shutdown.phase() == Phase::Draining {
            info!(sessions = self.engine.len(), over = ?self.drain_timeout, "draining");
            tokio::select! {
                () = self.engine.close_all(self.drain_timeout) => info!("drained; waiting to be stopped"),
                () = shutdown.reached(Phase::Stopping) => {}
            }
        }
        shutdown.reached(Phase::Stopping).await;
        info!(sessions = self.engine.len(), over = ?self.restart_window, "stopping");
        // At once and not when all are closed: who comes back early, over a connection that a proxy keeps, would be refused here,
        // while a new connection waits in an inherited socket for the next process.
        finish_own.cancel();
        // The ports are free when the first client is told to go: whoever starts the next process on its word finds them so.
        ports.close();
        ports.wait().await;
        let leaving = AbortOnDropHandle::new(tokio::spawn(async move { self.pulse.run().await }));
        self.engine.close_all(self.restart_window).await;
        connections.close();
        self.engine.tasks().close();
        let rest = async {
            connections.wait().await;
            // No request can come any more; a client between two polls learns it from the next process.
            self.engine.discard_polling();
            self.engine.tasks().wait().await;
        };
        if timeout(GRACE, rest).await.is_err() {
            warn!(
                connections = connections.len(),
                sessions = self.engine.len(),
                "stopped with clients that did not take their leave"
            );
        }
        tasks.close();
        if timeout(GRACE, tasks.wait()).await.is_err() {
            warn!("stopped with a periodic task that does not end");
        }
        // Last, for the sake of what handlers have said of those who went.
        if let Some((redis, _hold)) = member {
            redis.leave().await;
        }
        drop(leaving);
    }
}

/// Keeps the engine from being ready as long as the cluster does.
async fn heed(mut hold: watch::Receiver<Option<Hold>>, engine: Arc<Engine>) {
    loop {
        let now = hold.borrow_and_update().clone();
        engine.hold(now);
        if hold.changed().await.is_err() {
            return;
        }
    }
}

/// What is called so often while clients are served, if anything is.
#[derive(Clone, Default)]
struct Pulse(Option<(Duration, Arc<dyn Fn() + Send + Sync>)>);

impl Pulse {
    async fn run(&self) -> Infallible {
        let Some((every, beat)) = &self.0 else { return pending().await };
        let mut ticks = interval(*every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            beat();
        }
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pulse").field(&self.0.as_ref().map(|(every, _)| every)).finish()
    }
}

/// Something that serves one connection.
trait Serve: Clone + Send + 'static {
    fn serve(self, stream: Stream, engine: Arc<Engine>, finish: CancellationToken) -> impl Future<Output = ()> + Send;
}

/// The routes of the own port.
#[derive(Clone)]
struct Own(Arc<own::Routes>);

impl Serve for Own {
    async fn serve(self, stream: Stream, engine: Arc<Engine>, finish: CancellationToken) {
        let peer = stream.peer();
        let answer = |request: Request<Incoming>| self.0.answer(request, peer);
        connection::serve(stream, &engine.limits().snapshot(), engine.metrics(), &finish, answer).await;
    }
}

/// The routes of the shared port.
#[derive(Clone)]
struct Shared(Router);

impl Serve for Shared {
    async fn serve(self, stream: Stream, engine: Arc<Engine>, finish: CancellationToken) {
        let peer = stream.peer();
        let answer = |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let router = self.0.clone();
            async move {
                let Ok(answer) = router.oneshot(request).await;
                answer
            }
        };
        connection::serve(stream, &engine.limits().snapshot(), engine.metrics(), &finish, answer).await;
    }
}

/// What the connections of one port share.
struct Port {
    engine: Arc<Engine>,
    connections: TaskTracker,
    finish: CancellationToken,
    pulse: Pulse,
}

impl Port {
    async fn accept(self, listener: Listener, shutdown: Shutdown, until: Phase, routes: impl Serve) {
        let mut pulse = pin!(self.pulse.run());
        for accepted in 1.. {
            // For the end, for the time to beat, for the next connection: whoever floods the port holds up neither of the first two.
            let stream = tokio::select! {
                biased;
                () = shutdown.reached(until) => break,
                never = pulse.as_mut() => match never {},
                stream = listener.accept(self.engine.metrics()) => stream,
            };
            self.take(stream, &routes);
            // Clients that are here go before those that wait to come in: a flood of connections stays in the kernel's queue.
            if accepted % ACCEPTED_A_TURN == 0 {
                yield_now().await;
            }
        }
        // A socket of our own takes whoever waits in it down with it, so they are let in first.
        if !listener.is_inherited() {
            listener.waiting().for_each(|stream| self.take(stream, &routes));
        }
    }

    fn take(&self, stream: Stream, routes: &impl Serve) {
        self.connections.spawn(routes.clone().serve(stream, Arc::clone(&self.engine), self.finish.clone()));
    }
}
