//! Who the client is: its address and whether it came over TLS, believed from trusted proxies only.

use super::Peer;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The header in which each proxy adds, on the right, whom it was talking to.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The header in which proxies say `http` or `https`.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    /// Its address; `None` for a peer on a unix socket that names nobody.
    pub ip: Option<IpAddr>,
    /// Whether it came over TLS.
    pub secure: bool,
}

impl Client {
    /// The client of a request that came from `peer`.
    ///
    /// Read from the right, X-Forwarded-For leads from proxy to proxy; the client is the first that is not a trusted proxy itself.
    /// What stands left of it is the client's own claim. Text that is no address ends the walk. A peer on a unix socket is trusted.
    pub fn of(peer: &Peer, headers: &HeaderMap, trusted: &Networks) -> Self {
        let is_trusted = |hop: Option<IpAddr>| hop.is_none_or(|ip| trusted.contains(ip));
        let mut ip = peer.ip();
        if !is_trusted(ip) {
            return Self { ip, secure: false };
        }
        let mut proxies = 0;
        for entry in from_the_right(headers, &FORWARDED_FOR) {
            let Some(named) = address(entry) else { break };
            ip = Some(named);
            proxies += 1;
            if !is_trusted(ip) {
                break;
            }
        }
        // The proxy that named the client also says how it was reached. One that overwrites the list leaves fewer entries than there are hops.
        let scheme = from_the_right(headers, &FORWARDED_PROTO).take(proxies.max(1)).last();
        Self {
            ip,
            secure: scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")),
        }
    }

    /// The address as text, empty when there is none.
    pub fn address(&self) -> String {
        self.ip.map_or_else(String::new, |ip| ip.to_string())
    }
}

/// The entries of a header that is a list and may occur more than once, last one first; what is not ASCII counts as an empty entry.
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().rev().flat_map(|value| value.to_str().unwrap_or("").rsplit(',').map(str::trim))
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let ip = bare.parse().or_else(|_| entry.parse::<SocketAddr>().map(|with_port| with_port.ip())).ok()?;
    Some(IpAddr::to_canonical(&ip))
}

/// A list of networks; an address alone stands for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// The networks that are written in our own code.
    ///
    /// # Panics
    /// When one of them is no network.
    pub fn of(texts: &[&str]) -> Self {
        Self(texts.iter().map(|text| text.parse().expect("a network in our own code")).collect())
    }

    /// Whether one of them holds the address; an IPv4 address in IPv6's clothes counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.0.contains(&ip))
    }
}

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Network(IpNet);

