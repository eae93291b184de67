//! `stickyport check` finds each of many mistakes, planted one at a time in a copy of the shipped files, and nothing in the files as they are.

mod process;

use process::{Place, run, stickyport};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_shipped_files_are_right() {
    let kit = Kit::new("check-clean");
    let (code, out, complaints) = run(&mut kit.check(&[]));
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "nothing found\nread: settings, 1 proxy, 9 units, a kernel\nnot judged: a balancer (--balancer), capacity (--clients)\n"
    );
    let (code, out, _) = run(&mut kit.check(&["--json", "--clients", "15000"]));
    assert_eq!(code, Some(0), "{out}");
    kit.edit(&[REAL_IP, ALB]);
    let (code, out, _) = run(&mut kit.check(&[]));
    assert_eq!((code, out.lines().next()), (Some(0), Some("nothing found")));
}

#[test]
fn the_shipped_variants_are_right() {
    let variants = [("alb", "alb"), ("nlb", "nlb"), ("nlb", "clb"), ("tls", "none"), ("unix", "none")];
    for (variant, balancer) in variants {
        let kit = Kit::new("check-variant");
        kit.vary(variant);
        let (code, out, _) = run(&mut kit.check(&["--balancer-set", &format!("kind={balancer}")]));
        assert_eq!((code, out.lines().next()), (Some(0), Some("nothing found")), "{variant} behind {balancer}");
    }
    let mut found = fs::read_dir(shipped("nginx/variants")).expect("there").count();
    for (at, (variant, _)) in variants.iter().enumerate() {
        found -= usize::from(!variants[..at].iter().any(|(before, _)| before == variant));
    }
    assert_eq!(found, 0, "a variant is not checked");
}

#[test]
fn names_of_before_systemd_230_hold() {
    let kit = Kit::new("check-names");
    kit.edit(&[
        (SERVICE, "StartLimitIntervalSec=60\n", ""),
        (SERVICE, "Type=notify", "Type=notify\nStartLimitInterval=60\nStartLimitAction=none"),
    ]);
    let (code, out, _) = run(&mut kit.check(&[]));
    assert_eq!((code, out.lines().next()), (Some(0), Some("nothing found")));
}

#[test]
fn each_mistake_is_found_where_it_is() {
    let missed: Vec<_> = plants().iter().filter_map(|plant| judge(plant).err()).collect();
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

/// Whether the mistake is found, in its line and alone.
fn judge(Plant { rule, at: (file, line), edits, arguments, also }: &Plant) -> Result<(), String> {
    let kit = Kit::new("check-plant");
    kit.edit(edits);
    let report = kit.report(arguments);
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["rule"] == *rule);
    let found = found.ok_or_else(|| format!("{rule} is not found after {edits:?}: {report:#}"))?;
    let (at, number) = (found["file"].as_str().expect("a file"), found["line"].as_u64().expect("a line"));
    let text = fs::read_to_string(at).unwrap_or_default();
    let text = text.lines().nth((number as usize).wrapping_sub(1)).unwrap_or_default();
    if !at.ends_with(file) || !text.contains(line) {
        return Err(format!("{rule}: {file} {line:?} is meant: {found:#}"));
    }
    if ["value", "effect", "mend"].iter().any(|key| found[key].as_str().is_none_or(str::is_empty)) {
        return Err(format!("something is not said: {found:#}"));
    }
    match findings.iter().find(|other| other["rule"] != *rule && !also.iter().any(|also| other["rule"] == *also)) {
        Some(other) => Err(format!("found beside {rule}: {other:#}")),
        None => Ok(()),
    }
}

#[test]
fn each_rule_has_a_mistake_of_its_own() {
    let (code, rules, _) = run(stickyport().args(["check", "--rules"]));
    assert_eq!(code, Some(0));
    let rules: BTreeSet<_> = rules.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    let planted: BTreeSet<_> = plants().iter().map(|plant| plant.rule.to_owned()).chain(ELSEWHERE.map(str::to_owned)).collect();
    assert!(rules.len() > 60);
    assert_eq!(rules.difference(&planted).collect::<Vec<_>>(), [""; 0]);
}

