//! What must hold, as a table; each rule finds the places where it does not.

mod balancer;
mod capacity;
mod cluster;
mod pool;
mod requests;
mod times;
mod units;

use super::Setup;
use super::report::{Finding, Place, Severity};
use Severity::{Error, Note, Warning};

/// One thing that must hold.
struct Rule {
    name: &'static str,
    severity: Severity,
    holds: &'static str,
    find: fn(&Setup<'_>) -> Vec<Found>,
}

/// A place where it does not.
struct Found {
    place: Place,
    value: String,
    effect: String,
    mend: String,
}

const fn rule(name: &'static str, severity: Severity, holds: &'static str, find: fn(&Setup<'_>) -> Vec<Found>) -> Rule {
    Rule { name, severity, holds, find }
}

const RULES: &[Rule] = &[
    // How long things take, outwards from the instance.
    rule("read-timeout", Error, "ping_interval + ping_timeout < proxy_read_timeout", times::read_timeout),
    rule("connect-timeout", Warning, "proxy_connect_timeout is at most 5s", times::connect_timeout),
    rule("idle-connections", Error, "keepalive_timeout of upstreams < limits.keep_alive", times::idle_connections),
    rule("worker-shutdown", Warning, "worker_shutdown_timeout is unset or at least 1h", times::worker_shutdown),
    rule("watchdog", Warning, "WatchdogSec is set and < ping_interval + ping_timeout", times::watchdog),
    rule("stop-time", Error, "drain_timeout, and restart_window + 5s, < TimeoutStopSec", times::stop_time),
    // The load balancer in front.
    rule("balancer-idle", Error, "ping_interval + ping_timeout < the balancer's idle timeout", balancer::idle),
    rule("balancer-reply", Warning, "proxy_read_timeout < the balancer's idle timeout", balancer::reply),
    rule("balancer-keepalive", Error, "the balancer's idle timeout < keepalive_timeout", balancer::keepalive),
    rule("balancer-lifetime", Error, "a balancer that ends connections by age leaves them an hour", balancer::lifetime),
    rule("deregistration", Error, "drain_timeout and TimeoutStopSec < deregistration delay", balancer::deregistration),
    rule("real-ip", Error, "behind a balancer, real_ip finds the client's address", balancer::real_ip),
    rule("real-ip-anybody", Error, "set_real_ip_from does not trust everybody", balancer::real_ip_anybody),
    rule(
        "proxy-protocol",
        Error,
        "listen takes the PROXY protocol if and only if the balancer speaks it",
        balancer::proxy_protocol,
    ),
    // Where requests go.
    rule("no-instance", Error, "the location of engine.path leads to the instances' own ports", pool::no_instance),
    rule("not-sticky", Error, "a session's requests go to one instance", pool::not_sticky),
    rule("sid-routing", Warning, "open sessions are routed by their sid", pool::sid_routing),
    rule("pool-hash", Warning, "the pool places clients by their address", pool::hash),
    rule("no-live-slot", Error, "the pool has a slot that is not down", pool::no_live_slot),
    rule("slots", Warning, "at most four slots per live instance", pool::slots),
    rule("slot-twice", Warning, "no two live slots are the same instance", pool::slot_twice),
    rule("slot-order", Error, "all proxies list the same slots in the same order", pool::slot_order),
    rule("slot-moved", Error, "no slot is deleted, inserted or moved", pool::slot_moved),
    rule("slots-grown", Warning, "the table of slots grows seldom", pool::slots_grown),
    rule("slot-owner", Error, "each live slot has an owner upstream", pool::slot_owner),
    rule("owner-alone", Error, "an owner upstream has one server", pool::owner_alone),
    rule("owner-port", Error, "node N leads to port base_port + N mod 32", pool::owner_port),
    rule("owner-twice", Error, "no two nodes lead to one instance", pool::owner_twice),
    rule("owner-unknown", Error, "what maps name are upstreams, and a default names the pool", pool::owner_unknown),
    rule("map-captures", Error, "maps of the sid capture nothing", pool::map_captures),
    rule("max-fails", Warning, "a slot is given up after two failures or more", pool::max_fails),
    rule("next-upstream", Error, "no poll is repeated at another instance", pool::next_upstream),
    rule("non-idempotent", Error, "no POST is repeated", pool::non_idempotent),
    rule("next-status", Warning, "no answer of an instance is repeated at another", pool::next_status),
    rule("next-tries", Warning, "a handshake is tried at two instances at most", pool::next_tries),
    rule("gone", Warning, "sessions of an instance that is down are told so", pool::gone),
    // What a request is, and what is kept of it.
    rule("http-version", Error, "proxy_http_version is 1.1", requests::http_version),
    rule("upgrade-header", Error, "Upgrade is handed on", requests::upgrade_header),
    rule("connection-header", Error, "Connection says upgrade for a WebSocket", requests::connection_header),
    rule("connection-close", Warning, "Connection does not say close for a poll", requests::connection_close),
    rule("upstream-keepalive", Warning, "connections to instances are kept", requests::upstream_keepalive),
    rule("host-header", Warning, "Host is handed on", requests::host_header),
    rule("forwarded-for", Error, "X-Forwarded-For is nginx's own word", requests::forwarded_for),
    rule("trusted-proxies", Warning, "http.trusted_proxies names nginx", requests::trusted_proxies),
    rule("body-size", Error, "engine.max_payload <= client_max_body_size", requests::body_size),
    rule("sid-in-log", Error, "no access log holds sids", requests::sid_in_log),
    rule("sid-in-error-log", Warning, "no error log holds sids", requests::sid_in_error_log),
    rule("request-limits", Warning, "nginx counts neither polls nor WebSockets", requests::request_limits),
    rule("mapped-addresses", Warning, "IPv4 clients have IPv4 addresses", requests::mapped_addresses),
    // How many there may be.
    rule("worker-connections", Error, "two worker_connections per client that is planned for", capacity::worker_connections),
    rule("worker-descriptors", Error, "worker_connections <= worker_rlimit_nofile", capacity::worker_descriptors),
    rule("ephemeral-ports", Error, "an outgoing port per client of an instance", capacity::ephemeral_ports),
    rule("reserved-ports", Error, "no outgoing connection takes a port that an instance listens on", capacity::reserved_ports),
    rule("descriptors", Error, "a descriptor per client of an instance", capacity::descriptors),
    rule("descriptors-now", Warning, "the same of the processes that run", capacity::descriptors_now),
    rule("nr-open", Error, "LimitNOFILE <= fs.nr_open", capacity::nr_open),
    rule("session-limit", Error, "an instance's clients <= limits.sessions", capacity::session_limit),
    rule("backlog", Warning, "room in the kernel for those who come back at once", capacity::backlog),
    // What systemd does.
    rule("unit-type", Error, "Type=notify", units::unit_type),
    rule("unit-instance", Error, "a template hands its instance's number on", units::instance),
    rule("unit-ignored", Error, "no directive that systemd 252 ignores", units::ignored),
    rule("restart", Error, "an instance that crashes is started again", units::restart),
    rule("start-limit", Error, "StartLimitBurst x RestartSec < StartLimitIntervalSec", units::start_limit),
    rule("restart-prevented", Warning, "RestartPreventExitStatus=64", units::restart_prevented),
    rule("on-failure", Warning, "somebody hears of an instance that was given up", units::on_failure),
    rule("runtime-directory", Error, "instances do not delete each other's sockets", units::runtime_directory),
    rule("socket-name", Error, "FileDescriptorName is ws or http", units::socket_name),
    rule("socket-port", Error, "stickyport@N.socket listens on base_port + N", units::socket_port),
    rule("socket-listed", Error, "Sockets= names the shared socket", units::socket_listed),
    rule("socket-service", Error, "the shared socket starts no instance", units::socket_service),
    // The Redis of a cluster.
    rule("redis-reachable", Error, "Redis is there, and takes instances in", cluster::reachable),
    rule("redis-version", Error, "it is Redis 6.0 or newer", cluster::version),
    rule("redis-role", Error, "it is a master, and no shard or sentinel", cluster::role),
    rule("redis-acl", Error, "its user may do what instances do", cluster::acl),
    rule("redis-writer", Warning, "over streams, a connection that has gone can be ended", cluster::writer),
    rule("redis-eviction", Error, "over streams, maxmemory-policy is noeviction", cluster::eviction),
    rule("redis-forgets", Warning, "without streams, it is noeviction, too", cluster::forgetting),
    rule("redis-memory", Warning, "over streams, maxmemory has room for streams and sessions", cluster::memory),
    rule("redis-buffer", Error, "a message of engine.max_payload < client-output-buffer-limit pubsub", cluster::buffer),
    rule("redis-bursts", Warning, "what may come at once <= client-output-buffer-limit pubsub", cluster::bursts),
    rule("redis-latency", Warning, "it answers in 20ms, and in a hundredth of redis.request_timeout", cluster::latency),
    rule("redis-unseen", Note, "its user may see what is to be judged", cluster::unseen),
];

/// The names, severities and sentences of all rules, a line each.
pub fn table() -> String {
    RULES.iter().map(|Rule { name, severity, holds, .. }| format!("{name:20} {severity:9} {holds}\n")).collect()
}

pub(super) fn judge(setup: &Setup<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for Rule { name, severity, find, .. } in RULES {
        for Found { place, value, effect, mend } in find(setup) {
            let file = place.file.display().to_string();
            let finding = Finding { rule: name, severity: *severity, file, line: place.line, value, effect, mend };
            // Two sites of one tree share most of what is wrong with them.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_names_of_their_own() {
        let mut names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
    }
}
