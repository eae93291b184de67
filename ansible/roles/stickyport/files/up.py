"""Brings one instance to a release: its settings, its port, its link, and a start or a restart in place. What does not come up goes back to what was last
seen to work; all of it happens here, so that no lost connection leaves an instance half-way.

Standard input: {"instance": NUMBER, "release": NAME, "settings": TEXT, "port": TEXT, "unit": CHECKSUM, "starts": BOOL, "serves": BOOL, "wait": SECONDS,
"settle": SECONDS}
Standard output: {"why": TEXT, "fate": TEXT, "new": BOOL, "touched": BOOL, "words": [LINE], "degraded": BOOL}: why it does not run the release, or nothing; what it is now;
whether there is nothing to go back to; whether its process was touched; the last that it said; whether it serves without Redis
"""

import grp
import hashlib
import http.client
import json
import os
import subprocess
import sys
import time

OPT = "/opt/stickyport"
SETTINGS = "/etc/stickyport/instances"
NOTES = "/var/lib/stickyport"
UNITS = "/etc/systemd/system"


class Refused(Exception):
    """Why it does not come up."""


class Instance:
    def __init__(self, asked):
        number = asked["instance"]
        self.asked, self.number, self.port = asked, number, 3131 + number
        self.service = f"stickyport@{number}.service"
        self.link, self.settings, self.before = f"{OPT}/instances/{number}", f"{SETTINGS}/{number}.toml", f"{SETTINGS}/{number}.toml.before"
        self.drop_in, self.note = f"{UNITS}/stickyport@{number}.socket.d/port.conf", f"{NOTES}/{number}.started"
        self.touched = self.kept = False
        # What its process was started with. A run that was interrupted may have left other files, and those were never seen to work.
        self.started = (read(self.note) or "").strip()
        self.was_release, self.was_settings = (*self.started.split(), "", "")[:2]
        self.old = self.way_back()

    def way_back(self):
        """What its link led to when it was last seen to work; nothing for a new instance."""
        if self.was_release and os.path.isdir(f"{OPT}/releases/{self.was_release}"):
            return f"../releases/{self.was_release}"
        leads = os.readlink(self.link) if os.path.islink(self.link) else ""
        is_left = leads == f"../releases/{self.asked['release']}" and not self.asked["serves"]
        return "" if is_left else leads

    def bring_up(self):
        wanted = self.asked["settings"]
        if checksum(read(self.settings)) not in ("", checksum(wanted)) and not self.has_kept():
            copy(self.settings, self.before)
            self.kept = True
        self.configure(wanted)
        has_new_port = read(self.drop_in) != self.asked["port"]
        if has_new_port:
            os.makedirs(os.path.dirname(self.drop_in), mode=0o755, exist_ok=True)
            write(self.drop_in, self.asked["port"], 0o644)
        lead(self.link, f"../releases/{self.asked['release']}")
        if self.asked["starts"]:
            self.start(f"{self.asked['release']} {checksum(wanted)} {self.asked['unit']}")
            return
        # What does not concern the process that runs.
        if has_new_port:
            systemctl("daemon-reload")
        systemctl("enable", self.service)

    def has_kept(self):
        """Whether the settings that its process was started with are kept already."""
        return self.was_settings != "" and checksum(read(self.before)) == self.was_settings

    def configure(self, wanted):
        """Writes its settings, if the release takes them."""
        if read(self.settings) == wanted:
            return
        tried = f"{self.settings}.tried"
        try:
            write(tried, wanted, 0o640)
            own(tried)
            program = f"{OPT}/releases/{self.asked['release']}/stickyport"
            said = run(program, "check-config", "--config", tried, "--instance", str(self.number))
            if said.returncode:
                raise Refused(f"it does not take its settings: {first_line(said).replace(tried, self.settings)}")
            os.replace(tried, self.settings)
        finally:
            if os.path.exists(tried):
                os.remove(tried)

    def start(self, noted):
        """Starts it, or restarts it in place, and looks whether it stays; what it was started with is noted then."""
        # Failures of before count for the start limit.
        run("systemctl", "reset-failed", self.service, f"stickyport@{self.number}.socket", "stickyport-http.socket")
        # Always: a run that was interrupted may have written units and not come to this.
        systemctl("daemon-reload")
        systemctl("enable", self.service)
        self.touched = True
        systemctl("restart", self.service)
        self.wait_until_it_takes_clients()
        process = self.main_process()
        # It has come up; now it may change its mind.
        time.sleep(self.asked["settle"])
        if self.main_process() != process:
            raise Refused(f"it did not stay: within {self.asked['settle']} s another process took its place")
        runs, wanted = os.readlink(f"/proc/{process}/exe"), os.path.realpath(f"{self.link}/stickyport")
        if runs != wanted:
            raise Refused(f"it runs {runs} instead of {wanted}")
        write(self.note, noted + "\n", 0o644)

    def wait_until_it_takes_clients(self):
        deadline = time.monotonic() + self.asked["wait"]
        while (answer := ready(self.port))[0] != 200:
            if time.monotonic() > deadline:
                raise Refused(f"it was started, but after {self.asked['wait']} s port {self.port} does not answer /readyz: {answer[0] or answer[1]}")
            time.sleep(0.2)

    def main_process(self):
        return systemctl("show", "--value", "--property", "MainPID", self.service)

    def go_back(self):
        """Puts back what was last seen to work; what the instance is then."""
        if self.old == "":
            return "is stopped, because it is new"
        try:
            if self.was_settings != checksum(self.asked["settings"]) and (self.kept or self.has_kept()) and read(self.settings) != read(self.before):
                copy(self.before, self.settings)
            lead(self.link, self.old)
        except OSError as why:
            return f"cannot be given the files of before ({why})"
        if not self.touched:
            return "was not restarted, and has the files of before"
        name = os.path.basename(self.old)[:12]
        try:
            self.start(self.started)
        except (Refused, OSError) as why:
            return f"has the files of {name}, which does not come up either ({why})"
        return f"is back on {name}"

    def last_words(self):
        command = ("journalctl", "--quiet", "--no-pager", "--output", "cat", "--lines", "5", "--unit", self.service)
        return run(*command).stdout.splitlines() if self.touched else []


