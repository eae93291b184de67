"""The way back of an instance that does not come up: whatever goes wrong, it has the settings and the link that it was last seen to work with."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

UP = pathlib.Path(__file__).resolve().parents[2] / "ansible/roles/stickyport/files/up.py"
# There need not be such a group here, and only root gives files away.
HERE = "import grp, os\ngrp.getgrnam = lambda _: grp.getgrgid(os.getgid())\nos.chown = lambda *_: None\n"
WORKED, WANTED = "drain_timeout = \"3s\"\n", "drain_timeout = \"4s\"\n"


class WayBack(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.settings = self.folder / "etc/stickyport/instances/0.toml"
        self.before, self.link = self.settings.with_name("0.toml.before"), self.folder / "opt/stickyport/instances/0"
        for release in "ab":
            self.file(f"opt/stickyport/releases/{release}/stickyport", "#!/bin/sh\n").chmod(0o755)
        self.link.parent.mkdir()
        self.link.symlink_to("../releases/a")
        self.file("etc/stickyport/instances/0.toml", WORKED)
        self.file("var/lib/stickyport/0.started", f"a {hashlib.sha256(WORKED.encode()).hexdigest()} unit\n")

    def test_a_binary_that_says_what_is_no_text_is_refused_as_any_other(self):
        self.file("opt/stickyport/releases/b/stickyport", "#!/bin/sh\nprintf '\\377\\n' >&2\nexit 1\n")
        said = self.bring_up()
        self.assertIn("it does not take its settings", said["why"])
        self.assertEqual(said["fate"], "was not restarted, and has the files of before")
        self.is_as_it_worked()

    def is_as_it_worked(self):
        self.assertEqual((self.settings.read_text(), os.readlink(self.link)), (WORKED, "../releases/a"))

    def file(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def bring_up(self, here=HERE):
        program = UP.read_text()
        for path in ("/opt/stickyport", "/etc/stickyport", "/var/lib/stickyport", "/etc/systemd"):
            program = program.replace(f'"{path}', f'"{self.folder}{path}')
        asked = {"instance": 0, "release": "b", "settings": WANTED, "port": "", "unit": "unit", "starts": True, "serves": True, "wait": 0, "settle": 0}
        done = subprocess.run([sys.executable, "-c", here + program], input=json.dumps(asked), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)


if __name__ == "__main__":
    unittest.main()
