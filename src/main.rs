//! The process, in the order in which it comes up: command line, configuration, logs, runtime, signals, ports, service.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;
use stickyport::Server;
use stickyport::apps::{demo, page};
use stickyport::cli::{self, Exit};
use stickyport::cluster::Redis;
use stickyport::config::{Config, Loaded, Sources};
use stickyport::current::Current;
use stickyport::http::Listeners;
use stickyport::http::cors::Cors;
use stickyport::hub::{self, SocketIo};
use stickyport::protocol::sid::Boot;
use stickyport::reload::{Hangups, Running};
use stickyport::shutdown::{Shutdown, Signals};
use stickyport::systemd::{self, Systemd};
use stickyport::telemetry::{self, Log};

/// Measured against the system's: 5 % fewer instructions for an echo.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Loaded { config, unknown_variables, sources, .. } = match cli::start(std::env::args_os()) {
        Ok(loaded) => loaded,
        Err(exit) => return exit.into(),
    };
    let log = telemetry::init(&config.log).expect("checked when the configuration was loaded");
    for name in unknown_variables {
        tracing::warn!("{}", cli::unknown_variable(&name));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start the runtime: {error}");
            return Exit::System.into();
        }
    };
    match runtime.block_on(serve(config, sources, log)) {
        Ok(()) => Exit::Done.into(),
        Err((exit, what)) => {
            tracing::error!("{what}");
            exit.into()
        }
    }
}

async fn serve(config: Config, sources: Sources, log: Log) -> Result<(), (Exit, String)> {
    let shutdown = Shutdown::new();
    let uncaught = |error| (Exit::System, format!("cannot catch signals: {error}"));
    let signals = Signals::catch().map_err(uncaught)?;
    tokio::spawn(signals.drive(shutdown.clone()));
    let hangups = Hangups::catch().map_err(uncaught)?;

    let plan = config.plan().map_err(|error| (Exit::Configuration, cli::chain(&error)))?;
    let listeners = Listeners::bind(&plan).map_err(|error| (Exit::from(&error), cli::chain(&error)))?;
    // The journal has the log, of which each line may be an object, and this is none.
    if let Some(bound) = listeners.http_address().filter(|_| !systemd::has_stdout()) {
        cli::announce(&format!("{}/page", config.base_url(bound)));
    }

    let own_port = listeners.own_port().unwrap_or_default();
    let instance = u32::from(config.instance);
    let limits = Current::from(config.limits.clone());
    let redis = (!config.redis.url.is_empty())
        .then(|| Redis::new(&config.redis, &config.limits).expect("checked when the configuration was loaded"));
    let mut builder = demo::namespaces(instance, own_port).into_iter().fold(
        SocketIo::builder()
            .options(config.socketio.clone())
            .limits(limits.clone())
            .ids(config.node(), Boot::at(SystemTime::now())),
        hub::Builder::namespace,
    );
    if let Some(redis) = &redis {
        builder = builder.adapter(redis.clone());
    }
    let io = builder.build();
    let engine = io.engine().options(config.engine.clone()).build(Arc::new(io.clone()));
    let page = page::router(instance, config.node(), own_port, config.http.trusted_proxies.clone());
    let systemd = Systemd::of_this_process();
    let report = systemd.clone().report(Arc::clone(engine.metrics()), shutdown.clone());
    let page_port = listeners.http_address().map(|address| address.port());
    let cors = Current::from(Cors::new(config.cors.clone(), page_port));
    let running = Running { config: config.clone(), sources, log, limits, cors: cors.clone(), page_port };
    tokio::spawn(running.reload_at(hangups, systemd.clone()));
    let mut server = Server::new(engine);
    if let Some(redis) = redis {
        server = server.cluster(redis, io);
    }
    let serve = server
        .instance(config.instance)
        .cors(cors)
        .trusted_proxies(config.http.trusted_proxies)
        .metrics_allow(config.metrics.allow)
        .application(page)
        .restart_window(config.restart_window)
        .drain_timeout(config.drain_timeout)
        .pulse(systemd.beat_interval(), move || systemd.beat())
        .run(listeners, &shutdown);
    // The report first, each time: systemd hears that the process goes before there is nothing left to wait for.
    tokio::select! {
        biased;
        never = report => match never {},
        () = serve => {}
    }
    tracing::info!("stopped");
    Ok(())
}