/// Rules about more than one proxy, which have tests of their own, and those about a Redis, for which tests/clients/cluster-check.test.mjs starts real ones.
const ELSEWHERE: [&str; 15] = [
    "slot-order",
    "slot-moved",
    "slots-grown",
    "redis-reachable",
    "redis-version",
    "redis-role",
    "redis-acl",
    "redis-writer",
    "redis-eviction",
    "redis-forgets",
    "redis-memory",
    "redis-buffer",
    "redis-bursts",
    "redis-latency",
    "redis-unseen",
];

#[test]
fn proxies_that_place_clients_differently_are_found() {
    let (kit, other) = (Kit::new("check-proxies"), Kit::new("check-proxies-other"));
    let second = other.path(NGINX).display().to_string();
    assert_eq!(run(&mut kit.check(&["--nginx", &second])).0, Some(0));
    other
        .edit(&[(POOL, "server 127.0.0.1:3132", "server 127.0.0.1:x"), (POOL, "server 127.0.0.1:3133", "server 127.0.0.1:3132")]);
    other.edit(&[(POOL, "server 127.0.0.1:x", "server 127.0.0.1:3133")]);
    let report = kit.report(&["--nginx", &second]);
    assert_eq!((report["errors"].as_u64(), report["findings"][0]["rule"].as_str()), (Some(1), Some("slot-order")), "{report:#}");
    assert!(report["findings"][0]["file"].as_str().is_some_and(|file| file.contains("other")), "{report:#}");
}

#[test]
fn a_change_that_moves_slots_is_found_and_one_that_wakes_them_is_not() {
    let (kit, before) = (Kit::new("check-change"), Kit::new("check-before"));
    let running = before.path(NGINX).display().to_string();
    let arguments = ["--nginx-before", running.as_str()];
    kit.edit(&[(POOL, ":3135 max_fails=2 fail_timeout=5s down", ":3135 max_fails=2 fail_timeout=5s")]);
    assert_eq!(run(&mut kit.check(&arguments)).0, Some(0));
    kit.edit(&[(POOL, "    server 127.0.0.1:3138 max_fails=2 fail_timeout=5s down;\n", "")]);
    let report = kit.report(&arguments);
    assert_eq!((report["errors"].as_u64(), report["findings"][0]["rule"].as_str()), (Some(1), Some("slot-moved")), "{report:#}");
}

#[test]
fn a_table_that_grows_is_worth_a_warning() {
    let (kit, before) = (Kit::new("check-grown"), Kit::new("check-small"));
    let running = before.path(NGINX).display().to_string();
    let last = "    server 127.0.0.1:3138 max_fails=2 fail_timeout=5s down;\n";
    kit.edit(&[(POOL, last, &format!("{last}    server 127.0.0.1:1 down; # nobody's\n"))]);
    let report = kit.report(&["--nginx-before", &running]);
    let counts = (report["errors"].as_u64(), report["warnings"].as_u64());
    assert_eq!((counts, report["findings"][0]["rule"].as_str()), ((Some(0), Some(1)), Some("slots-grown")), "{report:#}");
}

#[test]
fn slots_are_the_same_when_their_nodes_are_whatever_way_leads_there() {
    let (kit, sockets) = (Kit::new("check-ports"), Kit::new("check-sockets"));
    sockets.vary("unix");
    let other = sockets.path(NGINX).display().to_string();
    for flag in ["--nginx", "--nginx-before"] {
        let (code, out, _) = run(&mut kit.check(&[flag, &other]));
        assert_eq!((code, out.lines().next()), (Some(0), Some("nothing found")), "{flag}");
    }
}

