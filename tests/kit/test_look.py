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
for unit; do printf "$between"'ActiveState=inactive\\nSubState=dead\\nUnitFileState=enabled\\nNeedDaemonReload=no\\nNRestarts=0\\nStatusText=\\n'; between='\\n'; done
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

    def said(self, program, asked=""):
        text = (FILES / program).read_text().replace('"/opt', f'"{self.folder}/opt')
        environment = os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        done = subprocess.run([sys.executable, "-c", text], input=asked, capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout


if __name__ == "__main__":
    unittest.main()
