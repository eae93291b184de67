"""Puts files into a copy of /etc/nginx, asks nginx about the copy, and says what came of it. Nothing that runs is touched.

Standard input: {"stage": FOLDER, "files": {NAME: CONTENT}, "removed": [NAME]}
Standard output: {"differs": [NAME], "surplus": [NAME], "active": BOOL, "refusal": TEXT}
"""

import json
import os
import shutil
import subprocess
import sys

TREE = "/etc/nginx"

# Asks about the copy with one more file replaced, before ansible moves that file to its place.
CHECK = """#!/bin/sh
# check FILE CANDIDATE: asks nginx about the staged tree with FILE replaced.
set -eu
stage=$(dirname "$0")
tried=$(mktemp -d "$stage/tried-XXXXXX")
trap 'rm -rf "$tried"' EXIT
cp -a "$stage/tree/." "$tried"
[ $# = 0 ] || cp "$2" "$tried/$1"
# Whoever names the tree that runs means this one.
grep -rlZ /etc/nginx/ "$tried" | xargs -0 -r sed -i "s#/etc/nginx/#$tried/#g"
if ! said=$(nginx -t -c "$tried/nginx.conf" 2>&1); then
    echo "$said" | sed "s#$tried/#/etc/nginx/#g; /test failed/d; s/^.*\\[emerg\\] [0-9]*#[0-9]*: //" >&2
    exit 1
fi
"""


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def main():
    wanted = json.load(sys.stdin)
    stage, files = wanted["stage"], wanted["files"]
    shutil.rmtree(stage, ignore_errors=True)
    os.mkdir(stage, 0o700)
    for copy in ("before", "tree"):
        shutil.copytree(TREE, f"{stage}/{copy}", symlinks=True)
    surplus = [name for name in wanted["removed"] if os.path.lexists(f"{TREE}/{name}")]
    for name in surplus:
        os.remove(f"{stage}/tree/{name}")
    for name, content in files.items():
        path = f"{stage}/tree/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
    check = f"{stage}/check"
    with open(check, "w", encoding="utf-8") as file:
        file.write(CHECK)
    os.chmod(check, 0o700)
    said = subprocess.run([check], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print(
        json.dumps(
            {
                "differs": [name for name, content in files.items() if read(f"{TREE}/{name}") != content],
                "surplus": surplus,
                "active": subprocess.run(["systemctl", "is-active", "--quiet", "nginx.service"]).returncode == 0,
                "refusal": (said.stderr.strip().splitlines() or ["no word from nginx"])[0] if said.returncode else "",
            }
        )
    )


main()
