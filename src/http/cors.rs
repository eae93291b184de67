//! Which pages may talk to the own port: CORS as the reference's `cors` package answers it, and the origin check that it does not make.

use super::options::Cors as Options;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_LENGTH, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

const METHODS: HeaderValue = HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE");

/// Answers for one port.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    options: Options,
    /// The shared port, whose pages connect here when no proxy stands in front.
    page_port: Option<u16>,
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
        !self.options.origins.is_empty() || self.standing(request) == Some(Standing::Named)
    }

    /// Whether the request comes from a page that is neither ours nor named, which matters if [`Options::enforce`] is set.
    pub fn refuses(&self, request: &HeaderMap) -> bool {
        self.options.enforce && self.standing(request) == Some(Standing::Stranger) && !is_same_origin(request)
    }

    /// Adds the headers that every answer carries.
    pub fn add_headers(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        match self.standing(request) {
            Some(Standing::Any) => {
                answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Some(Standing::Named) => {
                if let Some(origin) = request.get(ORIGIN) {
                    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                }
                answer.append(VARY, HeaderValue::from_static("Origin"));
            }
            Some(Standing::Stranger) | None if !self.options.origins.is_empty() => {
                answer.append(VARY, HeaderValue::from_static("Origin"));
            }
            Some(Standing::Stranger) | None => return,
        }
        if self.options.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Adds what only a preflight's answer (204) carries.
    pub fn add_preflight_headers(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            answer.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        }
        answer.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }

    fn standing(&self, request: &HeaderMap) -> Option<Standing> {
        let any = self.options.origins.iter().any(|origin| origin == "*");
        let Some(origin) = request.get(ORIGIN) else { return any.then_some(Standing::Any) };
        let origin = origin.to_str().unwrap_or_default();
        if any {
            return Some(Standing::Any);
        }
        if self.options.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) || self.is_our_page(origin, request) {
            return Some(Standing::Named);
        }
        Some(Standing::Stranger)
    }

    /// A page of the shared port of the host that the client asked for.
    fn is_our_page(&self, origin: &str, request: &HeaderMap) -> bool {
        let (Some(port), Some(host)) = (self.page_port, host(request)) else { return false };
        origin.strip_prefix("http://").is_some_and(|authority| authority.eq_ignore_ascii_case(&format!("{}:{port}", name(host))))
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
        Options { origins: origins.iter().map(|&origin| origin.to_owned()).collect(), credentials, enforce }
    }

    fn request(origin: Option<&'static str>) -> HeaderMap {
        origin.into_iter().map(|origin| (ORIGIN, HeaderValue::from_static(origin))).collect()
    }

    fn answer(origins: &[&str], credentials: bool, origin: Option<&'static str>) -> String {
        let mut answer = HeaderMap::new();
        Cors::new(options(origins, credentials, false), None).add_headers(&request(origin), &mut answer);
        let lines: Vec<_> = answer.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        lines.join(", ")
    }
}
