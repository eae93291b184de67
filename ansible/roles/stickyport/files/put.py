"""Makes folders and writes files, all of them root's and nobody else's to write, and says what is new in them.

Standard input: {"folders": [PATH], "files": {PATH: CONTENT}, "dry": BOOL}; a file without content is removed, and with `dry` nothing is done
Standard output: {"diff": [LINE]}
"""

import difflib
import json
import os
import sys


def main():
    asked = json.load(sys.stdin)
    diff = []
    for path, content in asked["files"].items():
        diff += difflib.unified_diff(read(path).splitlines(), content.splitlines(), path, path, "before", "after", lineterm="")
    print(json.dumps({"diff": diff}))
    if asked["dry"]:
        return
    for folder in asked["folders"]:
        os.makedirs(folder, exist_ok=True)
        os.chown(folder, 0, 0)
        os.chmod(folder, 0o755)
    for path, content in asked["files"].items():
        if content:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write(path, content)
        elif os.path.lexists(path):
            os.remove(path)


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(path, content):
    """In one piece, so that nobody reads half of it."""
    beside = f"{path}.new"
    with open(beside, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)
    os.replace(beside, path)


main()