#[test]
fn what_nginx_prints_is_read_from_standard_input() {
    let kit = Kit::new("check-printed");
    let mut printed = String::new();
    let mut files = vec![kit.path(NGINX), kit.path("nginx/stickyport.conf")];
    files.extend(fs::read_dir(kit.path("nginx/stickyport")).expect("there").map(|entry| entry.expect("an entry").path()));
    for file in files {
        let text = fs::read_to_string(&file).expect("read");
        printed += &format!("# configuration file {}:\n{text}\n", file.display());
    }
    let dump = kit.place.file("printed", &printed.replace("proxy_read_timeout 55s", "proxy_read_timeout 20s"));
    let mut command = stickyport();
    let (code, out, _) = run(command.args(["check", "--nginx", "-"]).stdin(fs::File::open(dump).expect("there")));
    assert_eq!(code, Some(2), "{out}");
    let timeouts = kit.path(TIMEOUTS);
    let line = fs::read_to_string(&timeouts).expect("read").lines().position(|line| line.starts_with("proxy_read_timeout"));
    let start = format!("error: {}:{}: proxy_read_timeout 20s [read-timeout]\n", timeouts.display(), line.expect("there") + 1);
    assert!(out.starts_with(&start), "{out}");
    assert!(out.contains("\n1 error, 0 warnings\nread: settings, 1 proxy\n"), "{out}");
}

#[test]
fn what_holds_nothing_to_read_is_a_wrong_command_line() {
    let place = Place::new("check-nothing");
    for (name, text) in [("nginx.conf", "events { }"), ("empty", " \n")] {
        fs::write(place.folder.join(name), text).expect("written");
    }
    for (flag, path, why) in [
        ("--unit", "", ": there are no units in it\n"),
        ("--unit", "nginx.conf", ": it is no .service, .socket or .target\n"),
        ("--proc", "", ": it is no /proc of a host\n"),
        ("--proc", "away", ": No such file or directory"),
        ("--nginx", "empty", ": it is empty: `nginx -T` prints nothing where nginx refuses its files; `nginx -t` says why\n"),
    ] {
        let path = place.folder.join(path);
        let (code, out, complaints) = run(stickyport().args(["check", flag]).arg(&path));
        assert_eq!((code, out.as_str()), (Some(64), ""), "{flag} {}", path.display());
        assert!(complaints.contains(&format!("{}{why}", path.display())), "{complaints}");
    }
    let (code, _, complaints) = run(stickyport().args(["check", "--nginx", "-"]));
    assert_eq!(code, Some(64));
    assert!(complaints.starts_with("stickyport: standard input was empty: `nginx -T` prints nothing"), "{complaints}");
}

#[test]
fn what_was_read_is_said_to_machines_too() {
    let (_, out, _) = run(stickyport().args(["check", "--json", "--offline", "--set", "redis.url=redis://a", "--clients", "5"]));
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["read"], serde_json::json!(["settings", "a plan for 5 clients"]));
    let unread = ["nginx (--nginx)", "units (--unit)", "a kernel (--proc)", "a balancer (--balancer)", "Redis (--offline)"];
    assert_eq!(report["not_judged"], serde_json::json!(unread));
}

#[test]
fn a_default_of_the_balancer_is_called_one() {
    let (_, out, _) = run(stickyport().args(["check", "--balancer-set", "kind=gcp"]));
    assert!(out.contains("--balancer-set: idle_timeout = \"30s\", the default of its kind [balancer-lifetime]"), "{out}");
    let (_, out, _) = run(stickyport().args(["check", "--balancer-set", "kind=gcp", "--balancer-set", "idle_timeout=20s"]));
    assert!(out.contains("--balancer-set: idle_timeout = \"20s\" [balancer-lifetime]"), "{out}");
}

#[test]
fn warnings_errors_and_wrong_command_lines_end_differently() {
    let kit = Kit::new("check-codes");
    kit.edit(&[(TIMEOUTS, "proxy_connect_timeout 2s", "proxy_connect_timeout 60s")]);
    assert_eq!(run(&mut kit.check(&[])).0, Some(1));
    kit.edit(&[(TIMEOUTS, "proxy_read_timeout 55s", "proxy_read_timeout 5s")]);
    assert_eq!(run(&mut kit.check(&[])).0, Some(2));
    for (arguments, complaint) in [
        (["--nginx", "/nowhere"], "stickyport: /nowhere: No such file or directory (os error 2)\n"),
        (["--balancer-set", "kind=elb"], "expected `none` or `alb` or `clb` or `nlb` or `gcp` or `azure` or `cloudflare`\n"),
        (
            ["--balancer-set", "idle=1s"],
            "--balancer-set idle: unknown key; there are kind, idle_timeout, deregistration_delay, client_address\n",
        ),
    ] {
        let (code, out, complaints) = run(&mut kit.check(&arguments));
        assert_eq!((code, out.as_str()), (Some(64), ""));
        assert!(complaints.ends_with(complaint), "{complaints}");
    }
}

