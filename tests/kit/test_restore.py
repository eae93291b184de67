"""The way back when nginx did not take its files: what ran before, and never nothing."""

import os
import pathlib
import subprocess
import tempfile
import unittest

RESTORE = pathlib.Path(__file__).resolve().parents[2] / "ansible/roles/stickyport_nginx/files/restore"


class Restore(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name, content in {"before/a": "old", "tree/a": "new", "tree/added": "new", "before/same": "same", "tree/same": "same", "before/gone": "old"}.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)

    def test_files_are_as_they_were(self):
        done = self.restore()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.tree(), {"a": "old", "same": "same", "gone": "old"})

    def test_where_a_file_cannot_be_written_the_one_that_is_there_stays(self):
        full = self.folder / "bin"
        full.mkdir()
        (full / "cp").write_text("#!/bin/sh\nfor path; do :; done\nprintf o >\"$path\"\nexit 1\n")
        (full / "cp").chmod(0o755)
        done = self.restore(PATH=f"{full}:{os.environ['PATH']}")
        self.assertEqual((done.returncode, done.stderr), (1, "not put back: a gone\n"))
        self.assertEqual(self.tree(), {"a": "new", "same": "same"})

    def restore(self, **environment):
        command = ["sh", RESTORE, self.folder / "before", self.folder / "tree", "a", "added", "same", "gone"]
        return subprocess.run(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def tree(self):
        return {path.name: path.read_text() for path in (self.folder / "tree").iterdir()}


if __name__ == "__main__":
    unittest.main()
