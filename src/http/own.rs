//! What the two ports answer beside Engine.IO: health, metrics, the client script.

use super::client_address::Networks;
use super::metrics::{self, Page};
use super::{Answer, EngineIo, plain};
use crate::engine::Hold;
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
use std::pin::Pin;
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

    /// Answers one request; what can be found out without waiting is found out at once, see [`EngineIo::answer`].
    pub fn answer(&self, request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<Either<Full<Bytes>, Body>>> {
        let work = match self.engine_io.below(request.uri().path()) {
            Some(file) => match self.engine_io.client_script(file, request.headers()) {
                Some(script) => Work::Done(script.map(Either::Left)),
                None => Work::EngineIo(self.engine_io.answer(request, peer)),
            },
            None => self.beside(request, peer),
        };
        async move {
            match work {
                Work::EngineIo(answer) => answer.await.map(Either::Left),
                Work::Application(answer) => answer.await.map(Either::Right),
                Work::Done(answer) => answer,
            }
        }
    }

    /// What is answered beside Engine.IO.
    fn beside<E>(&self, mut request: Request<Incoming>, peer: Peer) -> Work<E> {
        let answer = match request.uri().path() {
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
                let answer = self.fallback.clone().oneshot(request);
                return Work::Application(Box::pin(async move {
                    let Ok(answer) = answer.await;
                    answer
                }));
            }
        };
        Work::Done(answer.map(Either::Left))
    }
}

/// How a request is answered; what waits in an application's own hands is in a box, so that the others have a small future.
enum Work<E> {
    EngineIo(E),
    Application(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
    Done(Response<Either<Full<Bytes>, Body>>),
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
    let engine = engine_io.engine();
    if !engine.is_accepting() {
        health(StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if let Some(hold) = engine.held() {
        match hold {
            Hold::Joining => health(StatusCode::SERVICE_UNAVAILABLE, "joining"),
            Hold::NumberTaken(by) => {
                let (node, by) = (engine.node(), serde_json::Value::from(by));
                json(StatusCode::SERVICE_UNAVAILABLE, &format!(r#"{{"status":"conflict","node":{node},"taken_by":{by}}}"#))
            }
        }
    } else if engine.metrics().redis_down.get() > 0 {
        // Its clients are served; they only do not hear those of other nodes.
        json(StatusCode::OK, r#"{"status":"degraded","redis":"down"}"#)
    } else {
        health(StatusCode::OK, "ready")
    }
}

fn health(status: StatusCode, word: &str) -> Answer {
    json(status, &format!(r#"{{"status":"{word}"}}"#))
}

fn json(status: StatusCode, text: &str) -> Answer {
    let mut answer = plain(status, Bytes::from(format!("{text}\n")));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
