"""Asks a release, on the controller, what does not fit in what is to be deployed. It reads files in a folder of its own, and nothing else: the way to
Redis is the application hosts'.

Standard input: {"program": PATH, "machines": {HOST: NAME}, "settings": TOML, "units": {NAME: CONTENT}, "nginx": {HOST: PRINTED}, "flags": [FLAG]}
Standard output: {"errors": [SENTENCE], "warnings": [SENTENCE]}; that it could not be asked is a warning, that no host could run it an error
"""

import json
import os
import struct
import subprocess
import sys
import tempfile

# What the second half of an ELF header calls a machine, by what its kernel does.
MACHINES = {"x86_64": 62, "aarch64": 183, "armv7l": 40, "riscv64": 243, "ppc64le": 21, "s390x": 22}


def main():
    asked = json.load(sys.stdin)
    if why := misfit(asked["program"], asked["machines"]):
        return print(json.dumps({"errors": [f"{asked['program']}: {why}: set stickyport_binary to a program for the hosts"], "warnings": []}))
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


def misfit(path, machines):
    """Why some host could not run the file, as far as its first bytes tell; nothing if they could."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head.startswith(b"#!"):
            return ""
        if not head.startswith(b"\x7fELF"):
            return "it is no program"
        order, is_64 = "<" if head[5:6] == b"\1" else ">", head[4:5] == b"\2"
        if len(head) < 64 or is_64 and os.path.getsize(path) < loaded(file, head, order):
            return "it is cut short"
    has = struct.unpack_from(f"{order}H", head, 18)[0]
    name = next((name for name, number in MACHINES.items() if number == has), f"machine {has}")
    others = [f"{host} is {machine}" for host, machine in machines.items() if MACHINES.get(machine, has) != has]
    return f"it is a program for {name}, and {', '.join(others)}" if others else ""


def loaded(file, head, order):
    """Where the last byte that is loaded stands in the file."""
    start, size, count = (struct.unpack_from(order + kind, head, at)[0] for kind, at in (("Q", 32), ("H", 54), ("H", 56)))
    file.seek(start)
    table = file.read(size * count)
    if len(table) < size * count or size < 56:
        return sys.maxsize
    return max((sum(struct.unpack_from(f"{order}Q", table, each * size + at)[0] for at in (8, 32)) for each in range(count)), default=0)


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
