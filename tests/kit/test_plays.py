"""What the playbooks decide: they run in a copy whose hosts are folders of this machine, and whose preflight has seen what a test says."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

REPOSITORY = pathlib.Path(__file__).parents[2]
# What stands for the parts that ask or change a whole host.
STAND_INS = {
    "preflight.yml": "- hosts: localhost\n  gather_facts: false\n",
    "converge.yml": """
- hosts: stickyport_app
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {content: "{{ stickyport_release }}", dest: "{{ root }}/release"}
      check_mode: false
""",
    "roles/stickyport_nginx/tasks/configure.yml": """
- ansible.builtin.template: {src: "{{ item }}.conf.j2", dest: "{{ root }}/{{ item }}.conf"}
  loop: [pool, owners]
  check_mode: false
""",
}


class Limits(unittest.TestCase):
    def test_a_run_for_some_hosts_is_refused(self):
        with Fleet() as fleet:
            for limit in ("app2", "app1,app2", "stickyport_proxy"):
                said = fleet.play("drain.yml", "-e", "stickyport_drain=app2", "--limit", limit, real=["preflight.yml"]).refused()
                self.assertIn("run it without --limit", said)

    def test_an_inventory_without_the_groups_is_refused(self):
        with Fleet() as fleet:
            fleet.inventory = {"servers": fleet.inventory["stickyport_app"]}
            said = fleet.play("deploy.yml", real=["preflight.yml"]).refused()
            self.assertIn("The inventory has no host in the group stickyport_app: add one.", said)


class Fleet:
    """Two application hosts and a proxy, each a folder."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="stickyport-plays-"))
        self.inventory = {"stickyport_app": {"hosts": {}}, "stickyport_proxy": {"hosts": {}}}
        for group, number, host in (("stickyport_app", 0, "app1"), ("stickyport_app", 1, "app2"), ("stickyport_proxy", 2, "proxy1")):
            root = self.root(host)
            root.mkdir()
            known = {"ansible_connection": "local", "ansible_become": False, "ansible_host": f"10.0.0.{number + 1}", "root": str(root)}
            if group == "stickyport_app":
                known |= {"stickyport_host_id": number, "stickyport_instances_per_host": 2, "stickyport_leaving_nodes": [], "stickyport_seen": {}}
            self.inventory[group]["hosts"][host] = known

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def root(self, host):
        return self.folder / host

    def host(self, name):
        """What the inventory says of a host."""
        return next(group["hosts"][name] for group in self.inventory.values() if name in group["hosts"])

    def play(self, playbook, *arguments, real=()):
        """Runs a playbook, which changes nothing on this machine; `real` are the parts for which nothing stands in."""
        copy = self.folder / "ansible"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(REPOSITORY / "ansible", copy)
        for name, text in STAND_INS.items():
            if name not in real:
                (copy / name).write_text(text)
        for tasks in copy.glob("roles/*/tasks/*.yml"):
            text = tasks.read_text()
            for path in ("/etc/nginx/stickyport/slots.json", "/opt/stickyport"):
                text = text.replace(path, "{{ root }}" + path)
            tasks.write_text(text)
        hosts = self.folder / "hosts.json"
        hosts.write_text(json.dumps(self.inventory))
        command = [pathlib.Path(sys.executable).with_name("ansible-playbook"), "-i", hosts, copy / playbook, "--check", *arguments]
        environment = os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
        return Outcome(subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment))


class Outcome:
    """How a playbook ended."""

    def __init__(self, done):
        self.status, self.output = done.returncode, done.stdout

    def done(self):
        assert self.status == 0, self.output
        return self.output

    def refused(self):
        assert self.status != 0, self.output
        return self.output


if __name__ == "__main__":
    unittest.main()
