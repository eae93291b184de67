//! The load balancer in front of nginx, as its operator has set it.

use crate::options;
use serde::{Deserialize, Serialize};
use std::time::Duration;

options! {
    /// The load balancer in front of nginx.
    pub struct Balancer {
        /// `none`, `alb`, `clb`, `nlb`, `gcp`, `azure` or `cloudflare`.
        pub kind: Kind = Kind::None,
        /// Time after which it cuts a connection that is silent, and for `gcp` every connection; 0s is its own default.
        #[serde(with = "options::duration")]
        pub idle_timeout: Duration = Duration::ZERO,
        /// Time that it leaves to the connections of a target which is taken out; 0s is its own default.
        #[serde(with = "options::duration")]
        pub deregistration_delay: Duration = Duration::ZERO,
        /// How it tells who the client is: `header` (X-Forwarded-For), `proxy_protocol`, or `preserved` (connections come from the client's own
        /// address); `default` is `preserved` for `azure`, the header for the others, and for `nlb` and `clb`, which can be set to either,
        /// the PROXY protocol if nginx listens for it, and else `preserved` and the header.
        pub client_address: ClientAddress = ClientAddress::Default,
    }
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// There is none.
    None,
    /// AWS Application Load Balancer.
    Alb,
    /// AWS Classic Load Balancer.
    Clb,
    /// AWS Network Load Balancer.
    Nlb,
    /// Google Cloud's HTTP load balancer.
    Gcp,
    /// Azure Load Balancer.
    Azure,
    /// Cloudflare.
    Cloudflare,
}

/// How it tells who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAddress {
    /// As is usual for its kind.
    Default,
    /// In X-Forwarded-For.
    Header,
    /// In the PROXY protocol.
    ProxyProtocol,
    /// Not at all: connections come from the client's own address.
    Preserved,
}

impl Balancer {
    /// Time of silence after which it cuts; `None` without one.
    pub(super) fn idle(&self) -> Option<Duration> {
        let default = match self.kind {
            Kind::None => return None,
            Kind::Alb | Kind::Clb => 60,
            Kind::Nlb => 350,
            Kind::Gcp => 30,
            Kind::Azure => 240,
            Kind::Cloudflare => 120,
        };
        Some(if self.idle_timeout.is_zero() { Duration::from_secs(default) } else { self.idle_timeout })
    }

    /// Time that connections have left when their target is taken out; `None` where there is no such thing.
    pub(super) fn deregistration(&self) -> Option<Duration> {
        let is_aws = matches!(self.kind, Kind::Alb | Kind::Clb | Kind::Nlb);
        let set = Some(self.deregistration_delay).filter(|delay| !delay.is_zero());
        set.or(is_aws.then_some(Duration::from_secs(300))).filter(|_| self.kind != Kind::None)
    }

    /// How a site learns who the client is, which takes the PROXY protocol or does not; `None` without a balancer.
    pub(super) fn tells(&self, takes_proxy: bool) -> Option<ClientAddress> {
        match (self.kind, self.client_address) {
            (Kind::None, _) => None,
            (Kind::Nlb | Kind::Clb, ClientAddress::Default) if takes_proxy => Some(ClientAddress::ProxyProtocol),
            (Kind::Nlb | Kind::Azure, ClientAddress::Default) => Some(ClientAddress::Preserved),
            (_, ClientAddress::Default) => Some(ClientAddress::Header),
            (_, set) => Some(set),
        }
    }
}
