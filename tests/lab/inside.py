"""Inside the namespaces: lays the network, boots the hosts, and runs the scenarios. Whatever is left open here ends with this process."""

import os
import signal
import subprocess
import sys
import unittest

import clock
import hosts
import scenarios


def main():
    # The first process of a namespace has no default for a signal; as this one it ends everything.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = sys.argv[1:]
    hosts.prepare()
    lab = scenarios.Lab()
    if "--shell" in arguments:
        lab.deployed()
        return subprocess.run(["bash"], env={**os.environ, "PATH": f"{hosts.RUN}/bin:{os.environ['PATH']}"}).returncode
    suite = unittest.TestSuite(scenarios.chosen(lab, arguments))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, failfast="--failfast" in arguments).run(suite)
    lab.stop()
    clock.table()
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    status = 1
    try:
        status = main()
    finally:
        sys.stdout.flush()
        # Threads and hosts that are still there end with the namespace.
        os._exit(status)
