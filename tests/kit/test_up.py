"""The way back of an instance that does not come up: whatever goes wrong, it has the settings and the link that it was last seen to work with."""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

UP = pathlib.Path(__file__).resolve().parents[2] / "ansible/roles/stickyport/files/up.py"
# There need not be such a group here, and only root gives files away.
HERE = "import grp, os\ngrp.getgrnam = lambda _: grp.getgrgid(os.getgid())\nos.chown = lambda *_: None\n"
# No file can be written.
FULL = HERE + "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
WORKED, WANTED = "drain_timeout = \"3s\"\n", "drain_timeout = \"4s\"\n"


class Ready:
    """Somebody who answers /readyz; gives his port."""

    def __init__(self, status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps({"status": status}).encode())

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever).start()
        return self.server.server_port

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


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

    def test_settings_come_back_that_an_interrupted_run_had_changed_and_only_the_program_reads_them(self):
        self.refuses()
        self.before.write_text(WORKED)
        self.settings.write_text("# interrupted\n")
        self.assertEqual(self.bring_up()["fate"], "was not restarted, and has the files of before")
        self.is_as_it_worked()
        self.assertEqual(self.settings.stat().st_mode & 0o777, 0o640)

    def test_on_a_full_disk_the_settings_that_are_there_stay(self):
        self.before.write_text(WORKED)
        self.assertEqual(self.bring_up(FULL)["fate"], "was not restarted, and has the files of before")
        self.is_as_it_worked()
        self.settings.write_text("# interrupted\n")
        self.assertIn("cannot be given the files of before", self.bring_up(FULL)["fate"])
        self.assertEqual(self.settings.read_text(), "# interrupted\n")

    def test_one_that_serves_without_redis_says_so(self):
        (self.folder / "systemctl").write_text("#!/bin/sh\ntrue\n")
        (self.folder / "systemctl").chmod(0o755)
        for words, is_degraded in (("degraded", True), ("ok", False)):
            with self.subTest(words), Ready(words) as port:
                here = HERE + f"os.environ['PATH'] = '{self.folder}:' + os.environ['PATH']\nreal, os.readlink = os.readlink, lambda path: os.path.realpath('{self.link}/stickyport') if path.startswith('/proc') else real(path)\n"
                said = self.bring_up(here, port)
                self.assertEqual((said["why"], said["degraded"]), ("", is_degraded))

    def refuses(self):
        self.file("opt/stickyport/releases/b/stickyport", "#!/bin/sh\nexit 1\n")

    def is_as_it_worked(self):
        self.assertEqual((self.settings.read_text(), os.readlink(self.link)), (WORKED, "../releases/a"))

    def file(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def bring_up(self, here=HERE, port=3131):
        program = UP.read_text()
        for path in ("/opt/stickyport", "/etc/stickyport", "/var/lib/stickyport", "/etc/systemd"):
            program = program.replace(f'"{path}', f'"{self.folder}{path}')
        program = program.replace("3131 + number", str(port))
        asked = {"instance": 0, "release": "b", "settings": WANTED, "port": "", "unit": "unit", "starts": True, "serves": True, "wait": 0, "settle": 0}
        done = subprocess.run([sys.executable, "-c", here + program], input=json.dumps(asked), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)


if __name__ == "__main__":
    unittest.main()