def main():
    instance = Instance(json.load(sys.stdin))
    why, fate, words = "", "", []
    try:
        instance.bring_up()
    except (Refused, OSError) as reason:
        words, why = instance.last_words(), str(reason)
        fate = instance.go_back()
    is_degraded = instance.touched and "degraded" in str(ready(instance.port)[1])
    print(json.dumps({"why": why, "fate": fate, "new": instance.old == "", "touched": instance.touched, "words": words, "degraded": is_degraded}))


def ready(port):
    """The status that /readyz answers and its words; no status, and what came instead."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return None, error
    finally:
        connection.close()


def systemctl(*arguments):
    done = run("systemctl", *arguments)
    if done.returncode:
        raise Refused(f"systemctl {' '.join(arguments)}: {first_line(done)}")
    return done.stdout.strip()


def run(*command):
    # Whatever a program that is broken says, there is a way back.
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")


def first_line(done):
    return (done.stderr.strip().splitlines() or ["no word"])[0]


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def checksum(text):
    return "" if text is None else hashlib.sha256(text.encode()).hexdigest()


def write(path, text, mode):
    """In one piece, so that nobody reads half of it."""
    beside = f"{path}.new"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    os.replace(beside, path)


def copy(source, target):
    """In one piece, too, for the program to read."""
    beside = f"{target}.copied"
    write(beside, read(source), 0o640)
    own(beside)
    os.replace(beside, target)


def own(path):
    """Root's to write, and the program's to read."""
    os.chown(path, 0, grp.getgrnam("stickyport").gr_gid)
    os.chmod(path, 0o640)


def lead(link, target):
    """Lets a link lead there, without a moment in which it leads nowhere."""
    beside = f"{link}.new"
    if os.path.lexists(beside):
        os.remove(beside)
    os.symlink(target, beside)
    os.replace(beside, link)


main()
