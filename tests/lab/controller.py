"""The controller: an inventory, and the real playbooks, run as an operator runs them."""

import copy
import json
import os
import re
import subprocess
import time

import clock
import hosts
import root

ANSIBLE = root.TARGET / "ansible-venv/bin/ansible-playbook"
CHANGED = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
ENVIRONMENT = {
    **os.environ,
    "ANSIBLE_HOME": f"{hosts.RUN}/ansible",
    "ANSIBLE_LOCAL_TEMP": f"{hosts.RUN}/ansible/tmp",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_LOG_PATH": str(root.LOGS / "times"),
    # With what ansible itself gives ssh, which is a connection for each host that outlasts the play.
    "ANSIBLE_SSH_ARGS": f"-F {hosts.SSH_CONFIG} -C -o ControlMaster=auto -o ControlPersist=60s",
}


class Controller:
    def __init__(self, applications, proxies, settings):
        self.instances_per_host = 2
        self.overrides = {}
        # The host of the cluster's Redis, if there is to be one.
        self.redis = []
        self.applications, self.proxies, self.settings = applications, proxies, settings
        self.repository = root.REPOSITORY
        self.binary = root.TARGET / "release/stickyport"
        self.plays = 0

    def play(self, playbook, *flags, spoil=lambda inventory: None):
        """Runs a playbook and returns how it went, whether well or not. `spoil` may make mistakes in the inventory."""
        inventory = self.inventory()
        spoil(inventory)
        file = hosts.RUN / "inventory.json"
        file.write_text(json.dumps(inventory))
        command = [ANSIBLE, "-i", file, f"ansible/{playbook}", "-e", f"stickyport_binary={self.binary}", *flags]
        began = time.monotonic()
        self.plays += 1
        log = root.LOGS / f"{self.plays:02}-{playbook}.log"
        with open(log, "w") as output:
            done = subprocess.run(command, cwd=self.repository, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        outcome = Outcome(done.returncode, log.read_text())
        clock.say(f"{playbook} {' '.join(map(str, flags))} took {time.monotonic() - began:.0f} s: {outcome}")
        return outcome

    def inventory(self):
        return {
            "all": {"vars": {"ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3", "stickyport_config": copy.deepcopy(self.settings)}},
            "stickyport_app": {
                "hosts": {host.name: {"ansible_host": host.address, "stickyport_host_id": number} for number, host in enumerate(self.applications)},
                "vars": {"stickyport_instances_per_host": self.instances_per_host, "stickyport_unit_overrides": self.overrides},
            },
            "stickyport_proxy": {"hosts": {host.name: {"ansible_host": host.address} for host in self.proxies}},
            "stickyport_redis": {"hosts": {host.name: {"stickyport_redis_password": "0123456789abcdef"} for host in self.redis}},
        }


class Outcome:
    def __init__(self, status, output):
        self.status, self.output = status, output
        self.changed = {host: int(changed) for host, _, changed, _, _ in CHANGED.findall(output)}
        self.failed = [host for host, _, _, unreachable, failed in CHANGED.findall(output) if int(unreachable) + int(failed)]

    def must_succeed(self):
        if self.status:
            raise AssertionError(f"the playbook ended with {self.status}:\n{tail(self.output)}")
        return self

    def must_fail(self):
        if not self.status:
            raise AssertionError(f"the playbook should have failed:\n{tail(self.output)}")
        return self

    def __str__(self):
        changes = ", ".join(f"{host} changed={count}" for host, count in self.changed.items())
        return changes + (f", failed on {', '.join(self.failed)}" if self.failed else "")


def tail(text, lines=60):
    return "\n".join(text.splitlines()[-lines:])
