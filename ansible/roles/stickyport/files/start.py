"""Starts an instance, or restarts it in place, and looks whether it stays.

Standard input: {"instance": NUMBER, "program": PATH, "wait": SECONDS, "settle": SECONDS, "started": TEXT}
Exit status 1 and a sentence on standard error if it does not stay; else it is noted what it was started with.
"""

import http.client
import json
import os
import subprocess
import sys
import time


def main():
    asked = json.load(sys.stdin)
    instance, port = asked["instance"], 3131 + asked["instance"]
    service = f"stickyport@{instance}.service"
    # Failures of before count for the start limit.
    systemctl("reset-failed", service, f"stickyport@{instance}.socket", "stickyport-http.socket", may_fail=True)
    # Always: a run that was interrupted may have written units and not come to this.
    systemctl("daemon-reload")
    systemctl("enable", service)
    systemctl("restart", service)
    wait_until_it_takes_clients(port, asked["wait"])
    process = main_process(service)
    # It has come up; now it may change its mind.
    time.sleep(asked["settle"])
    if main_process(service) != process:
        sys.exit(f"it did not stay: within {asked['settle']} s another process took its place")
    runs, wanted = os.readlink(f"/proc/{process}/exe"), os.path.realpath(asked["program"])
    if runs != wanted:
        sys.exit(f"it runs {runs} instead of {wanted}")
    with open(f"/var/lib/stickyport/{instance}.started", "w", encoding="utf-8") as note:
        note.write(asked["started"] + "\n")


def systemctl(*arguments, may_fail=False):
    done = subprocess.run(["systemctl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode and not may_fail:
        sys.exit(f"systemctl {' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['no word'])[0]}")
    return done.stdout.strip()


def wait_until_it_takes_clients(port, seconds):
    deadline = time.monotonic() + seconds
    while (answer := ready(port)) != 200:
        if time.monotonic() > deadline:
            sys.exit(f"it was started, but after {seconds} s port {port} does not answer /readyz: {answer}")
        time.sleep(0.2)


def ready(port):
    """The status that /readyz answers, or what came instead."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return error
    finally:
        connection.close()


def main_process(service):
    return systemctl("show", "--value", "--property", "MainPID", service)


main()
