"""What the playbook makes of the release's own findings, and of a release that cannot be asked."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

JUDGE = "ansible/roles/stickyport/files/judge.py"
FINDINGS = [
    {"severity": "error", "file": "FOLDER/systemd/a.service", "line": 3, "value": "A=1", "effect": "it breaks", "mend": "A=2"},
    {"severity": "warning", "file": "the default of b", "line": 0, "value": "b", "effect": "it is slow", "mend": "b = 2"},
]
# Answers as `stickyport check --json` would, about the folder that it is given.
RELEASE = """#!/usr/bin/python3
import os, sys
assert sys.argv[1:4] == ["check", "--json", "--offline"] and sys.argv[-1] == "--a-flag", sys.argv
settings = sys.argv[sys.argv.index("--config") + 1]
assert open(settings).read() == "node = 1" and "STICKYPORT_NODE" not in os.environ
folder = os.path.dirname(settings)
assert open(folder + "/systemd/a.service.d/b.conf").read() == "[Service]"
assert sys.argv.count("--nginx") == 1 and open(sys.argv[sys.argv.index("--nginx") + 1]).read() == "printed"
print('''{"findings": %s}'''.replace("FOLDER", folder))
sys.exit(2)
""" % json.dumps(FINDINGS)


class Judge(unittest.TestCase):
    def test_a_finding_is_a_sentence_about_the_file_that_an_operator_knows(self):
        said = judge(RELEASE)
        self.assertEqual(said["errors"], ["systemd/a.service:3: A=1: it breaks; A=2"])
        self.assertEqual(said["warnings"], ["the default of b: b: it is slow; b = 2"])

    def test_a_release_that_does_not_run_here_is_a_warning(self):
        for program in ["#!/nowhere\n", "#!/bin/sh\necho cannot >&2\nexit 127\n", "#!/bin/sh\nexit 1\n"]:
            said = judge(program)
            self.assertEqual((said["errors"], len(said["warnings"])), ([], 1), program)
            self.assertIn("cannot be asked on the controller", said["warnings"][0])


    def test_one_that_no_host_could_run_is_an_error(self):
        with open("/bin/true", "rb") as file:
            true = file.read()
        other = {"x86_64": "aarch64"}.get(os.uname().machine, "x86_64")
        for program, machine, why in [
            (b"hello\n", other, "it is no program"),
            (b"", other, "it is no program"),
            (true[:4096], os.uname().machine, "it is cut short"),
            (true[:20], os.uname().machine, "it is cut short"),
            (true, other, f"it is a program for {os.uname().machine}, and app2 is {other}"),
        ]:
            said = judge(program, {"app1": os.uname().machine, "app2": machine})
            self.assertEqual((len(said["errors"]), said["warnings"]), (1, []))
            self.assertIn(f"stickyport: {why}: set stickyport_binary", said["errors"][0])
        # One that hosts could run is asked, even if it says nothing.
        said = judge(true, {"app1": os.uname().machine, "app2": "one that nobody knows"})
        self.assertEqual((said["errors"], len(said["warnings"])), ([], 1))


def judge(program, machines={}):
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/stickyport"
        with open(path, "wb") as file:
            file.write(program if isinstance(program, bytes) else program.encode())
        os.chmod(path, 0o755)
        units, nginx = {"a.service": "[Unit]", "a.service.d/b.conf": "[Service]"}, {"proxy1": "printed", "bare": ""}
        asked = {"program": path, "machines": machines, "settings": "node = 1", "units": units, "nginx": nginx, "flags": ["--a-flag"]}
        environment = {**os.environ, "STICKYPORT_NODE": "2"}
        said = subprocess.run([sys.executable, "-B", JUDGE], input=json.dumps(asked), capture_output=True, text=True, env=environment, check=True)
        return json.loads(said.stdout)


if __name__ == "__main__":
    unittest.main()
