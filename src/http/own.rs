//! What the two ports answer beside Engine.IO: health, metrics, the client script.

use super::client_address::Networks;
use super::{Answer, EngineIo, plain};
use crate::engine::stream::Peer;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;

/// What `/metrics` tells of the process.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The instance on its host.
    pub instance: u16,
}

/// The routes of an instance's own port and of its unix socket.
#[derive(Debug)]
pub struct Routes {
    engine_io: Arc<EngineIo>,
    _metrics_allow: Networks,
    _facts: Facts,
}

impl Routes {
    /// The routes round these sessions.
    pub fn new(engine_io: Arc<EngineIo>, metrics_allow: Networks, facts: Facts) -> Self {
        Self { engine_io, _metrics_allow: metrics_allow, _facts: facts }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Answer {
        let path = request.uri().path();
        if self.engine_io.below(path).is_some() {
            return self.engine_io.answer(request, peer).await;
        }
        match path {
            "/healthz" => health(StatusCode::OK, "ok"),
            "/readyz" => readiness(&self.engine_io),
            _ => plain(StatusCode::NOT_FOUND, Bytes::new()),
        }
    }
}

/// The routes of the shared port round an application's own.
pub fn shared(engine_io: &Arc<EngineIo>, application: Router) -> Router {
    Router::new()
        .route("/healthz", get(async || health(StatusCode::OK, "ok")))
        .route("/readyz", get(async |State(engine_io): State<Arc<EngineIo>>| readiness(&engine_io)))
        .with_state(Arc::clone(engine_io))
        .merge(application)
}

/// Ready is who takes new sessions.
fn readiness(engine_io: &EngineIo) -> Answer {
    if engine_io.engine().is_accepting() {
        health(StatusCode::OK, "ready")
    } else {
        health(StatusCode::SERVICE_UNAVAILABLE, "draining")
    }
}

fn health(status: StatusCode, word: &str) -> Answer {
    let mut answer = plain(status, Bytes::from(format!("{{\"status\":\"{word}\"}}\n")));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
