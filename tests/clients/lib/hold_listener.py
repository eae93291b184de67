"""Keeps listening sockets while the process that inherits them comes and goes, as systemd's socket units do.

    hold_listener.py --listen ws=127.0.0.1:3131 [--listen http=127.0.0.1:8080] -- COMMAND…

`start` and `stop` (SIGTERM) on standard input, each answered by a line when it is done; at the end of the input the process is killed.
"""

import argparse
import os
import socket
import subprocess
import sys

FIRST = 3  # SD_LISTEN_FDS_START


def listen(address):
    host, port = address.rsplit(":", 1)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen(4096)
    return listener


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--listen", action="append", required=True)
    arguments.add_argument("command", nargs="+")
    given = arguments.parse_args()

    names = [entry.split("=", 1)[0] for entry in given.listen]
    # First all of them high up, so that moving one down to its place never overwrites another.
    held = [os.dup(listen(entry.split("=", 1)[1]).detach()) for entry in given.listen]
    high = [os.dup2(descriptor, 100 + n) for n, descriptor in enumerate(held)]
    places = [os.dup2(descriptor, FIRST + n) for n, descriptor in enumerate(high)]

    environment = dict(os.environ, LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names))
    # LISTEN_PID is the process that becomes the command, which only that process can know.
    command = ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", *given.command]
    child = None
    for line in sys.stdin:
        if line.strip() == "start":
            child = subprocess.Popen(command, env=environment, pass_fds=places, stdin=subprocess.DEVNULL, stdout=sys.stderr)
            answer("started", child.pid)
        elif line.strip() == "stop":
            child.terminate()
            answer("stopped", child.wait())
    if child is not None:
        child.kill()
        child.wait()


def answer(*words):
    print(*words, flush=True)


if __name__ == "__main__":
    main()
