"""Asks a release, on the controller, what does not fit in what is to be deployed. It reads files in a folder of its own, and nothing else: the way to
Redis is the application hosts'.

Standard input: {"program": PATH, "settings": TOML, "units": {NAME: CONTENT}, "nginx": {HOST: PRINTED}, "flags": [FLAG]}
Standard output: {"errors": [SENTENCE], "warnings": [SENTENCE]}; that it could not be asked is a warning
"""

import json
import os
import subprocess
import sys
import tempfile


def main():
    asked = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        write(f"{folder}/stickyport_config", asked["settings"])
        arguments = ["--config", f"{folder}/stickyport_config", "--unit", f"{folder}/systemd"]
        for name, content in asked["units"].items():
            write(f"{folder}/systemd/{name}", content)
        # A proxy that has no nginx yet prints nothing.
        for host, printed in filter(lambda proxy: proxy[1], asked["nginx"].items()):
            write(f"{folder}/nginx/{host}", printed)
            arguments += ["--nginx", f"{folder}/nginx/{host}"]
        # Settings come from the file alone: the instances do not have the controller's environment.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STICKYPORT_")}
        command = [asked["program"], "check", "--json", "--offline", *arguments, *asked["flags"]]
        try:
            said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
            findings = json.loads(said.stdout.replace(f"{folder}/", ""))["findings"]
        except OSError as error:
            return silence(str(error))
        except (ValueError, KeyError):
            return silence((said.stderr.strip().splitlines() or [f"it ended with {said.returncode}"])[0])
    print(json.dumps({severity + "s": [sentence(each) for each in findings if each["severity"] == severity] for severity in ("error", "warning")}))


def silence(why):
    print(json.dumps({"errors": [], "warnings": [f"the release cannot be asked on the controller, and nothing was judged: {why}"]}))


def sentence(finding):
    line = f":{finding['line']}" if finding["line"] else ""
    return f"{finding['file']}{line}: {finding['value']}: {finding['effect']}; {finding['mend']}"


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


main()
