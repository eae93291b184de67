//! Which pages may talk to the own port: CORS as the reference's `cors` package answers it, and the origin check that it does not make.

use super::options::Cors as Options;
use crate::current::Current;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_LENGTH, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Answers for one port.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    options: Options,
    /// The shared port, whose pages connect here when no proxy stands in front.
    page_port: Option<u16>,
}

impl From<Options> for Current<Cors> {
    fn from(options: Options) -> Self {
        Cors::new(options, None).into()
    }
}

/// What an Origin header is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Anybody is welcome.
    Any,
    /// This one is named, or is our own page on the shared port.
    Named,
    /// It is not allowed to read our answers.
    Stranger,
}

impl Cors {
    /// For a port whose pages come from `page_port` of the same host.
    pub fn new(options: Options, page_port: Option<u16>) -> Self {
        Self { options, page_port }
    }

    /// Whether OPTIONS is a preflight here; without CORS it is a handshake with a bad method.
    pub fn answers_preflight(&self, request: &HeaderMap) -> bool {
        self.is_on() || self.standing(request) == Some(Standing::Named)
    }

    /// Whether the request comes from a page that is neither ours nor named, which matters if [`Options::enforce`] is set.
    pub fn refuses(&self, request: &HeaderMap) -> bool {
        self.options.enforce && self.standing(request) == Some(Standing::Stranger) && !is_same_origin(request)
    }

    /// Whether answers may be scripts, which a page of any origin can load, and without telling its origin.
    pub fn allows_scripts(&self) -> bool {
        !self.options.enforce
    }

    /// Adds the headers that every answer carries.
    pub fn add_headers(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        self.add(self.standing(request), request.get(ORIGIN).cloned(), answer);
    }

    /// Makes an answer's headers of a request's, in the same place; nothing of the request is left.
    pub fn turn(&self, headers: &mut HeaderMap) {
        let standing = self.standing(headers);
        // Copied, because a header of hyper's holds on to the buffer in which it arrived.
        let origin = headers.get(ORIGIN).and_then(|origin| HeaderValue::from_bytes(origin.as_bytes()).ok());
        headers.clear();
        self.add(standing, origin, headers);
    }

