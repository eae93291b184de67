//! The official JavaScript client, served beside the Socket.IO path as the reference serves it (`serveClient`).
//!
//! The files are `dist/` of npm's `socket.io-client` at [`VERSION`], each through `gzip -9n` and through `brotli -q 11`: what nearly everybody asks
//! for is then in the binary as it goes out. What we do and the reference does not: `Vary`, and the validators on a 304 (RFC 9110, section 15.4.5).

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use rust_embed::RustEmbed;
use std::borrow::Cow;
use std::io::Read;
use std::sync::OnceLock;

/// The version of `socket.io-client` that is served.
pub const VERSION: &str = "4.8.4";

const ETAG: &str = "\"4.8.4\"";
const WEAK_ETAG: &str = "W/\"4.8.4\"";

#[derive(RustEmbed)]
#[folder = "src/apps/assets/socket.io-client"]
struct Files;

/// The files by name, each in the encodings that were asked for so far.
static SCRIPTS: [Script; 8] = [
    Script::new("socket.io.esm.min.js"),
    Script::new("socket.io.esm.min.js.map"),
    Script::new("socket.io.js"),
    Script::new("socket.io.js.map"),
    Script::new("socket.io.min.js"),
    Script::new("socket.io.min.js.map"),
    Script::new("socket.io.msgpack.min.js"),
    Script::new("socket.io.msgpack.min.js.map"),
];

/// Answers a request for `file`, the part of the path after the Socket.IO path (`socket.io.min.js`), or `None` when it is none of the client's files.
///
/// Any method is answered alike, as by the reference; the HTTP layer leaves out the body of an answer to HEAD.
pub fn respond(file: &str, request: &HeaderMap) -> Option<Response<Bytes>> {
    let script = SCRIPTS.iter().find(|script| script.name == file)?;
    let known = request.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == ETAG || tag == WEAK_ETAG);
    let encoding = Encoding::accepted(request);

    let mut response = Response::new(if known { Bytes::new() } else { script.body(encoding) });
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
    headers.insert(header::ETAG, HeaderValue::from_static(ETAG));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Some(response);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(script.content_type()));
    if let Some(name) = encoding.name() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    Some(response)
}

struct Script {
    name: &'static str,
    brotli: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
    deflate: OnceLock<Bytes>,
    identity: OnceLock<Bytes>,
}

impl Script {
    const fn new(name: &'static str) -> Self {
        Self { name, brotli: OnceLock::new(), gzip: OnceLock::new(), deflate: OnceLock::new(), identity: OnceLock::new() }
    }

    fn content_type(&self) -> &'static str {
        if self.name.ends_with(".map") { "application/json; charset=utf-8" } else { "application/javascript; charset=utf-8" }
    }

    fn body(&self, encoding: Encoding) -> Bytes {
        let body = match encoding {
            Encoding::Brotli => self.brotli.get_or_init(|| self.embedded("br")),
            Encoding::Gzip => self.gzip.get_or_init(|| self.embedded("gz")),
            Encoding::Deflate => self.deflate.get_or_init(|| {
                let plain = self.body(Encoding::Identity);
                read(ZlibEncoder::new(&plain[..], Compression::default()))
            }),
            Encoding::Identity => self.identity.get_or_init(|| read(GzDecoder::new(&self.body(Encoding::Gzip)[..]))),
        };
        body.clone()
    }

    fn embedded(&self, extension: &str) -> Bytes {
        match Files::get(&format!("{}.{extension}", self.name)).expect("every name of the table is embedded").data {
            Cow::Borrowed(data) => Bytes::from_static(data),
            Cow::Owned(data) => Bytes::from(data),
        }
    }
}

fn read(mut coder: impl Read) -> Bytes {
    let mut bytes = Vec::new();
    coder.read_to_end(&mut bytes).expect("the embedded files are intact, and memory does not fail to be read");
    Bytes::from(bytes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Brotli,
    Gzip,
    Deflate,
    Identity,
}

impl Encoding {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
            Self::Identity => None,
        }
    }

    /// The best of what the client accepts: by quality, then named before `*`, then in the client's order, as npm's `negotiator` decides.
    fn accepted(request: &HeaderMap) -> Self {
        let offers: Vec<(String, f32)> = request
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|offer| {
                let (name, parameters) = offer.split_once(';').unwrap_or((offer, ""));
                (name.trim().to_ascii_lowercase(), quality(parameters))
            })
            .collect();

        let mut best = (Self::Identity, 0.0, usize::MAX);
        for encoding in [Self::Brotli, Self::Gzip, Self::Deflate] {
            let named = |wanted: &str| offers.iter().position(|(name, _)| name == wanted);
            // What `*` brings comes after everything that is named at the same quality.
            let found = match encoding.name().and_then(named) {
                Some(at) => Some((offers[at].1, at)),
                None => named("*").map(|at| (offers[at].1, offers.len() + at)),
            };
            if let Some((quality, rank)) = found
                && (quality > best.1 || (quality == best.1 && quality > 0.0 && rank < best.2))
            {
                best = (encoding, quality, rank);
            }
        }
        best.0
    }
}

