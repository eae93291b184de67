"""What a host is seen to have, whatever an interrupted run has left there."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

FILES = pathlib.Path(__file__).resolve().parents[2] / "ansible/roles/stickyport/files"
# Knows every unit, and none of them runs.
SYSTEMCTL = """#!/bin/sh
[ "$1" = --version ] && echo systemd 252 && exit
shift 3
for unit; do printf "$between"'ActiveState=inactive\\nSubState=dead\\nUnitFileState=${state-enabled}\\nNeedDaemonReload=no\\nNRestarts=0\\nStatusText=\\n'; between='\\n'; done
"""


class LeftOver(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "systemctl").write_text(SYSTEMCTL)
        (self.folder / "systemctl").chmod(0o755)
        instances = self.folder / "opt/stickyport/instances"
        instances.mkdir(parents=True)
        (self.folder / "opt/stickyport/releases").mkdir()
        for name in ("0", "1", "1.new"):
            (instances / name).symlink_to("../releases/a")

    def test_a_link_that_was_just_being_made_is_no_instance(self):
        asked = {"instances": [], "files": [], "folders": []}
        self.assertEqual(json.loads(self.said("look.py", json.dumps(asked)))["existing"], [0, 1])
        self.assertEqual([line.split()[:2] for line in self.said("status.py").splitlines()][:2], [["instance", "0"], ["instance", "1"]])

    def test_a_drained_instance_is_told_from_one_that_has_ended(self):
        settings = self.folder / "etc/stickyport/instances"
        settings.mkdir(parents=True)
        (settings / "1.toml").write_text("# a\nnode = 33\n")
        self.assertEqual(
            self.said("status.py").splitlines()[:2],
            [f"instance {n} port {3131 + n} node {node}: inactive (dead), release a, ? sessions, 0 restarts, no status" for n, node in ((0, "?"), (1, 33))],
        )
        (self.folder / "systemctl").write_text(SYSTEMCTL.replace("=${state-enabled}", "=disabled"))
        self.assertEqual(self.said("status.py").splitlines()[1], "instance 1 port 3132 node 33: drained, release a")

    def test_a_slot_is_somebodys_or_free(self):
        tree = self.folder / "etc/nginx/stickyport"
        tree.mkdir(parents=True)
        (tree / "slots.json").write_text("[0, 33, 64, null]")
        lines = ["10.0.0.1:3131 max_fails=2 fail_timeout=5s;", "10.0.0.2:3132 max_fails=2 fail_timeout=5s down;", "127.0.0.1:1 down; # nobody's", "127.0.0.1:1 down; # nobody's"]
        (tree / "pool.conf").write_text("upstream a {\n" + "".join(f"    server {line}\n" for line in lines) + "}\n")
        (self.folder / "systemctl").write_text("#!/bin/sh\necho active\n")
        (self.folder / "nginx").write_text("#!/bin/sh\necho 'nginx: [emerg] a' >&2; exit 1\n")
        (self.folder / "nginx").chmod(0o755)
        self.assertEqual(
            self.said("../../stickyport_nginx/files/status.py").splitlines(),
            [
                "nginx active, it would not take its files again: nginx: [emerg] a",
                "slot 0: node 0 at 10.0.0.1:3131, live",
                "slot 1: node 33 at 10.0.0.2:3132, down",
                "slot 2: kept for node 64",
                "slot 3: free",
            ],
        )

    def said(self, program, asked=""):
        text = (FILES / program).read_text()
        for root in ("opt", "etc"):
            text = text.replace(f'"/{root}', f'"{self.folder}/{root}')
        environment = os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        done = subprocess.run([sys.executable, "-c", text], input=asked, capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout


if __name__ == "__main__":
    unittest.main()
