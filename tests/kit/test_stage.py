"""What the staged tree says of files that are not ours: they are somebody's work, and are not overwritten."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

STAGE = pathlib.Path(__file__).resolve().parents[2] / "ansible/roles/stickyport_nginx/files/stage.py"
DEBIANS = "# Debian's\nevents { }\nhttp { include /etc/nginx/sites-enabled/*; }\n"
DEFAULT = "# Debian's site\nserver { listen 80 default_server; }\n"
OURS = "# ours\nevents { }\nhttp { keepalive_timeout 75s; }\n"


class Foreign(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.tree = self.folder / "etc/nginx"
        for name in ("sites-available", "sites-enabled"):
            (self.tree / name).mkdir(parents=True)
        (self.tree / "nginx.conf").write_text(DEBIANS)
        (self.tree / "sites-available/default").write_text(DEFAULT)
        (self.tree / "sites-enabled/default").symlink_to("../sites-available/default")

    def test_what_the_package_brought_may_go(self):
        self.assertEqual(self.foreign(), [])

    def test_a_main_file_that_somebody_wrote_may_not(self):
        (self.tree / "nginx.conf").write_text(DEBIANS + "# and a line of mine\n")
        self.assertEqual(self.foreign(), ["nginx.conf"])
        self.assertEqual(self.foreign(files={}), [], "nobody wants to replace it")

    def test_one_of_ours_may_whatever_it_said(self):
        (self.tree / "nginx.conf").write_text(OURS.replace("75s", "60s"))
        self.assertEqual(self.foreign(), [])

    def test_a_site_that_somebody_wrote_may_not(self):
        (self.tree / "sites-available/default").write_text("server { listen 80; server_name mine; }\n")
        self.assertEqual(self.foreign(), ["sites-enabled/default"])

    def foreign(self, files={"nginx.conf": OURS}):
        conffiles = {"nginx.conf": DEBIANS, "sites-available/default": DEFAULT}
        lines = "".join(f" {self.tree / name} {hashlib.md5(text.encode()).hexdigest()}\n" for name, text in conffiles.items())
        for name, said in {"dpkg-query": lines, "systemctl": "inactive\n"}.items():
            command = self.folder / name
            command.write_text(f"#!/bin/sh\nprintf '%s' '{said}'\n")
            command.chmod(0o755)
        program = STAGE.read_text().replace("/etc/nginx", str(self.tree))
        asked = {"stage": f"{self.folder}/stage", "keep": False, "removed": ["sites-enabled/default"], "files": files, "looked": []}
        environment = os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        done = subprocess.run([sys.executable, "-c", program], input=json.dumps(asked), capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["foreign"]


if __name__ == "__main__":
    unittest.main()