/// A mistake: the rule that it breaks, where the finding must point to, and how it is made.
struct Plant {
    rule: &'static str,
    /// A file, and what stands in the line of the finding.
    at: (&'static str, &'static str),
    /// In a file, this text becomes that.
    edits: Vec<(&'static str, &'static str, &'static str)>,
    arguments: &'static [&'static str],
    /// Rules that the same mistake breaks, too.
    also: &'static [&'static str],
}

/// A mistake in one line, which is the one that is found.
fn line(rule: &'static str, file: &'static str, from: &'static str, to: &'static str) -> Plant {
    let line = to.lines().find(|line| !from.lines().any(|was| was == *line)).unwrap_or(to);
    around(rule, (file, line), &[(file, from, to)])
}

/// A mistake that is found elsewhere, or made of several.
fn around(rule: &'static str, at: (&'static str, &'static str), edits: &[(&'static str, &'static str, &'static str)]) -> Plant {
    Plant { rule, at, edits: edits.to_vec(), arguments: &[], also: &[] }
}

impl Plant {
    fn with(self, arguments: &'static [&'static str]) -> Self {
        Self { arguments, ..self }
    }

    fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }
}

#[rustfmt::skip]
fn plants() -> Vec<Plant> {
    vec![
        line("read-timeout", TIMEOUTS, "proxy_read_timeout 55s", "proxy_read_timeout 45s"),
        line("connect-timeout", TIMEOUTS, "proxy_connect_timeout 2s", "proxy_connect_timeout 1m"),
        line("idle-connections", UPSTREAM, "keepalive_timeout 60s", "keepalive_timeout 75s"),
        line("worker-shutdown", NGINX, "worker_processes auto;", "worker_processes auto; worker_shutdown_timeout 5s;"),
        line("slot-twice", POOL, "server 127.0.0.1:3132 max", "server 127.0.0.1:3131 max"),
        line("owner-port", OWNERS, "server 127.0.0.1:3133;", "server 127.0.0.1:3139;").also(&["slot-owner"]),
        line("owner-twice", OWNERS, "server 127.0.0.1:3133;", "server 127.0.0.1:3132;").also(&["owner-port", "slot-owner"]),
        line("owner-alone", OWNERS, "server 127.0.0.1:3133;", "server 127.0.0.1:3133; server 127.0.0.1:3139 backup;"),
        line("owner-unknown", ROUTING, "    2 stickyport_2;", "    2 stickyport_nowhere;").also(&["slot-owner"]),
        line("map-captures", ROUTING, "\"~^5-\" 5;", "\"~^(?<owner>5)-\" 5;"),
        line("max-fails", POOL, "server 127.0.0.1:3133 max_fails=2 fail_timeout=5s;", "server 127.0.0.1:3133;"),
        line("max-fails", POOL, "server 127.0.0.1:3133 max_fails=2", "server 127.0.0.1:3133 max_fails=0"),
        line("non-idempotent", TIMEOUTS, "proxy_next_upstream error timeout;", "proxy_next_upstream error timeout non_idempotent;"),
        line("next-status", TIMEOUTS, "proxy_next_upstream error timeout;", "proxy_next_upstream error timeout http_503;"),
        line("next-tries", TIMEOUTS, "proxy_next_upstream_tries 2;", "proxy_next_upstream_tries 0;"),
        line("http-version", FORWARDING, "proxy_http_version 1.1;", "proxy_http_version 1.0;"),
        line("connection-header", FORWARDING, "proxy_set_header Connection $stickyport_connection;", "proxy_set_header Connection '';"),
        line("connection-close", KEEPALIVE, "'' '';", "'' close;"),
        line("host-header", FORWARDING, "proxy_set_header Host $http_host;", "proxy_set_header Host $proxy_host;"),
        line("forwarded-for", FORWARDING, "X-Forwarded-For $remote_addr", "X-Forwarded-For $http_x_forwarded_for"),
        line("trusted-proxies", SETTINGS, "trusted_proxies = [\"127.0.0.0/8\"]", "trusted_proxies = [\"10.0.0.1\"]"),
        line("body-size", LIMITS, "client_max_body_size 1m;", "client_max_body_size 100k;"),
        around("body-size", (LIMITS, "client_max_body_size"), &[(SETTINGS, "[limits]", "[engine]\nmax_payload = \"2MB\"\n[limits]")]),
        line("sid-in-log", LOG, "$request_method $uri\"", "$request\""),
        line("sid-in-log", SERVER, "access_log /var/log/nginx/stickyport.log stickyport;", "access_log /var/log/nginx/stickyport.log;"),
        line("sid-in-error-log", SERVER, "stickyport-error.log crit;", "stickyport-error.log warn;"),
        line("request-limits", LIMITS, "gzip off;", "limit_conn addresses 20;"),
        line("request-limits", LIMITS, "gzip off;", "limit_req zone=addresses;"),
        line("mapped-addresses", LISTEN, "listen [::]:80 default_server backlog=4096;", "listen [::]:80 default_server ipv6only=off backlog=4096;"),
        line("real-ip-anybody", SERVER, "server_tokens off;", "set_real_ip_from 0.0.0.0/0;"),
        line("worker-descriptors", NGINX, "worker_rlimit_nofile 65536;", "worker_rlimit_nofile 16384;"),
        line("watchdog", SERVICE, "WatchdogSec=30", "WatchdogSec=1min"),
        line("stop-time", SERVICE, "TimeoutStopSec=45", "TimeoutStopSec=30"),
        line("unit-type", SERVICE, "Type=notify", "Type=notify-reload"),
        line("unit-type", SERVICE, "NotifyAccess=main", "NotifyAccess=none"),
        line("unit-instance", SERVICE, "serve --config /etc/stickyport/instances/%i.toml --instance %i", "serve"),
        line("unit-ignored", SERVICE, "Restart=on-failure", "Restart=on-failure\nRestartSteps=5"),
        line("unit-ignored", SERVICE, "LimitCORE=0", "LimitCOR=0"),
        line("unit-ignored", SERVICE, "Restart=on-failure", "Restart=on-failure\nOnFailure=a.service"),
        around("unit-ignored", (HTTP, "Backlog=4096"), &[(HTTP, "Backlog=4096", "[Sockets]\nBacklog=4096")]),
        line("restart", SERVICE, "Restart=on-failure", "Restart=no"),
        line("start-limit", SERVICE, "StartLimitIntervalSec=60", "StartLimitIntervalSec=10"),
        line("start-limit", SERVICE, "StartLimitIntervalSec=60", "StartLimitIntervalSec=0"),
        line("start-limit", SERVICE, "StartLimitIntervalSec=60", "StartLimitInterval=8"),
        line("start-limit", SERVICE, "Restart=on-failure", "Restart=on-failure\nStartLimitInterval=9"),
        around("start-limit", (SERVICE, "StartLimitIntervalSec=60"), &[(SERVICE, "Restart=on-failure", "StartLimitBurst=40\nRestart=on-failure")]),
        line("restart-prevented", SERVICE, "RestartPreventExitStatus=64", "RestartPreventExitStatus=65"),
        line("runtime-directory", SERVICE, "WatchdogSec=30", "RuntimeDirectory=stickyport\nWatchdogSec=30"),
        line("socket-name", SOCKET, "FileDescriptorName=ws", "FileDescriptorName=own"),
        line("socket-port", PORT, "ListenStream=3134", "ListenStream=3133"),
        line("socket-listed", SERVICE, "Sockets=stickyport@%i.socket stickyport-http.socket", "Sockets=stickyport@%i.socket"),
        line("socket-service", HTTP, "Service=stickyport-http.service", "Service=stickyport@0.service"),
        line("backlog", HTTP, "Backlog=4096", "Backlog=128"),
        line("syntax", TIMEOUTS, "proxy_read_timeout 55s;", "proxy_read_timeout 55s }"),
        line("syntax", NGINX, "include stickyport.conf;", "include nowhere.conf;"),
        line("syntax", SERVICE, "WatchdogSec=30", "WatchdogSec 30"),
        around("read-timeout", (TIMEOUTS, "proxy_read_timeout"), &[(SETTINGS, "[limits]", "[engine]\nping_interval = \"40s\"\n[limits]")]),
        around("connect-timeout", (SERVER, LOCATION), &[(TIMEOUTS, "proxy_connect_timeout 2s;", "")]),
        around("idle-connections", (UPSTREAM, "keepalive_timeout"), &[(SETTINGS, "keep_alive = \"75s\"", "keep_alive = \"60s\"")]),
        around("stop-time", (SERVICE, "TimeoutStopSec=45"), &[(SETTINGS, "drain_timeout = \"30s\"", "drain_timeout = \"1m\"")]),
        around("watchdog", (SERVICE, "Type=notify"), &[(SERVICE, "WatchdogSec=30\n", "")]),
        around("on-failure", (SERVICE, "Description="), &[(SERVICE, "OnFailure=stickyport-alert@%i.service\n", "")]),
        around("no-instance", (SERVER, "proxy_pass http://stickyport_web"), &[(SETTINGS, "[limits]", "[engine]\npath = \"/rt/\"\n[limits]")]),
        around("sid-routing", (SERVER, "proxy_pass http://stickyport_pool"), &[(SERVER, "http://$stickyport_backend", "http://stickyport_pool")]).also(&["next-upstream", "upstream-keepalive"]),
        around("next-upstream", (TIMEOUTS, "proxy_next_upstream error"), &[(SERVER, "http://$stickyport_backend", "http://stickyport_pool")]).also(&["sid-routing", "upstream-keepalive"]),
        around("not-sticky", (POOL, "upstream stickyport_pool"), &[(SERVER, "http://$stickyport_backend", "http://stickyport_pool"), (POOL, "ip_hash;", "")]).also(&["next-upstream", "upstream-keepalive"]),
        around("pool-hash", (POOL, "upstream stickyport_pool"), &[(POOL, "ip_hash;", "")]),
        around("no-live-slot", (POOL, "upstream stickyport_pool"), &[(POOL, ":3131 max_fails=2", ":3131 down"), (POOL, ":3132 max_fails=2", ":3132 down"), (POOL, ":3133 max_fails=2", ":3133 down"), (POOL, ":3134 max_fails=2", ":3134 down")]),
        around("slots", (POOL, "upstream stickyport_pool"), &[(POOL, ":3132 max_fails=2", ":3132 down"), (POOL, ":3133 max_fails=2", ":3133 down"), (POOL, ":3134 max_fails=2", ":3134 down")]),
        around("slot-owner", (POOL, "server 127.0.0.1:3133"), &[(ROUTING, "\"~^2-\" 2;", "")]),
        around("gone", (SERVER, LOCATION), &[(SERVER, "error_page 502 504 = @gone;", "")]),
        around("owner-unknown", (SERVER, "proxy_pass"), &[(ROUTING, "default stickyport_pool;", "")]),
        around("upgrade-header", (SERVER, LOCATION), &[(FORWARDING, "proxy_set_header Upgrade $http_upgrade;", "")]),
        around("upgrade-header", (SERVER, LOCATION), &[(SERVER, "proxy_pass http://$stickyport_backend;", "proxy_pass http://$stickyport_backend; proxy_set_header X-A b;")]).also(&["connection-header", "host-header", "forwarded-for"]),
        around("upstream-keepalive", (OWNERS, "upstream stickyport_2"), &[(OWNERS, "server 127.0.0.1:3133; include stickyport/upstream-keepalive.conf;", "server 127.0.0.1:3133;")]),
        around("trusted-proxies", ("the default of http.trusted_proxies", ""), &[(SETTINGS, "trusted_proxies = [\"127.0.0.0/8\"]", ""), (OWNERS, "server 127.0.0.1:3133;", "server 10.0.0.9:3133;"), (POOL, "server 127.0.0.1:3133", "server 10.0.0.9:3133")]),
        around("balancer-idle", (BALANCER, ""), &[REAL_IP, (BALANCER, "kind = \"none\"", "kind = \"alb\"\nidle_timeout = \"40s\"")]),
        around("balancer-reply", (TIMEOUTS, "proxy_read_timeout 60s"), &[REAL_IP, ALB, (TIMEOUTS, "proxy_read_timeout 55s", "proxy_read_timeout 60s")]),
        around("balancer-keepalive", (TIMEOUTS, "keepalive_timeout 75s"), &[REAL_IP, (BALANCER, "kind = \"none\"", "kind = \"alb\"\nidle_timeout = \"2m\"")]),
        around("balancer-lifetime", (BALANCER, ""), &[REAL_IP, (BALANCER, "kind = \"none\"", "kind = \"gcp\""), (TIMEOUTS, "keepalive_timeout 75s", "keepalive_timeout 620s")]),
        around("deregistration", (SERVICE, "TimeoutStopSec=45"), &[REAL_IP, (BALANCER, "kind = \"none\"", "kind = \"alb\"\nderegistration_delay = \"40s\"")]),
        around("real-ip", (SERVER, "server {"), &[ALB]),
        around("real-ip", (SERVER, "server {"), &[]).with(&["--balancer-set", "kind=clb"]),
        around("proxy-protocol", (LISTEN, "listen 80 default_server backlog=4096;"), &[SPEAKS_PROXY, (SERVER, "server_tokens off;", "set_real_ip_from 10.0.0.0/16; real_ip_header proxy_protocol;")]),
        around("proxy-protocol", (SERVER, "real_ip_header proxy_protocol"), &[NLB, (SERVER, "server_tokens off;", "set_real_ip_from 10.0.0.0/16; real_ip_header proxy_protocol;")]),
        around("real-ip", (SERVER, "server {"), &[NLB, (LISTEN, "listen 80 default_server backlog=4096;", "listen 80 proxy_protocol;")]),
        around("proxy-protocol", (LISTEN, "listen 80 proxy_protocol"), &[PRESERVES, (LISTEN, "listen 80 default_server backlog=4096;", "listen 80 proxy_protocol;")]),
        around("worker-connections", (NGINX, "worker_connections"), &[(SERVICE, "LimitNOFILE=131072", "LimitNOFILE=200000")]).with(&["--clients", "50000"]),
        around("ephemeral-ports", (POOL, "server 127.0.0.1:3131"), &[(NGINX, "worker_connections 20480", "worker_connections 100000"), (NGINX, "worker_rlimit_nofile 65536", "worker_rlimit_nofile 200000")]).with(&["--clients", "90000"]),
        around("descriptors", (SERVICE, "LimitNOFILE=4000"), &[(SERVICE, "LimitNOFILE=131072", "LimitNOFILE=4000")]).with(&["--clients", "15000"]),
        around("descriptors", (SERVICE, "Type=notify"), &[(SERVICE, "LimitNOFILE=131072\n", "")]).with(&["--clients", "15000"]),
        around("descriptors-now", ("proc/77/limits", "Max open files"), &[("proc/77/limits", "131072", "4096  ")]).with(&["--clients", "15000"]),
        around("session-limit", (SETTINGS, "sessions = 4000"), &[(SETTINGS, "[limits]", "[limits]\nsessions = 4000")]).with(&["--clients", "15000"]),
        around("nr-open", (SERVICE, "LimitNOFILE=2000000"), &[(SERVICE, "LimitNOFILE=131072", "LimitNOFILE=2000000")]),
        around("reserved-ports", ("proc/sys/net/ipv4/ip_local_reserved_ports", ""), &[("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999", "1024\t65000")]),
        around("backlog", ("proc/sys/net/core/somaxconn", "128"), &[("proc/sys/net/core/somaxconn", "4096", "128")]),
        around("settings", (SETTINGS, ""), &[(SETTINGS, "drain_timeout", "drain_time")]),
    ]
}

