//! What an application may decide about requests before they reach a session.

use crate::protocol::errors::ConnectionError;
use http::HeaderMap;
use http::request::Parts;
use std::fmt;
use std::pin::Pin;

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Decide<T> = Box<dyn Fn(&Parts) -> Answer<T> + Send + Sync>;
type Look = Box<dyn Fn(&Parts) + Send + Sync>;
type AddHeaders = Box<dyn Fn(&mut HeaderMap, &Parts) + Send + Sync>;
type Tell = Box<dyn Fn(&ConnectionError, &Parts) + Send + Sync>;

/// The reference's `allowRequest`, `generateId`, `initial_headers`, `headers` and `connection_error`.
#[derive(Default)]
pub struct Hooks {
    pub(super) allow_request: Option<Decide<Result<(), String>>>,
    pub(super) generate_id: Option<Decide<Result<String, String>>>,
    pub(super) on_request: Option<Look>,
    pub(super) initial_headers: Option<AddHeaders>,
    pub(super) headers: Option<AddHeaders>,
    pub(super) connection_error: Option<Tell>,
}

impl Hooks {
    /// Asked before every handshake; an error refuses it with 403, code 4 and the error's text ("Forbidden" if it is empty).
    #[must_use]
    pub fn allow_request<F, R>(mut self, decide: F) -> Self
    where
        F: Fn(&Parts) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.allow_request = Some(Box::new(move |request| Box::pin(decide(request))));
        self
    }

    /// Makes the sid of a new session; an error refuses the handshake with code 3. Ids that do not name their node cannot be routed by nginx.
    #[must_use]
    pub fn generate_id<F, R>(mut self, generate: F) -> Self
    where
        F: Fn(&Parts) -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.generate_id = Some(Box::new(move |request| Box::pin(generate(request))));
        self
    }

    /// Told of every request before anything is decided about it, polls, posts and upgrades included.
    ///
    /// ```
    /// use stickyport::engine::Hooks;
    ///
    /// let hooks = Hooks::default().on_request(|request| {
    ///     if let Some(agent) = request.headers.get("user-agent") {
    ///         println!("{} by {agent:?}", request.method);
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn on_request(mut self, look: impl Fn(&Parts) + Send + Sync + 'static) -> Self {
        self.on_request = Some(Box::new(look));
        self
    }

    /// Adds headers to the answer of a session's first request, the 101 of a WebSocket included.
    #[must_use]
    pub fn initial_headers(mut self, add: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static) -> Self {
        self.initial_headers = Some(Box::new(add));
        self
    }

    /// Adds headers to the answer of every request, the first included.
    #[must_use]
    pub fn headers(mut self, add: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static) -> Self {
        self.headers = Some(Box::new(add));
        self
    }

    /// Told of every request that is refused.
    #[must_use]
    pub fn on_connection_error(mut self, tell: impl Fn(&ConnectionError, &Parts) + Send + Sync + 'static) -> Self {
        self.connection_error = Some(Box::new(tell));
        self
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("allow_request", &self.allow_request.is_some()).finish_non_exhaustive()
    }
}
