"""Says what an application host has, in one go.

Standard input: {"instances": [NUMBER], "files": [PATH], "folders": [PATH]}
Standard output: {"systemd": NUMBER, "machine": NAME, "bare": BOOL, "stale": BOOL, "account": BOOL, "lacking": [PATH], "target": BOOL, "releases": {NAME: CHECKSUM}, "current": LINK,
"next": LINK, "instances": {NUMBER: {"link", "serves", "enabled", "started", "toml", "port"}}, "existing": [NUMBER],
"files": {PATH: CHECKSUM}, "taken": TEXT}
"""

import grp
import hashlib
import http.client
import json
import os
import pwd
import socket
import subprocess
import sys

INSTANCES = "/opt/stickyport/instances"
RELEASES = "/opt/stickyport/releases"


def said(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip()


def states(units):
    """Of each unit whether it is active, whether it is enabled, and whether systemd has not read what its files say now."""
    shown = said("systemctl", "show", "--property", "ActiveState,UnitFileState,NeedDaemonReload", *units).split("\n\n")
    properties = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown]
    holds = {"ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "yes"}
    return {unit: tuple(each.get(name) == value for name, value in holds.items()) for unit, each in zip(units, properties)}


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def checksum(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return ""


def link(path):
    return os.readlink(path) if os.path.islink(path) else ""


def account():
    try:
        return pwd.getpwnam("stickyport").pw_gid == grp.getgrnam("stickyport").gr_gid
    except KeyError:
        return False


def is_right(folder):
    """Whether it is there, root's, and nobody else's to write."""
    if not os.path.isdir(folder):
        return False
    has = os.stat(folder)
    return (has.st_uid, has.st_gid, has.st_mode & 0o7777) == (0, 0, 0o755)


def instance(number, active, enabled):
    return {
        "link": link(f"{INSTANCES}/{number}"),
        "serves": active and is_ready(3131 + number),
        "enabled": enabled,
        "started": read(f"/var/lib/stickyport/{number}.started").strip(),
        "toml": checksum(f"/etc/stickyport/instances/{number}.toml"),
        "port": checksum(f"/etc/systemd/system/stickyport@{number}.socket.d/port.conf"),
    }


def is_ready(port):
    """Whether it takes clients: one that is being drained, or hangs, does not, and has to be started again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def taken(instances, unit):
    """What is wrong with port 8080 or an instance's, unless systemd or the instance has it for us."""
    owners = {3131 + number: [f"stickyport@{number}.socket", f"stickyport@{number}.service"] for number in instances}
    owners[8080] = ["stickyport-http.socket", *(f"stickyport@{number}.service" for number in instances)]
    for port, units in owners.items():
        if not is_free(port) and not any(unit[each][0] for each in units):
            return f"port {port} is taken by another program: `ss -ltnp 'sport = :{port}'` there says which; stop it, or give it another port."
    return ""


def is_free(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As systemd has it: connections of before are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


def main():
    asked = json.load(sys.stdin)
    # A run that was interrupted may have left a link that was just being made.
    existing = [int(name) for name in os.listdir(INSTANCES) if name.isdigit()] if os.path.isdir(INSTANCES) else []
    releases = os.listdir(RELEASES) if os.path.isdir(RELEASES) else []
    instances = sorted({*existing, *asked["instances"]})
    services = [f"stickyport@{number}.service" for number in instances]
    unit = states(["stickyport.target", "stickyport-http.socket", "stickyport-http.service", *services, *(f"stickyport@{number}.socket" for number in instances)])
    version = said("systemctl", "--version").split()
    print(
        json.dumps(
            {
                "systemd": int(version[1]) if len(version) > 1 else 0,
                "machine": os.uname().machine,
                "bare": not os.path.isdir(INSTANCES),
                "account": account(),
                "lacking": [folder for folder in asked["folders"] if not is_right(folder)],
                "stale": any(is_stale for _, _, is_stale in unit.values()),
                "target": unit["stickyport.target"][:2] == (True, True),
                "releases": {name: checksum(f"{RELEASES}/{name}/stickyport") for name in releases},
                "current": link("/opt/stickyport/current"),
                "next": link("/opt/stickyport/next"),
                "instances": {str(number): instance(number, *unit[service][:2]) for number, service in zip(instances, services)},
                "existing": sorted(existing),
                "files": {path: checksum(path) for path in asked["files"]},
                "taken": taken(asked["instances"], unit),
            }
        )
    )


main()
