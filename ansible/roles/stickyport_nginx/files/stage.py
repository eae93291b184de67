"""Puts files into a copy of /etc/nginx, asks nginx about the copy, and says what came of it. Nothing that runs is touched.

Standard input: {"stage": FOLDER, "mark": PATH, "keep": BOOL, "files": {NAME: CONTENT}, "left": {NAME: CONTENT}, "removed": [NAME], "looked": [PATH]}
Standard output: {"program": BOOL, "files": {PATH: CHECKSUM}, "stale": BOOL, "differs": [NAME], "left": [NAME], "surplus": [NAME], "included": BOOL, "foreign": [NAME], "active": BOOL, "unread": BOOL, "refusal": TEXT, "printed": TEXT, "routed": [NODE]}: what is
looked at, whether nginx reads ours already, what would be another and is left as it is, what is to be replaced or removed and is neither Debian's nor ours, whether systemd has not read what nginx's unit says now, whether nginx has not read what a run of before has written, what `nginx -T` would print, and the nodes that sessions are led to now; there is a copy afterwards if it was to be kept and is needed.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

TREE = "/etc/nginx"

# Asks about the copy with one more file replaced, before ansible moves that file to its place.
CHECK = """#!/bin/sh
# check FILE CANDIDATE: asks nginx about the staged tree with FILE replaced, and prints it.
set -eu
stage=$(dirname "$0")
tried=$(mktemp -d "$stage/tried-XXXXXX")
trap 'rm -rf "$tried"' EXIT
cp -a "$stage/tree/." "$tried"
[ $# = 0 ] || cp "$2" "$tried/$1"
# Whoever names the tree that runs means this one.
grep -rlZ /etc/nginx/ "$tried" | xargs -0 -r sed -i "s#/etc/nginx/#$tried/#g"
if ! said=$(nginx -T -c "$tried/nginx.conf" 2>&1 >"$stage/printed"); then
    echo "$said" | sed "s#$tried/#/etc/nginx/#g; /test failed/d; s/^.*\\[emerg\\] [0-9]*#[0-9]*: //" >&2
    exit 1
fi
sed "s#$tried/#/etc/nginx/#g" "$stage/printed"
"""


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def checksum(path):
    content = read(path)
    return "" if content is None else hashlib.sha256(content.encode()).hexdigest()


def systemctl(*arguments):
    return subprocess.run(["systemctl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip()


def main():
    wanted = json.load(sys.stdin)
    found = {
        "program": os.path.exists("/usr/sbin/nginx"),
        "files": {path: checksum(path) for path in wanted["looked"]},
        "stale": systemctl("show", "--value", "--property", "NeedDaemonReload", "nginx.service") == "yes",
        "differs": different(wanted["files"]),
        "left": different(wanted["left"]),
        "surplus": [name for name in wanted["removed"] if os.path.lexists(f"{TREE}/{name}")],
        "included": os.path.exists(f"{TREE}/conf.d/stickyport.conf"),
        "active": systemctl("is-active", "nginx.service") == "active",
        "unread": os.path.exists(wanted["mark"]),
        "routed": [int(node) for node in re.findall(r"^upstream stickyport_(\d+) ", read(f"{TREE}/stickyport/owners.conf") or "", re.MULTILINE)],
    }
    found["foreign"] = [name for name in ("nginx.conf", *found["surplus"]) if name in (*found["differs"], *found["surplus"]) and is_foreign(name, wanted["files"].get(name, ""))]
    shutil.rmtree(wanted["stage"], ignore_errors=True)
    found["printed"], found["refusal"] = asked(wanted, found["surplus"]) if found["program"] else ("", "")
    if found["refusal"] or not wanted["keep"] or found["active"] and not (found["differs"] + found["surplus"] or found["unread"]):
        shutil.rmtree(wanted["stage"], ignore_errors=True)
    print(json.dumps(found))


def different(files):
    return [name for name, content in files.items() if read(f"{TREE}/{name}") != content]


def is_foreign(name, ours):
    """Whether somebody has written it: it is there, and neither one of ours, whose first line does not change, nor as Debian's package brings it."""
    path = f"{TREE}/{name}"
    # Debian has a link in sites-enabled.
    content = read(path)
    if content is None or content.splitlines()[:1] == ours.splitlines()[:1]:
        return False
    packaged = subprocess.run(["dpkg-query", "--show", "--showformat", "${Conffiles}\n", "nginx-common"], capture_output=True, text=True).stdout
    digest = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    return f"{os.path.realpath(path)} {digest}" not in packaged


def asked(wanted, surplus):
    """Makes the copy; all of it as nginx prints it, and what nginx has against it, or nothing."""
    stage = wanted["stage"]
    os.mkdir(stage, 0o700)
    for copy in ("before", "tree"):
        shutil.copytree(TREE, f"{stage}/{copy}", symlinks=True)
    for name in surplus:
        os.remove(f"{stage}/tree/{name}")
    for name, content in wanted["files"].items():
        path = f"{stage}/tree/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
    check = f"{stage}/check"
    with open(check, "w", encoding="utf-8") as file:
        file.write(CHECK)
    os.chmod(check, 0o700)
    said = subprocess.run([check], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return said.stdout, (said.stderr.strip().splitlines() or ["no word from nginx"])[0] if said.returncode else ""


main()
