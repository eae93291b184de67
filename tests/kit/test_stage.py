"""What the staged tree says of files that are not ours, which are somebody's work and are not overwritten; and of files that nginx has not read."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

FILES = pathlib.Path(__file__).resolve().parents[2] / "ansible/roles/stickyport_nginx/files"
DEBIANS = "# Debian's\nevents { }\nhttp { include /etc/nginx/sites-enabled/*; }\n"
DEFAULT = "# Debian's site\nserver { listen 80 default_server; }\n"
OURS = "# ours\nevents { }\nhttp { keepalive_timeout 75s; }\n"


class Host(unittest.TestCase):
    """A folder that is the host, and programs that say what a test wants to hear."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.tree, self.mark = self.folder / "etc/nginx", self.folder / "unread"
        for name in ("sites-available", "sites-enabled"):
            (self.tree / name).mkdir(parents=True)
        (self.tree / "nginx.conf").write_text(DEBIANS)
        (self.tree / "sites-available/default").write_text(DEFAULT)
        (self.tree / "sites-enabled/default").symlink_to("../sites-available/default")

    def run_with(self, command, programs, **options):
        for name, script in programs.items():
            path = self.folder / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        environment = os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, **options)

    def staged(self, files, state="inactive", removed=("sites-enabled/default",), left={}):
        conffiles = {"nginx.conf": DEBIANS, "sites-available/default": DEFAULT}
        lines = "".join(f" {self.tree / name} {hashlib.md5(text.encode()).hexdigest()}\n" for name, text in conffiles.items())
        programs = {"dpkg-query": f"printf '%s' '{lines}'", "systemctl": f"echo {state}", "nginx": "exit 0"}
        program = (FILES / "stage.py").read_text().replace("/etc/nginx", str(self.tree)).replace("/usr/sbin/nginx", f"{self.folder}/nginx")
        asked = {"stage": f"{self.folder}/stage", "mark": str(self.mark), "keep": True, "removed": removed, "files": files, "left": left, "looked": []}
        done = self.run_with([sys.executable, "-c", program], programs, input=json.dumps(asked))
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)


class Foreign(Host):
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
        return self.staged(files)["foreign"]


class Left(Host):
    def test_what_is_not_to_be_written_is_told_where_it_would_be_another(self):
        said = self.staged({}, left={"nginx.conf": OURS, "sites-available/default": DEFAULT, "added": ""}, removed=[])
        self.assertEqual((said["differs"], said["left"], said["foreign"]), ([], ["nginx.conf", "added"], []))


class Routed(Host):
    def test_the_nodes_that_sessions_are_led_to_are_told(self):
        self.assertEqual(self.staged({})["routed"], [])
        (self.tree / "stickyport").mkdir()
        (self.tree / "stickyport/owners.conf").write_text("# a\nupstream stickyport_0 { server a:1; }\nupstream stickyport_33 { server b:2; }\nupstream stickyport_pool { }\n")
        self.assertEqual(self.staged({})["routed"], [0, 33])


class Unread(Host):
    """Files that are in order and that nginx has not read, because a run was interrupted before the reload."""

    def test_what_a_run_has_left_is_told_and_the_copy_is_kept_for_it(self):
        for is_left in (False, True):
            if is_left:
                self.mark.touch()
            said = self.staged({"nginx.conf": DEBIANS}, state="active", removed=[])
            self.assertEqual((said["differs"], said["refusal"], said["unread"]), ([], "", is_left))
            self.assertEqual((self.folder / "stage/before/nginx.conf").exists(), is_left)

    def test_a_reload_removes_the_mark_and_one_that_fails_does_not(self):
        for status in (1, 0):
            self.mark.touch()
            programs = {"systemctl": f"[ $1 = reload ] || echo {os.getpid()}", "nginx": f"exit {status}"}
            done = self.run_with(["sh", FILES / "reload", self.mark], programs, stdin=subprocess.DEVNULL)
            self.assertEqual((done.returncode, self.mark.exists()), (status, status == 1), done.stderr)


if __name__ == "__main__":
    unittest.main()
