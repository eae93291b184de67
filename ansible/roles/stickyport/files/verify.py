"""Asks systemd about units that are not installed, in a folder of their own. Nothing that runs is touched.

Standard input: {NAME: CONTENT}, below /etc/systemd/system
Standard output: {"refusal": TEXT}, empty if systemd knows every line
"""

import json
import os
import re
import subprocess
import sys
import tempfile


def main():
    with tempfile.TemporaryDirectory() as folder:
        units = []
        for name, content in json.load(sys.stdin).items():
            # Templates are asked about as instances, and a drop-in upon a unit that has nothing else.
            path = f"{folder}/{name.replace('@.', '@0.')}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # The program is not installed yet, and something has to be there to be executed.
            write(path, re.sub(r"(?m)^(Exec\w+)=/opt/stickyport/\S+", r"\1=/bin/true", content))
            unit = os.path.dirname(path).removesuffix(".d") if ".d/" in name else path
            if unit != path and not os.path.exists(unit):
                write(unit, "[Service]\nExecStart=/bin/true\n" if unit.endswith(".service") else "[Socket]\nListenStream=3131\n")
            units.append(unit)
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *sorted(set(units))]
        environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"}
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
        lines = (said.stderr + said.stdout).replace(f"{folder}/", "").replace("@0.", "@.").strip().splitlines()
        wrong = said.returncode != 0 or bool(lines)
        print(json.dumps({"refusal": (lines or ["no word from systemd-analyze"])[0] if wrong else ""}))


def write(path, content):
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


main()
