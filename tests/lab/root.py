"""The hosts' root: a bare Debian 12 with sshd and Python, built once and kept below target/."""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))

# What any rented Debian has, and no more: what the playbooks need beyond it they have to install.
BARE = "systemd,systemd-sysv,dbus,python3,openssh-server,iproute2"
# What they may install. The lab has no way out, so these lie in a folder that the hosts' apt takes for its mirror.
MIRRORED = "nginx-light redis-server"

MIRROR = Path(__file__).with_name("mirror")

RECIPE = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={BARE}", f"--customize-hook={MIRROR}", "bookworm"]
INGREDIENTS = repr((BARE, MIRRORED, MIRROR.read_text()))
# What the last run's playbooks and clients said, for whoever has to find out why it failed.
LOGS = TARGET / "lab/logs"
PATH = TARGET / "lab" / f"root-{hashlib.sha256(INGREDIENTS.encode()).hexdigest()[:12]}"


def build_unless_there():
    shutil.rmtree(LOGS, ignore_errors=True)
    if not PATH.exists():
        build()
    LOGS.mkdir()


def build():
    began = time.monotonic()
    print(f"building the hosts' root, once: {PATH}", flush=True)
    shutil.rmtree(PATH.parent, ignore_errors=True)
    PATH.parent.mkdir(parents=True)
    unfinished = PATH.with_suffix(".new")
    # In namespaces, so that an interrupted one leaves no mount in the folder.
    apart = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--propagation", "private"]
    try:
        subprocess.run([*apart, *RECIPE, unfinished], check=True, stdin=subprocess.DEVNULL, env={**os.environ, "MIRRORED": MIRRORED})
        unfinished.rename(PATH)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"built in {time.monotonic() - began:.0f} s", flush=True)
