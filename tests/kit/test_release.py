"""What is deployed is what was just built."""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROLES = pathlib.Path(__file__).resolve().parents[2] / "ansible/roles"
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: stickyport, tasks_from: binary}
    - ansible.builtin.debug: {msg: "the release is {{ stickyport_release }}"}
"""
# Builds where it is told to, as cargo does: the flag before the environment.
CARGO = """#!/bin/sh
folder=${CARGO_TARGET_DIR:-target}
while [ $# -gt 0 ]; do [ "$1" != --target-dir ] || folder=$2; shift; done
mkdir -p "$folder/release" && echo new >"$folder/release/stickyport"
"""


NEW = hashlib.sha256(b"new\n").hexdigest()


class Release(unittest.TestCase):
    def test_a_path_is_from_the_repository_and_one_that_leads_nowhere_is_named(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "play.yml").write_text(PLAY)
            (folder / "built").mkdir()
            (folder / "built/stickyport").write_text("new\n")
            self.assertIn(f"the release is {NEW}", self.play(folder, {}, "stickyport_binary=built/stickyport"))
            said = self.play(folder, {}, "stickyport_binary=built/stickyprot")
            self.assertIn(f"{folder.resolve()}/built/stickyprot is no file on the controller", said)

    def test_a_binary_of_before_is_not_taken_for_the_one_that_cargo_built_elsewhere(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "target/release").mkdir(parents=True)
            (folder / "target/release/stickyport").write_text("old\n")
            (folder / "bin").mkdir()
            (folder / "bin/cargo").write_text(CARGO)
            (folder / "bin/cargo").chmod(0o755)
            (folder / "play.yml").write_text(PLAY)
            environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "CARGO_TARGET_DIR": f"{folder}/elsewhere"}
            self.assertIn(f"the release is {NEW}", self.play(folder, environment))

    def play(self, folder, environment, *given):
        environment = {
            **os.environ,
            "ANSIBLE_ROLES_PATH": str(ROLES),
            "ANSIBLE_FILTER_PLUGINS": str(ROLES.parent / "filter_plugins"),
            "ANSIBLE_HOME": f"{folder}/ansible",
            **environment,
        }
        flags = [word for one in (f"stickyport_repository={folder}", "stickyport_host_id=0", f"ansible_python_interpreter={sys.executable}", *given) for word in ("-e", one)]
        command = ["ansible-playbook", "-i", "localhost,", folder / "play.yml", *flags]
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


if __name__ == "__main__":
    unittest.main()
