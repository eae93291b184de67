"""Empties instances and stops them, all at once. nginx must have their slots `down` already, else new clients keep coming.

Standard input: {"instances": [NUMBER], "wait": SECONDS, "forget": BOOL}; with 0 seconds nobody is asked to go, and to forget is to remove what the
instances have on the host.
Exit status 1 and a sentence on standard error if one is not empty in time; then none is stopped.
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time


def main():
    asked = json.load(sys.stdin)
    instances = asked["instances"]
    running = [instance for instance in instances if asked["wait"] and let_go(instance)]
    deadline = time.monotonic() + asked["wait"]
    while running := [instance for instance in running if sessions(instance)]:
        if time.monotonic() > deadline:
            sys.exit(f"instance {running[0]} still has {sessions(running[0])} sessions after {asked['wait']} s, and was not stopped")
        time.sleep(0.2)
    # The sockets too: one would start its service again at the next connection.
    if systemctl("stop", *(f"stickyport@{instance}.socket" for instance in instances), *map(service, instances)):
        sys.exit("systemctl could not stop them: see journalctl -u 'stickyport@*'")
    systemctl("disable", *map(service, instances))
    if asked["forget"]:
        for instance in instances:
            remove(f"/opt/stickyport/instances/{instance}")
            remove(f"/etc/stickyport/instances/{instance}.toml")
            remove(f"/etc/stickyport/instances/{instance}.toml.before")
            remove(f"/var/lib/stickyport/{instance}.started")
            shutil.rmtree(f"/etc/systemd/system/stickyport@{instance}.socket.d", ignore_errors=True)
        systemctl("daemon-reload")


def let_go(instance):
    """Asks it to let its clients go; whether there is somebody to ask."""
    return systemctl("kill", "--kill-whom", "main", "--signal", "USR1", service(instance)) == 0


def service(instance):
    return f"stickyport@{instance}.service"


def systemctl(*arguments):
    return subprocess.run(["systemctl", *arguments], stdin=subprocess.DEVNULL, capture_output=True).returncode


def sessions(instance):
    """How many it has: none if it has ended, and a word instead of a number if it does not say."""
    connection = http.client.HTTPConnection("127.0.0.1", 3131 + instance, timeout=5)
    try:
        connection.request("GET", "/metrics")
        found = re.search(r"^stickyport_sessions (\d+)$", connection.getresponse().read().decode(), re.MULTILINE)
        return int(found.group(1)) if found else "an unknown number of"
    except ConnectionRefusedError:
        return 0
    except (OSError, http.client.HTTPException):
        return "an unknown number of"
    finally:
        connection.close()


def remove(path):
    if os.path.lexists(path):
        os.remove(path)


main()
