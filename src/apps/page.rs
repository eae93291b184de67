//! The page that shows where a client is, how it came there, and who else is here; it loads nothing from elsewhere.

use crate::engine::stream::Peer;
use crate::http::client_address::{FORWARDED_FOR, Networks};
use crate::protocol::sid::Node;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use rust_embed::RustEmbed;
use std::borrow::Cow;
use std::fmt::Write;

#[derive(RustEmbed)]
#[folder = "src/apps/assets/page"]
struct Assets;

/// What the page is told by the instance that renders it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The instance, which the page only mentions: behind a proxy its socket may reach another one.
    pub instance: u32,
    /// The instance's node.
    pub node: Node,
    /// The instance's own port, to which the page connects when it was opened directly.
    pub port: u16,
    /// Whether the request came without a trusted proxy in between.
    ///
    /// Else the page connects to its own origin, where the proxy finds an instance.
    pub direct: bool,
}

/// The page as an application of the shared port; `instance`, `node` and `port` are those of the instance that renders it.
pub fn router(instance: u32, node: Node, port: u16, trusted_proxies: Networks) -> Router {
    Router::new().fallback(get(async move |uri: Uri, Extension(peer): Extension<Peer>, request: HeaderMap| {
        let through_proxy = request.contains_key(&FORWARDED_FOR) && peer.ip().is_none_or(|ip| trusted_proxies.contains(ip));
        let context = Context { instance, node, port, direct: !through_proxy };
        respond(uri.path(), &request, &context)
            .map_or_else(|| StatusCode::NOT_FOUND.into_response(), |response| response.map(Body::from))
    }))
}

/// Answers a request for the page (`/page`), for what it loads (`/page/…`) and for `/`, which leads to it; `None` for any other path.
pub fn respond(path: &str, request: &HeaderMap, context: &Context) -> Option<Response<Bytes>> {
    match path {
        "/" => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/page"));
            Some(response)
        }
        "/page" => Some(page(context)),
        _ => asset(path.strip_prefix("/page/")?, request),
    }
}

fn page(context: &Context) -> Response<Bytes> {
    let template = Assets::get("page.html").expect("the page is embedded").data;
    // All four are numbers or words of ours, so nothing needs escaping.
    let html = String::from_utf8_lossy(&template)
        .replace("{{instance}}", &context.instance.to_string())
        .replace("{{node}}", &context.node.to_string())
        .replace("{{port}}", &context.port.to_string())
        .replace("{{direct}}", if context.direct { "true" } else { "false" });

    let mut policy = String::from(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; connect-src 'self'",
    );
    if context.direct {
        // Any host: a policy cannot say "this host, another port", and the Host header may be an IPv6 address, which no policy can name.
        let port = context.port;
        write!(policy, " http://*:{port} ws://*:{port}").expect("a String takes all");
    }

    let mut response = Response::new(Bytes::from(html));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // Any instance may render the next one.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).expect("the policy is ASCII"));
    protect(headers);
    response
}

fn asset(name: &str, request: &HeaderMap) -> Option<Response<Bytes>> {
    let content_type = match name.rsplit_once('.')?.1 {
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    };
    let file = Assets::get(name)?;
    let hash = file.metadata.sha256_hash();
    let etag = format!("\"{:016x}\"", u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes")));
    let known = request.get(header::IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes().ends_with(etag.as_bytes()));

    let mut response = Response::new(match file.data {
        _ if known => Bytes::new(),
        Cow::Borrowed(data) => Bytes::from_static(data),
        Cow::Owned(data) => Bytes::from(data),
    });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::ETAG, HeaderValue::from_str(&etag).expect("hexadecimal is ASCII"));
    protect(headers);
    Some(response)
}

