//! The process, in the order in which it comes up: command line, configuration, logs, runtime, signals, ports, service.

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use stickyport::cli::{self, Exit};
use stickyport::config::{Config, Loaded};
use stickyport::http::{Listener, Listeners};
use stickyport::metrics::Metrics;
use stickyport::shutdown::{Phase, Shutdown, Signals};
use stickyport::telemetry;

fn main() -> ExitCode {
    let Loaded { config, unknown_variables } = match cli::start(std::env::args_os()) {
        Ok(loaded) => loaded,
        Err(exit) => return exit.into(),
    };
    telemetry::init(&config.log).expect("checked when the configuration was loaded");
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
    match runtime.block_on(serve(config)) {
        Ok(()) => Exit::Done.into(),
        Err((exit, what)) => {
            tracing::error!("{what}");
            exit.into()
        }
    }
}

async fn serve(config: Config) -> Result<(), (Exit, String)> {
    let shutdown = Shutdown::new();
    let signals = Signals::catch().map_err(|error| (Exit::System, format!("cannot catch signals: {error}")))?;
    tokio::spawn(signals.drive(shutdown.clone()));

    let plan = config.plan().map_err(|error| (Exit::Configuration, cli::chain(&error)))?;
    let listeners = Listeners::bind(&plan).map_err(|error| (Exit::from(&error), cli::chain(&error)))?;
    for listener in listeners.http.iter().chain(&listeners.own) {
        tracing::info!(%listener, instance = config.instance, "listening");
    }
    if let Some(bound) = listeners.http_address() {
        cli::announce(&format!("{}/page", config.base_url(bound)));
    }

    let metrics = Arc::new(Metrics::default());
    let accepting: Vec<_> = listeners
        .http
        .into_iter()
        .chain(listeners.own)
        .map(|listener| tokio::spawn(accept(listener, metrics.clone(), shutdown.clone())))
        .collect();
    for task in accepting {
        task.await.map_err(|error| (Exit::System, error.to_string()))?;
    }
    tracing::info!("stopped");
    Ok(())
}

async fn accept(listener: Listener, metrics: Arc<Metrics>, shutdown: Shutdown) {
    loop {
        let stream = tokio::select! {
            stream = listener.accept(&metrics) => stream,
            () = shutdown.reached(Phase::Stopping) => return,
        };
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::from("ok\n"));
    if request.uri().path() != "/healthz" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}
