//! What can be set about the ports, and about who is believed, allowed and answered there.

use super::client_address::Networks;
use crate::options;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

options! {
    /// HTTP: the port that all instances of a host share, for pages and the API.
    pub struct Http {
        /// Address and port; siblings on the host listen there too.
        pub listen: SocketAddr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
        /// Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed, on every port.
        pub trusted_proxies: Networks = Networks::of(&["127.0.0.0/8", "::1"]),
    }
}

options! {
    /// The instance's own port, for Engine.IO and WebSocket; it is `base_port` + `instance`.
    pub struct Ws {
        /// Address of the own port.
        pub host: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        /// Port of instance 0; 0 lets the system choose one that is free, for tests.
        pub base_port: u16 = 3131,
    }
}

options! {
    /// CORS: which pages of other origins may connect.
    pub struct Cors {
        /// Origins such as `"https://example.org"`, or `"*"` for all; none means that only pages of the server's own origin may.
        pub origins: Vec<String> = Vec::new(),
        /// Whether any other origin may as well, by being named back: then, unlike with `"*"`, cookies can be allowed.
        pub reflect: bool = false,
        /// Whether those pages may send cookies; browsers refuse that together with `"*"`.
        pub credentials: bool = false,
        /// Methods that those pages may use.
        pub methods: Vec<String> = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"].map(str::to_owned).into(),
        /// Request headers that those pages may set; none means whatever they ask for.
        pub allowed_headers: Vec<String> = Vec::new(),
        /// Headers of our answers that those pages may read beside those that every page may.
        pub exposed_headers: Vec<String> = Vec::new(),
        /// How long a browser may remember what it was allowed; 0 leaves that to the browser.
        #[serde(with = "options::duration")]
        pub max_age: Duration = Duration::ZERO,
        /// Status of the answer to a browser that asks beforehand; very old ones want 200.
        pub preflight_status: u16 = 204,
        /// Whether requests of pages from other origins are refused with 403, WebSockets included, which CORS alone does not cover.
        pub enforce: bool = false,
    }
}

options! {
    /// Metrics: `/metrics` on the own port, for Prometheus.
    pub struct Metrics {
        /// Addresses and networks that may read them; never a request that came through a proxy, whatever stands here.
        pub allow: Networks =
            Networks::of(&["127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
    }
}
