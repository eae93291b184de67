"""A cgroup of its own for each host: two systemds in one would take each other's services for their own."""

import os
import time
from pathlib import Path

HIERARCHIES = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
PREFIX = "stickyport-lab-"
# Which lab this is: the number of the outer process, which the inner ones inherit.
LAB = os.environ.setdefault("STICKYPORT_LAB", str(os.getpid()))


def obstacle():
    """Why systemd could not keep its services apart here, or None."""
    for hierarchy in hierarchies():
        attempt = hierarchy / f"{PREFIX}{LAB}"
        try:
            attempt.mkdir()
            attempt.rmdir()
        except OSError as error:
            return f"It needs cgroups of its own: {error}"
    return None if hierarchies() else "There is no cgroup hierarchy in which systemd could keep its services."


def enter(host):
    """Moves this process, about to become the host's, into the host's cgroups."""
    for hierarchy in hierarchies():
        own = hierarchy / f"{PREFIX}{LAB}" / host
        own.mkdir(parents=True, exist_ok=True)
        (own / "cgroup.procs").write_text("0")


def remove():
    """Removes the cgroups of all labs that have no process any more; those of this one are about to lose theirs."""
    patience = time.monotonic() + 10
    while True:
        left = [lab for hierarchy in hierarchies() for lab in hierarchy.glob(f"{PREFIX}*") if not removed(lab) and is_ours(lab)]
        if not left or time.monotonic() > patience:
            return
        time.sleep(0.05)


def is_ours(lab):
    return lab.name == f"{PREFIX}{LAB}"


def removed(lab):
    # Not in part: what is empty in a lab that lives is its systemd's.
    if any(members.read_text() for members in lab.rglob("cgroup.procs")):
        return False
    for folder, _, _ in os.walk(lab, topdown=False):
        os.rmdir(folder)
    return True


def hierarchies():
    """Where systemd keeps track of services: version 2, version 1, or both side by side."""
    return [path for path in map(Path, HIERARCHIES) if (path / "cgroup.procs").exists()]
