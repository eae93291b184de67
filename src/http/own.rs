//! What the two ports answer beside Engine.IO: health, metrics, the client script.

use super::client_address::Networks;
use super::metrics::{self, Page};
use super::{Answer, EngineIo, plain};
use crate::engine::stream::Peer;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use std::sync::Arc;
use tower::ServiceExt;

/// The routes of an instance's own port and of its unix socket.
#[derive(Debug)]
pub struct Routes {
    engine_io: Arc<EngineIo>,
    metrics: Page,
    metrics_allow: Networks,
    fallback: Router,
}

impl Routes {
    /// The routes round these sessions, and an application's own where there is none.
    pub fn new(engine_io: Arc<EngineIo>, metrics: Page, metrics_allow: Networks, fallback: Router) -> Self {
        Self { engine_io, metrics, metrics_allow, fallback }
    }

    /// Answers one request.
    pub async fn answer(&self, mut request: Request<Incoming>, peer: Peer) -> Response<Either<Full<Bytes>, Body>> {
        let path = request.uri().path();
        let answer = if let Some(file) = self.engine_io.below(path) {
            match self.engine_io.client_script(file, request.headers()) {
                Some(script) => script,
                None => self.engine_io.answer(request, peer).await,
            }
        } else {
            match path {
                "/healthz" => health(StatusCode::OK, "ok"),
                "/readyz" => readiness(&self.engine_io),
                // To everybody else there is no such page.
                "/metrics" if metrics::is_allowed(&peer, request.headers(), &self.metrics_allow) => {
                    let mut answer = plain(StatusCode::OK, Bytes::from(self.metrics.render()));
                    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
                    answer
                }
                _ => {
                    request.extensions_mut().insert(peer);
                    let Ok(answer) = self.fallback.clone().oneshot(request).await;
                    return answer.map(Either::Right);
                }
            }
        };
        answer.map(Either::Left)
    }
}

/// The routes of the shared port round an application's own.
pub fn shared(engine_io: &Arc<EngineIo>, application: Router) -> Router {
    Router::new()
        .route("/healthz", get(async || health(StatusCode::OK, "ok")))
        .route("/readyz", get(async |State(engine_io): State<Arc<EngineIo>>| readiness(&engine_io)))
        .route(&format!("{}/{{file}}", engine_io.path().trim_end_matches('/')), get(script))
        .with_state(Arc::clone(engine_io))
        .merge(application)
}

async fn script(State(engine_io): State<Arc<EngineIo>>, Path(file): Path<String>, request: HeaderMap) -> Answer {
    engine_io.client_script(&file, &request).unwrap_or_else(|| plain(StatusCode::NOT_FOUND, Bytes::new()))
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
