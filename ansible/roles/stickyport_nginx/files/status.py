"""Prints a line for nginx, and one for each slot of its pool: whose it is, and whether it gets new clients."""

import json
import re
import subprocess

TREE = "/etc/nginx"


def main():
    state = said("systemctl", "is-active", "nginx.service").stdout.strip()
    asked = said("nginx", "-t", "-q")
    print(f"nginx {state}, {'it would not take its files again: ' + asked.stderr.strip() if asked.returncode else 'its files are in order'}")
    owners = json.loads(content("stickyport/slots.json") or "[]")
    lines = re.findall(r"^ +server (\S+)(.*?);", content("stickyport/pool.conf"), re.MULTILINE)
    for slot, ((address, rest), owner) in enumerate(zip(lines, owners)):
        # One whose node went keeps its number, and leads nowhere until the node is back.
        is_free = owner is None or address == "127.0.0.1:1"
        whose = "free" if owner is None else f"kept for node {owner}" if is_free else f"node {owner} at {address}, {'down' if rest.endswith(' down') else 'live'}"
        print(f"slot {slot}: {whose}")


def said(*command):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def content(path):
    try:
        with open(f"{TREE}/{path}", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


main()