/// A text that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an address such as \"10.0.0.1\" nor a network such as \"10.0.0.0/8\"")]
struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(|network| Self(network.trunc())).map_err(|_| NetworkError(text.to_owned()))
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn a_stranger_is_not_believed() {
        let client = client("203.0.113.9:1", &["198.51.100.1"], &["https"]);
        assert_eq!(client, ("203.0.113.9", false));
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        assert_eq!(client("127.0.0.1:1", &["198.51.100.1"], &["https"]), ("198.51.100.1", true));
        assert_eq!(client("127.0.0.1:1", &["198.51.100.1"], &["http"]), ("198.51.100.1", false));
        assert_eq!(client("127.0.0.1:1", &[], &["HTTPS"]), ("127.0.0.1", true));
        assert_eq!(client("127.0.0.1:1", &[], &[]), ("127.0.0.1", false));
        assert_eq!(client("[::ffff:127.0.0.1]:1", &["198.51.100.1"], &[]), ("198.51.100.1", false));
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_client() {
        assert_eq!(client("127.0.0.1:1", &["6.6.6.6, 198.51.100.1, 10.0.0.7"], &[]), ("198.51.100.1", false));
        assert_eq!(client("127.0.0.1:1", &["6.6.6.6", "198.51.100.1", "10.0.0.7,10.0.0.8"], &[]), ("198.51.100.1", false));
        assert_eq!(client("127.0.0.1:1", &["10.0.0.7, 10.0.0.8"], &[]), ("10.0.0.7", false));
    }

    #[test]
    fn the_scheme_is_told_by_the_proxy_that_named_the_client() {
        assert_eq!(client("127.0.0.1:1", &["198.51.100.1, 10.0.0.7"], &["https, http"]), ("198.51.100.1", true));
        assert_eq!(client("127.0.0.1:1", &["198.51.100.1"], &["https, http"]), ("198.51.100.1", false));
        assert_eq!(client("127.0.0.1:1", &["198.51.100.1, 10.0.0.7"], &["https"]), ("198.51.100.1", true));
    }

    #[test]
    fn garbage_ends_the_walk() {
        for garbage in ["unknown", "", "1.2.3", "_hidden", "é", "198.51.100.1 198.51.100.2", "[::1", "198.51.100.1:99999"] {
            assert_eq!(client("127.0.0.1:1", &["6.6.6.6", garbage, "10.0.0.7"], &[]), ("10.0.0.7", false), "{garbage}");
        }
    }

    #[test]
    fn proxies_may_add_a_port() {
        for entry in
            ["198.51.100.1:443", "198.51.100.1", "::ffff:198.51.100.1", "[::ffff:198.51.100.1]", "[::ffff:198.51.100.1]:443"]
        {
            assert_eq!(client("127.0.0.1:1", &[entry], &[]), ("198.51.100.1", false), "{entry}");
        }
    }

    #[test]
    fn a_unix_socket_is_trusted() {
        let headers = headers(&["198.51.100.1"], &["https"]);
        assert_eq!(Client::of(&Peer::Unix, &headers, &trusted()).address(), "198.51.100.1");
        let nobody = Client::of(&Peer::Unix, &HeaderMap::new(), &trusted());
        assert_eq!((nobody.ip, nobody.address()), (None, String::new()));
    }

    #[test]
    fn a_network_reads_as_it_was_written() {
        for text in ["10.0.0.0/8", "::1", "192.0.2.7", "fc00::/7", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().map(String::from), Ok(text.to_owned()));
        }
        assert_eq!("10.1.2.3/8".parse::<Network>().map(String::from), Ok("10.0.0.0/8".to_owned()));
        for text in ["", "10.0.0.0/33", "localhost", "10.0.0.0/", "*"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_header_gives_some_client(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4), ip: IpAddr) {
            let mut headers = HeaderMap::new();
            for value in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(FORWARDED_FOR, value.clone());
                    headers.append(FORWARDED_PROTO, value);
                }
            }
            Client::of(&Peer::Tcp(SocketAddr::new(ip, 1)), &headers, &trusted());
            Client::of(&Peer::Unix, &headers, &trusted());
        }

        /// Whatever a client writes into the header, the proxy's own entry decides.
        #[test]
        fn a_client_cannot_choose_its_address(claim in "[ -~]{0,60}", host: u16, is_v6: bool) {
            let [high, low] = host.to_be_bytes();
            let ip = if is_v6 { IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]) } else { IpAddr::from([198, 18, high, low]) };
            let list = format!("{claim}, {ip}");
            let client = Client::of(&"127.0.0.1:1".parse::<SocketAddr>().map(Peer::Tcp).expect("an address"), &headers(&[&list], &[]), &trusted());
            prop_assert_eq!(client.ip, Some(ip.to_canonical()));
        }

        #[test]
        fn without_trust_the_peer_is_the_client(claim in "[ -~]{0,60}", ip: IpAddr) {
            let client = Client::of(&Peer::Tcp(SocketAddr::new(ip, 1)), &headers(&[&claim], &["https"]), &Networks::default());
            prop_assert_eq!(client, Client { ip: Some(ip.to_canonical()), secure: false });
        }
    }

    fn client(peer: &str, forwarded_for: &[&str], proto: &[&str]) -> (&'static str, bool) {
        let peer = Peer::Tcp(peer.parse().expect("an address"));
        let client = Client::of(&peer, &headers(forwarded_for, proto), &trusted());
        (client.address().leak(), client.secure)
    }

    fn headers(forwarded_for: &[&str], proto: &[&str]) -> HeaderMap {
        let value = |text: &&str| HeaderValue::from_bytes(text.as_bytes()).expect("a header");
        let named = forwarded_for.iter().map(|text| (FORWARDED_FOR, value(text)));
        let mut headers = HeaderMap::new();
        for (name, value) in named.chain(proto.iter().map(|text| (FORWARDED_PROTO, value(text)))) {
            headers.append(name, value);
        }
        headers
    }

    fn trusted() -> Networks {
        Networks::of(&["127.0.0.0/8", "::1", "10.0.0.0/8"])
    }
}
