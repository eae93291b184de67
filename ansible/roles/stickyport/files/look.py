"""Says what an application host has, in one go.

Standard input: {"instances": [NUMBER], "files": [PATH]}
Standard output: {"systemd": NUMBER, "instances": {NUMBER: {"link", "active", "started", "toml", "port"}}, "files": {PATH: CHECKSUM}, "taken": TEXT}
"""

import hashlib
import json
import os
import socket
import subprocess
import sys

INSTANCES = "/opt/stickyport/instances"


def said(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip()


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


def instance(number):
    unit = f"stickyport@{number}.service"
    return {
        "link": link(f"{INSTANCES}/{number}"),
        "active": said("systemctl", "is-active", unit) == "active",
        "enabled": said("systemctl", "is-enabled", unit) == "enabled",
        "started": read(f"/var/lib/stickyport/{number}.started").strip(),
        "toml": checksum(f"/etc/stickyport/instances/{number}.toml"),
        "port": checksum(f"/etc/systemd/system/stickyport@{number}.socket.d/port.conf"),
    }


def taken(instances):
    """What is wrong with port 8080 or an instance's, unless systemd or the instance has it for us."""
    services = [f"stickyport@{number}.service" for number in instances]
    owners = {3131 + number: [f"stickyport@{number}.socket", f"stickyport@{number}.service"] for number in instances}
    owners[8080] = ["stickyport-http.socket", *services]
    for port, units in owners.items():
        if not is_free(port) and not any(said("systemctl", "is-active", unit) == "active" for unit in units):
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
    existing = [int(name) for name in os.listdir(INSTANCES)] if os.path.isdir(INSTANCES) else []
    version = said("systemctl", "--version").split()
    print(
        json.dumps(
            {
                "systemd": int(version[1]) if len(version) > 1 else 0,
                "bare": not os.path.isdir(INSTANCES),
                "current": link("/opt/stickyport/current"),
                "instances": {str(number): instance(number) for number in sorted({*existing, *asked["instances"]})},
                "existing": sorted(existing),
                "files": {path: checksum(path) for path in asked["files"]},
                "taken": taken(asked["instances"]),
            }
        )
    )


main()
