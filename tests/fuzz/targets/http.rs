//! What we read of a request's headers and forms ourselves, against slower readers.

use http::header::{ACCEPT_ENCODING, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};
use regex::{Captures, Regex};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use stickyport::http::client_address::{Client, FORWARDED_FOR, FORWARDED_PROTO, Networks};
use stickyport::http::compression::Coding;
use stickyport::http::cors::Cors;
use stickyport::http::{Peer, jsonp, options};

/// X-Forwarded-For and X-Forwarded-Proto, a line each; the first byte says who asks.
pub fn forwarded(data: &[u8]) {
    let (who, lines) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let mut headers = HeaderMap::new();
    for (line, name) in lines.split(|byte| *byte == b'\n').zip([FORWARDED_FOR, FORWARDED_PROTO].into_iter().cycle()) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    let trusted = Networks::of(&["10.0.0.0/8", "fd00::/8"]);
    let is_trusted = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 10,
        IpAddr::V6(ip) => ip.octets()[0] == 0xfd,
    };
    let peer = match who % 3 {
        0 => Peer::Unix,
        1 => Peer::Tcp(SocketAddr::from(([10, 0, 0, 1], 80))),
        _ => Peer::Tcp(SocketAddr::from(([192, 0, 2, 1], 80))),
    };
    let client = Client::of(&peer, &headers, &trusted);

    let entries = |name: &HeaderName| -> Vec<String> {
        let values = headers.get_all(name).iter();
        let texts = values.map(|value| value.to_str().unwrap_or_default().to_owned());
        texts.flat_map(|text| text.split(',').map(|entry| entry.trim().to_owned()).collect::<Vec<_>>()).collect()
    };
    let hops: Vec<Option<IpAddr>> = entries(&FORWARDED_FOR).iter().map(|entry| address(entry)).collect();
    // Walk from the right for as long as those who speak are trusted.
    let mut chain = vec![peer.ip()];
    for hop in hops.into_iter().rev() {
        let speaks = chain.last().copied().flatten();
        if !speaks.is_none_or(is_trusted) || hop.is_none() {
            break;
        }
        chain.push(hop);
    }
    assert_eq!(Some(client.ip), chain.last().copied());
    let schemes = entries(&FORWARDED_PROTO);
    let scheme = schemes.iter().rev().nth(chain.len().saturating_sub(2)).or(schemes.first());
    let is_secure = scheme.is_some_and(|scheme| ["https", "wss"].contains(&scheme.to_ascii_lowercase().as_str()));
    assert_eq!(client.secure, is_secure && peer.ip().is_none_or(is_trusted));
}

/// An address alone, with a port, in brackets, or in brackets with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let is_port = |port: &str| port.parse::<u16>().is_ok() && port.bytes().all(|digit| digit.is_ascii_digit());
    let ip = match entry.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((ip, ""))) => ip.parse().ok()?,
        // With a port, there may also be the number of an interface.
        Some(Some((ip, port))) => {
            let (ip, zone) = ip.split_once('%').unwrap_or((ip, "0"));
            let is_fine = is_port(port.strip_prefix(':')?)
                && zone.bytes().all(|digit| digit.is_ascii_digit())
                && zone.parse::<u32>().is_ok();
            IpAddr::V6(ip.parse().ok().filter(|_| is_fine)?)
        }
        Some(None) => return None,
        None => entry.parse().ok().or_else(|| {
            let (ip, _) = entry.split_once(':').filter(|(_, port)| is_port(port))?;
            ip.parse().map(IpAddr::V4).ok()
        })?,
    };
    Some(ip.to_canonical())
}

/// Accept-Encoding in the first line; in the next ones Origin and Host.
pub fn headers(data: &[u8]) {
    let mut request = HeaderMap::new();
    for (line, name) in data.split(|byte| *byte == b'\n').zip([ACCEPT_ENCODING, ORIGIN, HOST]) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            request.append(name, value);
        }
    }
    let body = vec![b'a'; 100];
    let accepted = request.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    if let Some(coding) = Coding::accepted(&request) {
        let compressed = match pin!(coding.compress(&body)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(compressed) => compressed,
            Poll::Pending => panic!("so little takes one turn"),
        };
        assert!(accepted.contains(coding.header().to_str().expect("one of ours")) && compressed.len() < body.len());
    }

    let origin = request.get(ORIGIN).cloned();
    let ours = origin.as_ref().and_then(|origin| origin.to_str().ok()).zip(request.get(HOST).and_then(|host| host.to_str().ok()));
    for page_port in [None, Some(8080)] {
        let options = options::Cors { origins: vec!["https://friend.example".into()], enforce: true, ..Default::default() };
        let cors = Cors::new(options, page_port);
        let mut answer = HeaderMap::new();
        cors.add_headers(&request, &mut answer);
        let allowed = answer.get(http::header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert!(allowed.is_none() || allowed == origin.as_ref(), "an origin that did not ask");
        let is_friend = origin.as_ref().is_some_and(|origin| origin.as_bytes().eq_ignore_ascii_case(b"https://friend.example"));
        if page_port.is_none() {
            assert!(allowed.is_none() || is_friend, "a stranger may read our answers");
            let is_same = ours.is_some_and(|(origin, host)| {
                origin.to_ascii_lowercase().split_once("://").is_some_and(|(_, authority)| authority == host.to_ascii_lowercase())
            });
            assert_eq!(cors.refuses(&request), origin.is_some() && allowed.is_none() && !is_same);
        }
    }
}

/// A payload in a form, as the reference takes it out: `\n` is a line end and `\\n` is `\n`.
pub fn jsonp(data: &[u8]) {
    static SLASHES: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(\\)?\\n").expect("a pattern"));
    let text = super::eio::lossy(data);
    let read = SLASHES.replace_all(&text, |found: &Captures<'_>| match found.get(1) {
        Some(_) => found[0].to_owned(),
        None => "\n".to_owned(),
    });
    let expected = read.replace(r"\\n", r"\n");
    let form: String = form_urlencoded::Serializer::new(String::new()).append_pair("a", &text).append_pair("d", &text).finish();
    assert_eq!(jsonp::unwrap(&form).as_deref(), Some(expected.as_str()));
    jsonp::unwrap(&text);

    let script = String::from_utf8(jsonp::wrap(&text, &text)).expect("a script is text");
    let (call, argument) = script.split_once('(').expect("a call");
    assert!(
        call.strip_prefix("___eio[")
            .and_then(|call| call.strip_suffix(']'))
            .is_some_and(|index| index.bytes().all(|b| b.is_ascii_digit()))
    );
    let argument = argument.strip_suffix(");").expect("the end of a call");
    assert_eq!(serde_json::from_str::<String>(argument).ok().as_deref(), Some(&*text));
    assert!(!argument.contains(['\u{2028}', '\u{2029}', '\n']));
}