    fn add(&self, standing: Option<Standing>, origin: Option<HeaderValue>, answer: &mut HeaderMap) {
        match standing {
            Some(Standing::Any) => {
                answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Some(Standing::Named) => {
                if let Some(origin) = origin {
                    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                }
                answer.append(VARY, HeaderValue::from_static("Origin"));
            }
            Some(Standing::Stranger) | None if self.is_on() => {
                answer.append(VARY, HeaderValue::from_static("Origin"));
            }
            Some(Standing::Stranger) | None => return,
        }
        if self.options.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        list(answer, ACCESS_CONTROL_EXPOSE_HEADERS, &self.options.exposed_headers);
    }

    /// The status of a preflight's answer.
    pub fn preflight_status(&self) -> StatusCode {
        StatusCode::from_u16(self.options.preflight_status).unwrap_or(StatusCode::NO_CONTENT)
    }

    /// Adds what only a preflight's answer carries.
    pub fn add_preflight_headers(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        list(answer, ACCESS_CONTROL_ALLOW_METHODS, &self.options.methods);
        list(answer, ACCESS_CONTROL_ALLOW_HEADERS, &self.options.allowed_headers);
        if self.options.allowed_headers.is_empty() {
            if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
            answer.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        }
        if !self.options.max_age.is_zero() {
            answer.insert(ACCESS_CONTROL_MAX_AGE, self.options.max_age.as_secs().into());
        }
        answer.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }

    /// Whether pages of any other origin are spoken to.
    fn is_on(&self) -> bool {
        self.options.reflect || !self.options.origins.is_empty()
    }

    fn standing(&self, request: &HeaderMap) -> Option<Standing> {
        let any = self.options.origins.iter().any(|origin| origin == "*");
        let Some(origin) = request.get(ORIGIN) else { return any.then_some(Standing::Any) };
        let origin = origin.to_str().unwrap_or_default();
        if any {
            return Some(Standing::Any);
        }
        let is_named = self.options.reflect || self.options.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
        Some(if is_named || self.is_our_page(origin, request) { Standing::Named } else { Standing::Stranger })
    }

    /// A page of the shared port of the host that the client asked for.
    fn is_our_page(&self, origin: &str, request: &HeaderMap) -> bool {
        let (Some(port), Some(host)) = (self.page_port, host(request)) else { return false };
        origin.strip_prefix("http://").is_some_and(|authority| authority.eq_ignore_ascii_case(&format!("{}:{port}", name(host))))
    }
}

/// Adds a header that is a list, unless that is empty.
fn list(answer: &mut HeaderMap, name: HeaderName, items: &[String]) {
    if !items.is_empty()
        && let Ok(value) = HeaderValue::from_str(&items.join(","))
        && !value.is_empty()
    {
        answer.insert(name, value);
    }
}

fn is_same_origin(request: &HeaderMap) -> bool {
    let origin = request.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.zip(host(request)).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
}

fn host(request: &HeaderMap) -> Option<&str> {
    request.get(HOST)?.to_str().ok()
}

/// A host without its port; an IPv6 address keeps its brackets.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_origins_nothing_is_added() {
        assert_eq!(answer(&[], false, Some("http://elsewhere")), "");
        assert!(!Cors::default().answers_preflight(&request(Some("http://elsewhere"))));
    }

    #[test]
    fn anybody_is_answered_with_a_star() {
        assert_eq!(answer(&["*"], false, Some("http://elsewhere")), "access-control-allow-origin: *");
        assert_eq!(answer(&["*"], false, None), "access-control-allow-origin: *");
    }

    #[test]
    fn a_named_origin_is_named_back_with_credentials() {
        assert_eq!(
            answer(&["https://a.example", "https://b.example"], true, Some("https://b.example")),
            "access-control-allow-origin: https://b.example, vary: Origin, access-control-allow-credentials: true"
        );
        assert_eq!(
            answer(&["https://a.example"], true, Some("https://c.example")),
            "vary: Origin, access-control-allow-credentials: true"
        );
    }

    #[test]
    fn a_requests_own_map_becomes_the_same_answer() {
        for origins in [&[][..], &["*"], &["https://a.example"]] {
            for origin in [None, Some("https://a.example"), Some("https://c.example")] {
                let cors = Cors::new(options(origins, true, false), None);
                let mut headers = request(origin);
                headers.insert(HOST, HeaderValue::from_static("b.example"));
                let asked = headers.clone();
                assert_eq!(lines(|answer| cors.add_headers(&asked, answer)), {
                    cors.turn(&mut headers);
                    lines(|answer| *answer = headers)
                });
            }
        }
    }

    #[test]
    fn any_origin_is_named_back_if_asked() {
        let options =
            Options { reflect: true, credentials: true, exposed_headers: vec!["x-a".into(), "x-b".into()], ..Options::default() };
        let cors = Cors::new(options, None);
        assert!(cors.answers_preflight(&request(None)));
        assert_eq!(
            lines(|answer| cors.add_headers(&request(Some("https://c.example")), answer)),
            "access-control-allow-origin: https://c.example, vary: Origin, access-control-allow-credentials: true, \
             access-control-expose-headers: x-a,x-b"
        );
    }

    #[test]
    fn a_preflight_is_told_what_is_allowed() {
        let preflight = |options| {
            let mut request = request(Some("https://a.example"));
            request.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-asked"));
            lines(|answer| Cors::new(options, None).add_preflight_headers(&request, answer))
        };
        assert_eq!(
            preflight(Options::default()),
            "access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE, access-control-allow-headers: x-asked, \
             vary: Access-Control-Request-Headers, content-length: 0"
        );
        let options = Options {
            methods: vec!["GET".into(), "POST".into()],
            allowed_headers: vec!["x-mine".into()],
            max_age: std::time::Duration::from_secs(123),
            ..Options::default()
        };
        assert_eq!(
            preflight(options),
            "access-control-allow-methods: GET,POST, access-control-allow-headers: x-mine, access-control-max-age: 123, content-length: 0"
        );
    }

    #[test]
    fn the_page_on_the_shared_port_is_ours() {
        let cors = Cors::new(Options::default(), Some(8080));
        for (origin, host, ours) in [
            ("http://localhost:8080", "localhost:3131", true),
            ("http://192.0.2.7:8080", "192.0.2.7:3131", true),
            ("http://[::1]:8080", "[::1]:3131", true),
            ("http://[::1]:8080", "[::1]", true),
            ("http://evil.example:8080", "localhost:3131", false),
            ("http://localhost:8081", "localhost:3131", false),
            ("https://localhost:8080", "localhost:3131", false),
        ] {
            let mut request = request(Some(origin));
            request.insert(HOST, HeaderValue::from_static(host));
            assert_eq!(cors.answers_preflight(&request), ours, "{origin} {host}");
        }
    }

    #[test]
    fn strangers_are_refused_only_if_asked() {
        let mut request = request(Some("https://evil.example"));
        request.insert(HOST, HeaderValue::from_static("good.example"));
        let enforcing = |origins: &[&str], enforce| Cors::new(options(origins, false, enforce), None);
        assert!(enforcing(&[], true).refuses(&request));
        assert!(!enforcing(&[], false).refuses(&request));
        assert!(!enforcing(&["https://evil.example"], true).refuses(&request));
        request.insert(ORIGIN, HeaderValue::from_static("https://good.example"));
        assert!(!enforcing(&[], true).refuses(&request));
        request.remove(ORIGIN);
        assert!(!enforcing(&[], true).refuses(&request));
    }

    fn options(origins: &[&str], credentials: bool, enforce: bool) -> Options {
        Options { origins: origins.iter().map(|&origin| origin.to_owned()).collect(), credentials, enforce, ..Options::default() }
    }

    fn request(origin: Option<&'static str>) -> HeaderMap {
        origin.into_iter().map(|origin| (ORIGIN, HeaderValue::from_static(origin))).collect()
    }

    fn answer(origins: &[&str], credentials: bool, origin: Option<&'static str>) -> String {
        lines(|answer| Cors::new(options(origins, credentials, false), None).add_headers(&request(origin), answer))
    }

    fn lines(add: impl FnOnce(&mut HeaderMap)) -> String {
        let mut answer = HeaderMap::new();
        add(&mut answer);
        let lines: Vec<_> = answer.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        lines.join(", ")
    }
}
