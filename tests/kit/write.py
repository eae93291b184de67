"""Writes files below the folder that is its argument, from an object of names and contents on standard input."""

import json
import pathlib
import sys

for name, content in json.load(sys.stdin).items():
    path = pathlib.Path(sys.argv[1]) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
