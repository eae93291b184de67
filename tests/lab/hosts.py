"""The hosts: a network with a bridge, one namespace each, and a systemd booted in it from the one root."""

import shlex
import subprocess
from pathlib import Path

import cgroups
import root

RUN = Path("/run/lab")
SSH_CONFIG = RUN / "ssh_config"
BRIDGE = "10.77.0.1"
# Where clients come from: networks enough for ip_hash to spread.
CLIENTS = "10.78.0.0/16"


def prepare():
    """Private folders in place of those that others on this machine see, and a network whose end at the bridge is this process's own."""
    run("mount -t tmpfs -o mode=755 tmpfs /run")
    for folder in (RUN / "ssh", Path("/run/netns"), Path("/run/lock")):
        folder.mkdir(parents=True)
    run("ip link set lo up")
    run("ip link add br0 type bridge")
    run(f"ip address add {BRIDGE}/24 dev br0")
    run("ip link set br0 up")
    # Any of these addresses is this machine's own, without adding 65,000 of them.
    run(f"ip route add local {CLIENTS} dev lo")
    run(f"ssh-keygen -q -t ed25519 -N '' -f {RUN}/key")
    SSH_CONFIG.write_text(
        f"IdentityFile {RUN}/key\nUser root\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\nConnectTimeout 5\n"
        f"ControlMaster auto\nControlPersist 10m\nControlPath {RUN}/ssh/%C\n"
    )


class Host:
    def __init__(self, name, number):
        self.name = name
        self.address = f"10.77.0.{number}"
        self.folder = RUN / name
        # Its files, as it sees them.
        self.root = self.folder / "root"

    def boot(self):
        """Starts it; it needs seconds until it can be reached."""
        name, folder = self.name, self.folder
        run(f"ip netns add {name}")
        run(f"ip link add {name} type veth peer name host0 netns {name}")
        run(f"ip link set {name} master br0 up")
        run(f"ip -n {name} address add {self.address}/24 dev host0")
        run(f"ip -n {name} link set lo up")
        self.link("up")
        for layer in ("upper", "work", "root"):
            (folder / layer).mkdir(parents=True)
        run(f"mount -t overlay overlay -o lowerdir={root.PATH},upperdir={folder}/upper,workdir={folder}/work {folder}/root")
        (folder / "root/root/.ssh").mkdir(mode=0o700, exist_ok=True)
        (folder / "root/root/.ssh/authorized_keys").write_text((RUN / "key.pub").read_text())
        (folder / "root/etc/hostname").write_text(f"{name}\n")
        command = f"systemd-nspawn -D {folder}/root --register=no --keep-unit -b --network-namespace-path=/run/netns/{name} --machine={name} --hostname={name}"
        with open(folder / "console", "w") as console:
            self.process = subprocess.Popen(command.split(), stdin=subprocess.DEVNULL, stdout=console, stderr=console, preexec_fn=lambda: cgroups.enter(name))
        with open(SSH_CONFIG, "a") as config:
            config.write(f"Match originalhost {name},{self.address}\n    HostName {self.address}\n")

    def is_up(self):
        """Waits until it has booted, every service of it."""
        self.ssh("systemctl is-system-running --wait", options="-o ConnectionAttempts=30")
        return self

    def ssh(self, command, options="", check=True):
        """Runs a command on it and returns what that printed."""
        done = subprocess.run(["ssh", "-F", SSH_CONFIG, *options.split(), self.name, command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def link(self, state):
        """`down` is a real partition: what is sent either way is gone."""
        run(f"ip -n {self.name} link set host0 {state}")
        if state == "up":
            run(f"ip -n {self.name} route add {CLIENTS} via {BRIDGE}")


def run(command):
    subprocess.run(shlex.split(command), check=True)