/// The `q` among an offer's parameters: 1 when it is not there, 0 when it is no number.
fn quality(parameters: &str) -> f32 {
    parameters
        .split(';')
        .filter_map(|parameter| parameter.trim().split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
        .map_or(1.0, |(_, value)| value.trim().parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::ZlibDecoder;

    #[test]
    fn a_script_is_served_with_the_headers_of_the_reference() {
        let answer = get("socket.io.min.js", &[]);
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(field(&answer, "content-type"), Some("application/javascript; charset=utf-8"));
        assert_eq!(field(&answer, "cache-control"), Some("public, max-age=0"));
        assert_eq!(field(&answer, "etag"), Some(ETAG));
        assert_eq!(field(&answer, "content-encoding"), None);
        assert!(answer.body().starts_with(b"/*!\n * Socket.IO v4.8.4\n"));
    }

    #[test]
    fn a_map_is_json() {
        let answer = get("socket.io.js.map", &[]);
        assert_eq!(field(&answer, "content-type"), Some("application/json; charset=utf-8"));
        serde_json::from_slice::<serde::de::IgnoredAny>(answer.body()).expect("a source map is JSON");
    }

    #[test]
    fn every_file_of_the_reference_is_there_in_the_version_of_the_etag() {
        assert_eq!((ETAG, WEAK_ETAG), (&*format!("\"{VERSION}\""), &*format!("W/\"{VERSION}\"")));
        assert_eq!(Files::iter().count(), 2 * SCRIPTS.len() + 1, "and the licence");
        for script in &SCRIPTS {
            let plain = get(script.name, &[]);
            let names_the_next = match script.name.strip_suffix(".map") {
                Some(source) => format!("{{\"version\":3,\"file\":\"{source}\""),
                None => format!("/*!\n * Socket.IO v{VERSION}\n"),
            };
            assert!(plain.body().starts_with(names_the_next.as_bytes()), "{}", script.name);
            if !script.name.ends_with(".map") {
                let reference = format!("//# sourceMappingURL={}.map", script.name);
                assert!(plain.body().trim_ascii_end().ends_with(reference.as_bytes()), "{}", script.name);
            }
        }
    }

    #[test]
    fn what_is_no_file_of_the_client_is_left_to_others() {
        for file in ["", "socket.io.esm.js", "socket.io.js.gz", "socket.io.min.js/", "LICENSE", "../page.js", "x/socket.io.js"] {
            assert!(respond(file, &HeaderMap::new()).is_none(), "{file}");
        }
    }

    #[test]
    fn a_known_version_is_not_sent_again() {
        for tag in [ETAG, WEAK_ETAG] {
            let answer = get("socket.io.js", &[("if-none-match", tag), ("accept-encoding", "gzip")]);
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
            assert!(answer.body().is_empty());
            assert_eq!(field(&answer, "etag"), Some(ETAG));
            assert_eq!(field(&answer, "vary"), Some("Accept-Encoding"));
            assert_eq!(field(&answer, "content-type"), None);
            assert_eq!(field(&answer, "content-encoding"), None);
        }
        for tag in ["\"4.8.3\"", "4.8.4", "\"1\", \"4.8.4\"", "*", ""] {
            assert_eq!(get("socket.io.js", &[("if-none-match", tag)]).status(), StatusCode::OK, "{tag}");
        }
    }

    /// The right-hand sides are what socket.io 4.8.4 answers.
    #[test]
    fn the_encoding_is_negotiated_as_by_the_reference() {
        for (accept, encoding) in [
            ("", None),
            ("gzip", Some("gzip")),
            ("GZip", Some("gzip")),
            ("deflate", Some("deflate")),
            ("gzip, deflate, br, zstd", Some("gzip")),
            ("br", Some("br")),
            ("gzip;q=0.9, br", Some("br")),
            ("deflate, gzip", Some("deflate")),
            ("gzip;q=0.5, deflate", Some("deflate")),
            ("gzip; q=0.5 , deflate;q=0.4", Some("gzip")),
            ("deflate;level=1;q=0.3, gzip;q=0.2", Some("deflate")),
            ("*", Some("br")),
            ("*, deflate", Some("deflate")),
            ("gzip;q=0, *", Some("br")),
            ("br;q=0, gzip;q=0, *", Some("deflate")),
            ("*;q=0", None),
            ("gzip;q=0", None),
            ("gzip;q=nonsense", None),
            ("identity, gzip", Some("gzip")),
            ("identity", None),
            ("zstd", None),
            (",;,;q=", None),
        ] {
            let answer = get("socket.io.esm.min.js", &[("accept-encoding", accept)]);
            assert_eq!(field(&answer, "content-encoding"), encoding, "{accept}");
            assert_eq!(field(&answer, "vary"), Some("Accept-Encoding"));
        }
    }

    #[test]
    fn every_encoding_decodes_to_the_same_bytes() {
        for script in &SCRIPTS {
            let plain = get(script.name, &[]);
            let gzip = get(script.name, &[("accept-encoding", "gzip")]);
            let deflate = get(script.name, &[("accept-encoding", "deflate")]);
            // What is in it is looked at by the client tests.
            assert!(get(script.name, &[("accept-encoding", "br")]).body().len() < gzip.body().len());
            assert_eq!(read(GzDecoder::new(&gzip.body()[..])), plain.body(), "{}", script.name);
            assert_eq!(read(ZlibDecoder::new(&deflate.body()[..])), plain.body(), "{}", script.name);
            assert!(gzip.body().len() * 2 < plain.body().len() && deflate.body().len() * 2 < plain.body().len());
        }
    }

    fn get(file: &str, headers: &[(&'static str, &str)]) -> Response<Bytes> {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a legal header")));
        respond(file, &headers.collect()).expect("a file of the client")
    }

    fn field<'a>(answer: &'a Response<Bytes>, name: &str) -> Option<&'a str> {
        answer.headers().get(name).map(|value| value.to_str().expect("ASCII"))
    }
}