fn protect(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::client_script;

    #[test]
    fn the_page_knows_who_rendered_it() {
        let page = get("/page", &context(true));
        assert_eq!(field(&page, "content-type"), "text/html; charset=utf-8");
        assert_eq!(field(&page, "cache-control"), "no-store");
        let html = text(&page);
        assert!(html.contains(r#"data-instance="2" data-port="3133" data-node="34" data-direct="true""#));
        assert!(!html.contains("{{"));
        assert!(text(&get("/page", &context(false))).contains(r#"data-direct="false""#));
    }

    #[test]
    fn the_policy_lets_the_page_reach_its_own_origin_and_if_opened_directly_the_own_port() {
        let policy = |direct| field(&get("/page", &context(direct)), "content-security-policy").to_owned();
        assert!(policy(true).ends_with("connect-src 'self' http://*:3133 ws://*:3133"));
        assert!(policy(false).ends_with("connect-src 'self'"));
        assert!(policy(true).starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
    }

    #[test]
    fn the_page_loads_only_what_is_served_here() {
        let html = text(&get("/page", &context(true)));
        let mut loaded = 0;
        for link in html.split(" href=\"").chain(html.split(" src=\"")).filter(|text| !text.starts_with('<')) {
            let path = link.split(['"', '?']).next().expect("one part at least");
            match path.strip_prefix("/socket.io/") {
                Some(file) => assert!(client_script::respond(file, &HeaderMap::new()).is_some(), "{path}"),
                None => assert!(respond(path, &HeaderMap::new(), &context(true)).is_some(), "{path}"),
            }
            loaded += 1;
        }
        assert!(loaded >= 4, "{loaded}");
        for name in Assets::iter().filter(|name| *name != "icon.svg") {
            let file = Assets::get(&name).expect("it was just listed").data;
            let file = String::from_utf8_lossy(&file).replace("${location.protocol}//", "");
            assert!(!file.contains("http://") && !file.contains("https://") && !file.contains("@import"), "{name}");
        }
    }

    #[test]
    fn no_script_or_style_stands_inline() {
        let html = text(&get("/page", &context(true)));
        assert!(html.split("<script").skip(1).all(|script| script.starts_with(" src=\"/") && script.contains("></script>")));
        assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains(" onclick="));
        let script = text(&get("/page/page.js", &context(true)));
        assert!(!script.contains("innerHTML") && !script.contains("insertAdjacentHTML") && !script.contains("eval("));
    }

    #[test]
    fn an_asset_is_revalidated_by_its_content() {
        for (path, content_type) in [
            ("/page/page.js", "text/javascript; charset=utf-8"),
            ("/page/style.css", "text/css; charset=utf-8"),
            ("/page/icon.svg", "image/svg+xml"),
        ] {
            let first = get(path, &context(true));
            assert_eq!(field(&first, "content-type"), content_type);
            assert_eq!(field(&first, "cache-control"), "no-cache");
            assert_eq!(field(&first, "x-content-type-options"), "nosniff");
            for weak in ["", "W/"] {
                let known = HeaderValue::from_str(&format!("{weak}{}", field(&first, "etag"))).expect("a legal header");
                let request = HeaderMap::from_iter([(header::IF_NONE_MATCH, known)]);
                let second = respond(path, &request, &context(true)).expect("an asset");
                assert_eq!((second.status(), second.body().len()), (StatusCode::NOT_MODIFIED, 0));
            }
        }
    }

    #[test]
    fn the_root_leads_to_the_page_and_other_paths_to_others() {
        let root = get("/", &context(true));
        assert_eq!((root.status(), field(&root, "location")), (StatusCode::FOUND, "/page"));
        for path in ["", "/page/", "/pages", "/page/page.html", "/page/../page.js", "/page/nothing.js", "/healthz", "/socket.io/"]
        {
            assert!(respond(path, &HeaderMap::new(), &context(true)).is_none(), "{path}");
        }
    }

    fn context(direct: bool) -> Context {
        Context { instance: 2, node: Node::try_from(34).expect("in range"), port: 3133, direct }
    }

    fn get(path: &str, context: &Context) -> Response<Bytes> {
        respond(path, &HeaderMap::new(), context).expect("it is served")
    }

    fn field<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
        response.headers()[name].to_str().expect("ASCII")
    }

    fn text(response: &Response<Bytes>) -> String {
        String::from_utf8(response.body().to_vec()).expect("UTF-8")
    }
}
