"""Prints a line for each instance of this host, and one for the releases that it keeps."""

import os
import re
import subprocess
import urllib.request

ROOT = "/opt/stickyport"


def main():
    instances = sorted(map(int, filter(str.isdigit, os.listdir(f"{ROOT}/instances")))) if os.path.isdir(f"{ROOT}/instances") else []
    for number in instances:
        shown = properties(f"stickyport@{number}.service")
        release = os.path.basename(os.readlink(f"{ROOT}/instances/{number}"))[:12]
        node = find(r"^node = (\d+)", content(f"/etc/stickyport/instances/{number}.toml"))
        is_drained = (shown["ActiveState"], shown["UnitFileState"]) == ("inactive", "disabled")
        metrics = read(f"http://127.0.0.1:{3131 + number}/metrics") if shown["ActiveState"] == "active" else ""
        sessions = find(r"^stickyport_sessions (\d+)", metrics)
        state = "drained" if is_drained else f"{shown['ActiveState']} ({shown['SubState']})"
        runs = "" if is_drained else f", {sessions} sessions, {shown['NRestarts']} restarts, {shown['StatusText'] or 'no status'}"
        print(f"instance {number} port {3131 + number} node {node}: {state}, release {release}{runs}")
    kept = sorted(name[:12] for name in os.listdir(f"{ROOT}/releases")) if instances else []
    print(f"releases {' '.join(kept) or 'none'}, current {link('current')}, previous {link('previous')}, begun {link('next')}")


def properties(unit):
    names = "ActiveState,SubState,UnitFileState,NRestarts,StatusText"
    said = subprocess.run(["systemctl", "show", "--property", names, unit], capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in said.splitlines())


def content(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def read(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def find(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1) if found else "?"


def link(name):
    path = f"{ROOT}/{name}"
    return os.path.basename(os.readlink(path))[:12] if os.path.islink(path) else "none"


main()