const NGINX: &str = "nginx/nginx.conf";
const SERVER: &str = "nginx/stickyport/server.conf";
const LISTEN: &str = "nginx/stickyport/listen.conf";
const TIMEOUTS: &str = "nginx/stickyport/timeouts.conf";
const POOL: &str = "nginx/stickyport/pool.conf";
const OWNERS: &str = "nginx/stickyport/owners.conf";
const ROUTING: &str = "nginx/stickyport/routing.conf";
const FORWARDING: &str = "nginx/stickyport/forwarding.conf";
const LIMITS: &str = "nginx/stickyport/limits.conf";
const LOG: &str = "nginx/stickyport/log.conf";
const KEEPALIVE: &str = "nginx/stickyport/keepalive.conf";
const UPSTREAM: &str = "nginx/stickyport/upstream-keepalive.conf";
const SERVICE: &str = "systemd/stickyport@.service";
const SOCKET: &str = "systemd/stickyport@.socket";
const PORT: &str = "systemd/stickyport@3.socket.d/port.conf";
const HTTP: &str = "systemd/stickyport-http.socket";
const SETTINGS: &str = "stickyport.toml";
const BALANCER: &str = "balancer.toml";

const LOCATION: &str = "location /socket.io/ {";
/// What an nginx behind an ALB has, and nothing is wrong with.
const REAL_IP: (&str, &str, &str) = (
    SERVER,
    "server_tokens off;",
    "server_tokens off;\n    set_real_ip_from 10.0.0.0/16;\n    real_ip_header X-Forwarded-For;\n    real_ip_recursive on;",
);
const ALB: (&str, &str, &str) = (BALANCER, "kind = \"none\"", "kind = \"alb\"");
const NLB: (&str, &str, &str) = (BALANCER, "kind = \"none\"", "kind = \"nlb\"");
const PRESERVES: (&str, &str, &str) = (BALANCER, "kind = \"none\"", "kind = \"nlb\"\nclient_address = \"preserved\"");
const SPEAKS_PROXY: (&str, &str, &str) = (BALANCER, "kind = \"none\"", "kind = \"nlb\"\nclient_address = \"proxy_protocol\"");

