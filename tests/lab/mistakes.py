"""Mistakes that operators make, and what must be said of each."""

from dataclasses import dataclass

NGINX, SETTINGS, SERVICE, SOCKET, HTTP_SOCKET = "nginx", "0.toml", "stickyport@.service", "stickyport@.socket", "stickyport-http.socket"


@dataclass
class Mistake:
    """One edit of what was deployed, and the rule of `stickyport check` that must name it."""

    rule: str
    file: str
    right: str
    wrong: str
    flags: tuple = ()


MISTAKES = [
    Mistake("read-timeout", NGINX, "proxy_read_timeout 55s", "proxy_read_timeout 20s"),
    Mistake("connect-timeout", NGINX, "proxy_connect_timeout 2s", "proxy_connect_timeout 60s"),
    Mistake("idle-connections", NGINX, "keepalive_timeout 60s", "keepalive_timeout 80s"),
    Mistake("non-idempotent", NGINX, "proxy_next_upstream error timeout;", "proxy_next_upstream error timeout non_idempotent;"),
    Mistake("next-tries", NGINX, "proxy_next_upstream_tries 2;", "proxy_next_upstream_tries 0;"),
    Mistake("owner-alone", NGINX, "upstream stickyport_0 { server 10.77.0.21:3131;", "upstream stickyport_0 { server 10.77.0.21:3131; server 10.77.0.22:3131 backup;"),
    Mistake("owner-port", NGINX, "upstream stickyport_1 { server 10.77.0.21:3132;", "upstream stickyport_1 { server 10.77.0.21:3139;"),
    Mistake("slot-twice", NGINX, "    server 10.77.0.21:3132 max_fails", "    server 10.77.0.21:3131 max_fails"),
    Mistake("max-fails", NGINX, "server 10.77.0.21:3131 max_fails=2", "server 10.77.0.21:3131 max_fails=0"),
    Mistake("map-captures", NGINX, '"~^1-" 1;', '"~^(?<owner>1)-" 1;'),
    Mistake("connection-close", NGINX, "'' '';", "'' close;"),
    Mistake("sid-in-log", NGINX, '"$request_method $uri"', '"$request"'),
    Mistake("body-size", NGINX, "client_max_body_size 1m;", "client_max_body_size 100k;"),
    Mistake("http-version", NGINX, "proxy_http_version 1.1;", "proxy_http_version 1.0;"),
    Mistake("forwarded-for", NGINX, "X-Forwarded-For $remote_addr", "X-Forwarded-For $http_x_forwarded_for"),
    Mistake("trusted-proxies", SETTINGS, ', "10.77.0.11"', ""),
    Mistake("real-ip", NGINX, "", "", ("--balancer-set", "kind=alb")),
    Mistake("stop-time", SERVICE, "TimeoutStopSec=45", "TimeoutStopSec=2"),
    Mistake("unit-type", SERVICE, "Type=notify", "Type=notify-reload"),
    Mistake("start-limit", SERVICE, "StartLimitIntervalSec=60", "StartLimitIntervalSec=10"),
    Mistake("restart", SERVICE, "Restart=on-failure", "Restart=no"),
    Mistake("socket-listed", SERVICE, "Sockets=stickyport@%i.socket stickyport-http.socket", "Sockets=stickyport@%i.socket"),
    Mistake("socket-name", SOCKET, "FileDescriptorName=ws", "FileDescriptorName=own"),
    Mistake("socket-service", HTTP_SOCKET, "Service=stickyport-http.service", "Service=stickyport@0.service"),
]


@dataclass
class BadInput:
    """What is wrong with an inventory, and words of the sentence that stops the playbook."""

    what: str
    spoil: object
    said: tuple


def app2(inventory):
    return inventory["stickyport_app"]["hosts"]["app2"]


def settings(inventory):
    return inventory["all"]["vars"]["stickyport_config"]


BAD_INPUT = [
    BadInput("two hosts with one number", lambda inventory: app2(inventory).update(stickyport_host_id="0"), ("app1 and app2 have the same stickyport_host_id 0",)),
    BadInput("a host without an address", lambda inventory: app2(inventory).pop("ansible_host"), ("app2 has no address",)),
    BadInput("a directive without a section", lambda inventory: app2(inventory).update(stickyport_unit_overrides={"MemoryMax": "2G"}), ("app2: stickyport_unit_overrides has MemoryMax",)),
    BadInput("an unreachable host", lambda inventory: app2(inventory).update(ansible_host="10.77.0.99"), ("app2 cannot be reached, and nothing was touched",)),
    BadInput("a host that was deleted", lambda inventory: inventory["stickyport_app"]["hosts"].pop("app2"), ("proxy1 leads sessions to the nodes 32, 33, and", "-e stickyport_dead=1")),
    BadInput("a port in use", lambda inventory: inventory["stickyport_app"]["vars"].update(stickyport_instances_per_host=3), ("app2", "3133")),
    BadInput("a mistyped setting", lambda inventory: settings(inventory)["engine"].update(ping_intervall="5s"), ("ping_intervall",)),
    BadInput("a time without a unit", lambda inventory: settings(inventory)["engine"].update(ping_interval=25), ("engine.ping_interval: found 25, expected a duration",)),
    BadInput("a drain that systemd would cut short", lambda inventory: settings(inventory).update(drain_timeout="50s"), ("Nothing was touched", "TimeoutStopSec=65")),
    BadInput("a directive that systemd does not know", lambda inventory: app2(inventory).update(stickyport_unit_overrides={"Service": {"MemoryMaxx": "2G"}}), ("app2: systemd does not take the units", "MemoryMaxx")),
]
