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
        for program in ["no program", "#!/nowhere\n", "#!/bin/sh\necho cannot >&2\nexit 127\n", "#!/bin/sh\nexit 1\n"]:
            said = judge(program)
            self.assertEqual((said["errors"], len(said["warnings"])), ([], 1), program)
            self.assertIn("cannot be asked on the controller", said["warnings"][0])


def judge(program):
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/stickyport"
        with open(path, "w", encoding="utf-8") as file:
            file.write(program)
        os.chmod(path, 0o755)
        units, nginx = {"a.service": "[Unit]", "a.service.d/b.conf": "[Service]"}, {"proxy1": "printed", "bare": ""}
        asked = {"program": path, "settings": "node = 1", "units": units, "nginx": nginx, "flags": ["--a-flag"]}
        environment = {**os.environ, "STICKYPORT_NODE": "2"}
        said = subprocess.run([sys.executable, "-B", JUDGE], input=json.dumps(asked), capture_output=True, text=True, env=environment, check=True)
        return json.loads(said.stdout)


if __name__ == "__main__":
    unittest.main()