/// A copy of the shipped files.
struct Kit {
    place: Place,
}

impl Kit {
    fn new(name: &str) -> Self {
        let place = Place::new(name);
        for folder in ["nginx", "systemd"] {
            copy(&shipped(folder), &place.folder.join(folder));
        }
        let kit = Self { place };
        for (path, text) in FILES {
            let path = kit.path(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        kit
    }

    fn path(&self, file: &str) -> PathBuf {
        self.place.folder.join(file)
    }

    /// As its README says: the files of a variant over the plain ones.
    fn vary(&self, variant: &str) {
        copy(&shipped("nginx/variants").join(variant), &self.path("nginx"));
    }

    fn edit(&self, edits: &[(&str, &str, &str)]) {
        for (file, from, to) in edits {
            let text = fs::read_to_string(self.path(file)).expect("a file of the kit");
            assert!(text.contains(from), "{from:?} is not in {file}");
            fs::write(self.path(file), text.replacen(from, to, 1)).expect("written");
        }
    }

    fn check(&self, arguments: &[&str]) -> Command {
        let mut command = stickyport();
        command.arg("check");
        for (flag, path) in
            [("--config", SETTINGS), ("--nginx", NGINX), ("--unit", "systemd"), ("--proc", "proc"), ("--balancer", BALANCER)]
        {
            command.arg(flag).arg(self.path(path));
        }
        command.args(arguments);
        command
    }

    fn report(&self, arguments: &[&str]) -> Value {
        let (_, out, complaints) = run(self.check(arguments).arg("--json"));
        assert_eq!(complaints, "");
        serde_json::from_str(&out).expect("JSON")
    }
}

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry").path();
        let target = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            fs::copy(&entry, &target).expect("copied");
        }
    }
}

/// What an operator has beside the shipped files.
const FILES: [(&str, &str); 14] = [
    (SETTINGS, "drain_timeout = \"30s\"\n[http]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[limits]\nkeep_alive = \"75s\"\n"),
    (BALANCER, "kind = \"none\"\n"),
    (PORT, "[Socket]\nListenStream=3134\n"),
    ("proc/cpuinfo", "processor\t: 0\nmodel name\t: a\n\nprocessor\t: 1\nmodel name\t: a\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", "\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/77/comm", "stickyport\n"),
    (
        "proc/77/limits",
        "Limit                     Soft Limit           Hard Limit           Units\nMax open files            131072               131072               files\n",
    ),
    ("proc/78/comm", "bash\n"),
    // Whoever asks is none of them.
    ("proc/79/comm", "stickyport\n"),
    ("proc/79/cmdline", "target/release/stickyport\0check\0--proc\0/proc\0"),
    ("proc/79/limits", "Max open files            1024                 1048576              files\n"),
];
