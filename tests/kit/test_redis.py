"""The Redis of the role: a real one with that configuration carries messages for those who know the password, and does nothing else for anybody."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ROLES = pathlib.Path(__file__).resolve().parents[2] / "ansible/roles"
PASSWORD = "abcdefabcdef0123"
PLAY = """
- hosts: stickyport_redis
  gather_facts: false
  vars_files: [ROLES/stickyport_redis/defaults/main.yml, ROLES/stickyport_redis/vars/main.yml]
  tasks:
    - ansible.builtin.include_role: {name: stickyport_redis, tasks_from: preflight}
    - ansible.builtin.template: {src: ROLES/stickyport_redis/templates/redis-stickyport.conf.j2, dest: "{{ folder }}/redis.conf"}
"""
KEY = "stickyport#socket.io#nodes"


class Redis(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            cls.port = free.getsockname()[1]
        done = playbook(cls.folder.name, PASSWORD, cls.port)
        assert done.returncode == 0, done.stdout
        cls.server = subprocess.Popen(["redis-server", f"{cls.folder.name}/redis.conf"], cwd=cls.folder.name, stdout=subprocess.DEVNULL)
        cls.addClassCleanup(cls.server.wait)
        cls.addClassCleanup(cls.server.terminate)
        deadline = time.monotonic() + 30
        while "PONG" not in cls.ask("ping"):
            assert time.monotonic() < deadline and cls.server.poll() is None, "Redis does not answer"

    def test_who_has_no_password_is_nobody(self):
        self.assertIn("NOAUTH", run("redis-cli", "-p", str(self.port), "ping"))
        self.assertIn("WRONGPASS", self.ask("ping", password="wrong"))

    def test_the_instances_can_do_what_they_need(self):
        listening = subprocess.Popen([*self.command(), "psubscribe", "socket.io#/any#*"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(listening.stdout.close)
        self.addCleanup(listening.wait)
        self.addCleanup(listening.terminate)
        for line in listening.stdout:
            if line.strip() == "1":
                break
        self.assertEqual(self.ask("publish", "socket.io#/any#room#", "hello").strip(), "1")
        self.assertIn("hello", [listening.stdout.readline().strip() for _ in range(4)])
        self.assertIn("socket.io-request#/#", self.ask("pubsub", "numsub", "socket.io-request#/#"))
        self.assertEqual(self.ask("zadd", KEY, "1", "0 abc").strip(), "1")
        self.assertEqual(self.ask("zrange", KEY, "0", "-1").strip(), "0 abc")
        # Those of the adapter over streams, the registry and the leases, too.
        for command in (["zremrangebyscore", KEY, "-inf", "0"], ["pexpire", KEY, "60000"], ["zrem", KEY, "0 abc"], ["time"], ["hello", "3"], ["xadd", "socket.io", "*", "a", "b"], ["xread", "COUNT", "1", "STREAMS", "socket.io", "0"], ["set", "stickyport#socket.io#number#1", "a"], ["set", "sio:session:1", "a"], ["client", "info"], ["multi"], ["eval", "return redis.call('get', KEYS[1])", "1", "stickyport#socket.io#number#1"]):
            self.assertNotIn("NOPERM", self.ask(*command), command)

    def test_they_can_do_nothing_else(self):
        for command in (["flushall"], ["config", "get", "*"], ["set", "a", "b"], ["keys", "*"], ["shutdown"], ["zadd", "another", "1", "a"], ["client", "pause", "1"], ["module", "list"], ["acl", "list"]):
            self.assertIn("NOPERM", self.ask(*command), command)

    @classmethod
    def command(cls, password=PASSWORD):
        return ["redis-cli", "-p", str(cls.port), "--no-auth-warning", "--user", "stickyport", "--pass", password]

    @classmethod
    def ask(cls, *command, password=PASSWORD):
        return run(*cls.command(password), *command)


class Unread(unittest.TestCase):
    def test_a_configuration_is_unread_that_is_younger_than_the_process(self):
        with tempfile.TemporaryDirectory() as folder:
            systemctl, file = pathlib.Path(folder, "systemctl"), pathlib.Path(folder, "redis.conf")
            file.touch()
            os.utime(file, (1_000_000_000.5, 1_000_000_000.5))
            for began, said in (("Sun 2001-09-09 01:46:40.400000 UTC", f"{file}\n"), ("Sun 2001-09-09 01:46:40.600000 UTC", ""), ("", "")):
                systemctl.write_text(f"#!/bin/sh\necho {began}\n")
                systemctl.chmod(0o755)
                environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
                done = subprocess.run(["sh", ROLES / "stickyport_redis/files/unread", "a.service", file], capture_output=True, text=True, env=environment)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, said, ""))


class Password(unittest.TestCase):
    def test_one_that_is_missing_or_short_or_would_break_a_url_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            for password in ("", "short", "abcdefabcdef0123@"):
                said = playbook(folder, password, 6379)
                self.assertNotEqual(said.returncode, 0)
                self.assertIn("has no stickyport_redis_password of at least 16 letters and digits", said.stdout)


def playbook(folder, password, port):
    play, hosts = pathlib.Path(folder, "play.yml"), pathlib.Path(folder, "hosts.yml")
    play.write_text(PLAY.replace("ROLES", str(ROLES)))
    hosts.write_text("stickyport_redis: {hosts: {cache: {ansible_connection: local, ansible_host: 127.0.0.1}}}\n")
    given = {"folder": folder, "stickyport_redis_password": password, "stickyport_redis_port": port, "ansible_python_interpreter": sys.executable}
    command = [pathlib.Path(sys.executable).with_name("ansible-playbook"), "-i", hosts, play]
    environment = {"ANSIBLE_ROLES_PATH": str(ROLES), "ANSIBLE_FILTER_PLUGINS": str(ROLES.parent / "filter_plugins"), "ANSIBLE_HOME": f"{folder}/ansible"}
    flags = [flag for name, value in given.items() for flag in ("-e", f"{name}={value}")]
    return subprocess.run([*command, *flags], env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout + done.stderr


if __name__ == "__main__":
    unittest.main()
