"""What the kit promises, one scenario after the other, each on what the one before left."""

import collections
import functools
import hashlib
import json
import shutil
import subprocess
import time
import unittest
from pathlib import Path

import clock
import hosts
from controller import Controller
from fleet import Fleet
from hosts import Host
from mistakes import BAD_INPUT, MISTAKES, NGINX, SETTINGS as SETTINGS_FILE

CLIENTS = 400
# Each says a message about every so many milliseconds, and its whole room hears it.
PACE = 6_000

# Short, so that a drain is soon over. Heartbeats are the defaults, and so is everything that depends on them.
PING_INTERVAL, PING_TIMEOUT = 25, 20
SETTINGS = {
    "drain_timeout": "3s",
    "restart_window": "1s",
    "engine": {"ping_interval": f"{PING_INTERVAL}s", "ping_timeout": f"{PING_TIMEOUT}s"},
}
# After it noticed, a client waits 1.5 s at most before it comes back; nginx may try a dead host twice, for 2 s each, and then the client waits again.
COMING_BACK = 1.5 + 4 + 3 + 4
# What a busy machine takes for what needs no time.
PATIENCE = 1
# Kills it as often as systemd starts it again, and prints how often that was.
KILL_UNTIL_IT_IS_GIVEN_UP = """
crashes=0
while true; do
    while [ $(systemctl show -P ActiveState $unit) = activating ]; do sleep 0.1; done
    [ $(systemctl show -P ActiveState $unit) = active ] || break
    kill -9 $(systemctl show -P MainPID $unit)
    crashes=$((crashes + 1))
    while [ $(systemctl show -P ActiveState $unit) = active ]; do sleep 0.1; done
done
echo $crashes
"""
LOG = "/var/log/nginx/stickyport.log"
ROOM = Path(__file__).with_name("room.mjs")


class Lab:
    """The hosts, the controller and the clients, and what scenarios ask of them."""

    def __init__(self):
        self.proxy, self.applications = Host("proxy1", 11), [Host("app1", 21), Host("app2", 22)]
        self.controller = Controller(self.applications, [self.proxy], dict(SETTINGS))
        self.url = f"http://{self.proxy.address}"
        self.fleet = None

    def boot(self):
        everyone = [self.proxy, *self.applications]
        for host in everyone:
            host.boot()
        for host in everyone:
            host.is_up()
        clock.say(f"{', '.join(host.name for host in everyone)} have booted")

    def deployed(self):
        self.boot()
        self.controller.play("deploy.yml").must_succeed()

    def nodes(self):
        """Node number to the host and the instance, for all that the inventory asks for."""
        count = self.controller.instances_per_host
        return {number * 32 + instance: (host, instance) for number, host in enumerate(self.applications) for instance in range(count)}

    def releases(self):
        """Which release each instance's process runs, by node."""
        return {node: host.ssh(f"readlink /proc/{main_pid(host, instance)}/exe").strip().split("/")[-2] for node, (host, instance) in self.nodes().items()}

    def pids(self):
        return {node: main_pid(host, instance) for node, (host, instance) in self.nodes().items()}

    def log_mark(self):
        return int(self.proxy.ssh(f"wc -l <{LOG}"))

    def log_since(self, mark):
        return self.proxy.ssh(f"tail -n +{mark + 1} {LOG}").splitlines()

    def state(self):
        """All that a playbook may change on the hosts: files and links with their times, and processes."""
        look = "find /opt /etc /var/lib/stickyport -printf '%p %l %T@\\n' 2>/dev/null | sort; pgrep --list-full 'stickyport|nginx'"
        return {host.name: host.ssh(f"{look}; true").splitlines() for host in [self.proxy, *self.applications]}

    @functools.cache
    def nginx_tree(self):
        return self.proxy.ssh("nginx -T 2>/dev/null")

    def stop(self):
        if self.fleet:
            self.fleet.stop()
            self.fleet = None


class Scenarios(unittest.TestCase):
    lab = None
    maxDiff = None

    def setUp(self):
        print(flush=True)
        began = time.monotonic()
        self.addCleanup(lambda: clock.TOOK.update({self._testMethodName: time.monotonic() - began}))
        if self.lab.fleet:
            self.lab.fleet.mark()
            self.log = self.lab.log_mark()

    def test_1_first_deploy_from_bare_debian(self):
        lab = self.lab
        lab.boot()
        self.foresees("deploy.yml", "2 instances of release", "nginx, and stickyport/upstream-keepalive.conf")
        lab.controller.play("deploy.yml").must_succeed()
        second = lab.controller.play("deploy.yml").must_succeed()
        self.assertEqual(set(second.changed.values()), {0}, f"a second run changes something:\n{second.output}")
        self.assertEqual({line.split()[2] for line in lab.proxy.ssh("ss -Hltn 'sport = :80'").splitlines()}, {"4096"})
        # The lab's hosts may not set them.
        self.assertIn("ip_local_port_range = 10240 65535", lab.proxy.ssh("cat /etc/sysctl.d/60-stickyport.conf"))
        for host in lab.applications:
            self.assertEqual(host.ssh("journalctl --quiet --no-pager | grep 'drain_timeout =' || true"), "", "settings may hold a password")

        lab.fleet = Fleet(hosts.root.LOGS / "fleet.log")
        lab.fleet.start(lab.url, CLIENTS, PACE)
        clients = lab.fleet.clients()
        self.report(clients)
        self.assertEqual({client.node for client in clients}, set(lab.nodes()))
        self.undisturbed(clients, connects=1)
        self.assertEqual({client.transport for client in clients if client.kind == "polling"}, {"polling"})
        self.assertEqual({client.transport for client in clients if client.kind != "polling"}, {"websocket"})

    def test_2_scale_out_breaks_no_session_and_new_ones_reach_all_instances(self):
        lab = self.lab
        lab.controller.instances_per_host = 4
        self.foresees("scale.yml", "instance 2 would be started", "+    server 10.77.0.21:3133 max_fails")
        # Not what was asked for, so nobody is restarted for it.
        lab.controller.settings["restart_window"] = "2s"
        outcome = lab.controller.play("scale.yml").must_succeed()
        lab.controller.settings["restart_window"] = SETTINGS["restart_window"]
        self.assertIn("app1: instance 0 is not what the inventory says, and is left as it is", outcome.output)
        lab.fleet.exchange(2)
        self.undisturbed(lab.fleet.clients())
        self.no_request_failed()
        newcomers = lab.fleet.replace(every=2)
        self.report(newcomers)
        self.assertEqual({client.node for client in newcomers}, set(lab.nodes()))

    def test_3_scale_in_moves_the_clients_of_drained_instances_once(self):
        lab = self.lab
        drained = set(lab.nodes())
        lab.controller.instances_per_host = 2
        drained -= set(lab.nodes())
        before = {client.number: client.node for client in lab.fleet.clients()}
        lab.controller.play("scale.yml").must_succeed()
        lab.fleet.until("every client is connected", all_connected)
        lab.fleet.exchange(2)
        clients = lab.fleet.clients()
        moved, stayed = split(clients, lambda client: before[client.number] in drained)
        self.report(clients)
        self.undisturbed(stayed)
        self.came_back(moved, to=set(lab.nodes()))
        self.no_request_failed()
        for host in lab.applications:
            self.assertEqual(host.ssh("systemctl list-units --no-legend 'stickyport@[23].*' | grep -w active || true"), "")

    def test_4_rolling_deploy_of_a_new_binary_and_the_way_back(self):
        lab = self.lab
        old = lab.releases()
        good = lab.controller.binary
        # The same program with a few bytes more: to everybody but the loader it is another one.
        lab.controller.binary = other_binary(good, "next", b"next")
        lab.controller.overrides = {"Service": {"LimitNOFILE": 16_384}}
        self.foresees("deploy.yml", "instance 0 would be restarted")
        self.rolls("deploy.yml")
        self.assertEqual({limit for host, instance in lab.nodes().values() for limit in open_files(host, instance)}, {"16384"})
        new = lab.releases()
        self.assertEqual(len(set(new.values())), 1, new)
        self.assertTrue(set(new.values()).isdisjoint(old.values()), new)

        lab.fleet.mark()
        self.rolls("rollback.yml")
        self.assertEqual(lab.releases(), old)
        lab.controller.binary = good

    def test_units_that_an_interrupted_run_left_unread_are_read(self):
        lab = self.lab
        host = lab.applications[0]
        # The file is there, systemd does not know it, and the next run finds no file to change.
        host.ssh("cd /etc/systemd/system && for each in stickyport@.service stickyport-http.socket; do cp $each left; mv left $each; done")
        lab.proxy.ssh("touch /etc/systemd/system/nginx.service.d/stickyport.conf")
        stale = "systemctl show --value --property NeedDaemonReload %s"
        self.assertEqual(host.ssh(stale % "stickyport@0.service").strip(), "yes")
        self.assertEqual(lab.proxy.ssh(stale % "nginx.service").strip(), "yes")
        lab.controller.play("deploy.yml").must_succeed()
        self.assertEqual(host.ssh(stale % "stickyport@0.service").strip(), "no")
        self.assertEqual(lab.proxy.ssh(stale % "nginx.service").strip(), "no")
        lab.fleet.exchange(1)
        self.undisturbed(lab.fleet.clients())

    def test_files_that_an_interrupted_run_left_unread_are_read_by_nginx(self):
        lab = self.lab
        children = "$(pgrep -P $(systemctl show -P MainPID nginx))"
        workers = f"for each in {children}; do grep -q 'shutting down' /proc/$each/cmdline || echo $each; done"
        mark = "/run/stickyport-nginx.unread"
        # nginx runs with another line than the file has, which the next run finds in order.
        file = "/etc/nginx/stickyport/timeouts.conf"
        lab.proxy.ssh(f"cp -p {file} /root/left && sed -i 's/proxy_read_timeout 55s/proxy_read_timeout 56s/' {file} && systemctl reload nginx")
        lab.proxy.ssh(f"cp -p /root/left {file} && rm /root/left && touch {mark}")
        lab.fleet.exchange(1)
        before = lab.proxy.ssh(workers).split()
        self.assertGreater(len(before), 0)
        lab.controller.play("deploy.yml").must_succeed()
        self.assertTrue(set(before).isdisjoint(lab.proxy.ssh(workers).split()), "nginx was not reloaded")
        lab.proxy.ssh(f"test ! -e {mark}")
        lab.fleet.exchange(1)
        self.undisturbed(lab.fleet.clients())

    def test_5_a_binary_that_crashes_at_start_stops_at_the_first_instance(self):
        lab = self.lab
        releases, pids = lab.releases(), lab.pids()
        first = min(pids)
        before = {client.number: client.node for client in lab.fleet.clients()}
        good, lab.controller.binary = lab.controller.binary, crashing_binary()
        host = lab.nodes()[first][0]
        settings = host.ssh("cat /etc/stickyport/instances/0.toml")

        def stops_at_the_first():
            outcome = lab.controller.play("deploy.yml").must_fail()
            self.assertEqual(outcome.failed, [host.name])
            self.assertIn(f"{host.name}: instance 0 does not run release", outcome.output)
            self.assertIn(f"it is back on {releases[first][:12]}, and no other instance was touched", outcome.output)
            self.assertEqual(lab.releases(), releases)
            self.assertEqual(host.ssh("cat /etc/stickyport/instances/0.toml"), settings)

        stops_at_the_first()
        # As a run leaves it that was interrupted before the restart: the way back is to what was seen to work, not to what lies there.
        bad = hashlib.sha256(lab.controller.binary.read_bytes()).hexdigest()
        host.ssh("cd /etc/stickyport/instances && cp -p 0.toml 0.toml.before && echo '# interrupted' >>0.toml")
        host.ssh(f"ln -sfn ../releases/{bad} /opt/stickyport/instances/0")
        lab.controller.settings["restart_window"] = "2s"
        stops_at_the_first()
        lab.controller.settings["restart_window"] = SETTINGS["restart_window"]
        lab.controller.binary = good
        after = lab.pids()
        self.assertNotEqual(after.pop(first), pids.pop(first))
        self.assertEqual(after, pids, "only the first instance was touched")
        lab.fleet.until("every client is connected", all_connected)
        lab.fleet.exchange(2)
        own, others = split(lab.fleet.clients(), lambda client: before[client.number] == first)
        self.report(own + others)
        self.undisturbed(others)
        self.assertEqual({client.node for client in own}, {first})
        self.no_request_failed()

    def test_drain_empties_a_host_until_it_is_brought_back(self):
        lab = self.lab
        host = lab.applications[1]
        drained = {node for node, (of, _) in lab.nodes().items() if of is host}
        before = {client.number: client.node for client in lab.fleet.clients()}
        lab.controller.play("drain.yml", "-e", f"stickyport_drain={host.name}").must_succeed()
        lab.fleet.until("every client is connected", all_connected)
        lab.fleet.exchange(2)
        moved, stayed = split(lab.fleet.clients(), lambda client: before[client.number] in drained)
        self.undisturbed(stayed)
        self.came_back(moved, to=set(lab.nodes()) - drained)
        self.no_request_failed()
        self.assertEqual(host.ssh("systemctl list-units --no-legend --state=active 'stickyport@*'"), "")
        newcomers = lab.fleet.replace(every=4)
        self.report(newcomers)
        self.assertTrue(drained.isdisjoint(client.node for client in newcomers))

        # One that runs again, but is still being drained, is not what the inventory asks for.
        host.ssh("systemctl start stickyport@0.service && systemctl kill --kill-whom main --signal USR1 stickyport@0.service")
        lab.fleet.mark()
        lab.controller.play("scale.yml").must_succeed()
        lab.fleet.exchange(1)
        self.undisturbed(lab.fleet.clients())
        self.assertEqual({client.node for client in lab.fleet.replace(every=2)}, set(lab.nodes()))

    def test_6_kill_9_and_the_start_limit(self):
        lab = self.lab
        node = max(lab.nodes())
        host, instance = lab.nodes()[node]
        before = {client.number: client.node for client in lab.fleet.clients()}
        host.ssh(f"systemctl reset-failed stickyport@{instance}.service")

        killed = time.monotonic()
        host.ssh(f"kill -9 {main_pid(host, instance)}; {until_ready(instance)}")
        took = time.monotonic() - killed
        clock.say(f"{host.name}:{instance} was back {took:.1f} s after kill -9")
        self.assertLess(took, 5)
        lab.fleet.until("every client is connected", all_connected)
        lab.fleet.exchange(2)
        own, others = split(lab.fleet.clients(), lambda client: before[client.number] == node)
        self.undisturbed(others)
        self.came_back(own, to=before)

        # As the first connection to 8080 does while no instance runs, such as while the host boots.
        host.ssh("systemctl start stickyport-http.service")
        lab.fleet.mark()
        crashes = int(host.ssh(f"unit=stickyport@{instance}.service; {KILL_UNTIL_IT_IS_GIVEN_UP}"))
        clock.say(f"{host.name}:{instance} was given up after {crashes} more crashes")
        # The start after the kill above is the first of the five that are allowed in a minute, and each of them ends in one of these.
        self.assertEqual(crashes, 5)
        self.assertIn("is not started again", host.ssh("journalctl --no-pager --output cat --identifier stickyport-alert"))
        lab.fleet.until("every client is connected", all_connected)
        lab.fleet.exchange(2)
        own, others = split(lab.fleet.clients(), lambda client: before[client.number] == node)
        self.undisturbed(others)
        self.assertNotIn(node, {client.node for client in own})

        lab.controller.play("deploy.yml").must_succeed()
        self.assertEqual(host.ssh("systemctl is-active stickyport-http.socket").strip(), "active")
        host.ssh(until_ready(instance))

    def test_7_a_host_that_is_cut_off_loses_its_clients_to_the_other(self):
        lab = self.lab
        cut, left = lab.applications[1], {node for node, (host, _) in lab.nodes().items() if host is lab.applications[0]}
        before = {client.number: client.node for client in lab.fleet.clients()}
        # Ansible has a connection to it that it goes on with, and that nobody closes.
        lab.controller.play("status.yml").must_succeed()
        self.addCleanup(cut.link, "up")
        cut.link("down")
        began = time.time()
        outcome = lab.controller.play("drain.yml", "-e", f"stickyport_drain={lab.applications[0].name}:1").must_fail()
        self.assertIn(f"{cut.name} cannot be reached, and nothing was touched", outcome.output)
        self.assertLess(time.time() - began, PING_INTERVAL + PING_TIMEOUT)
        lab.fleet.until("every client is on the other host", lambda clients: all_connected(clients) and {client.node for client in clients} <= left)
        clients = lab.fleet.clients()
        moved, stayed = split(clients, lambda client: before[client.number] not in left)
        for transport in ("polling", "websocket"):
            those = [client for client in moved if client.transport == transport]
            noticed = [client.disconnects[0]["at"] - began for client in those]
            back = [client.since - began for client in those]
            late = sum(1 for after in back if after > PING_INTERVAL + PING_TIMEOUT)
            slowest = max(after - then for after, then in zip(back, noticed))
            # Who was pinged just before the cut may take all of this to notice, and is on the other host a moment later.
            self.assertLess(max(noticed), PING_INTERVAL + PING_TIMEOUT + PATIENCE)
            self.assertLess(slowest, COMING_BACK + PATIENCE)
            clock.say(
                f"{len(those)} clients with {transport} noticed within {max(noticed):.1f} s and were on {lab.applications[0].name} after {max(back):.1f} s, "
                f"{late} of them later than {PING_INTERVAL + PING_TIMEOUT} s; the slowest took {slowest:.1f} s to come back"
            )
        lab.fleet.exchange(2)
        staying = {client.number for client in stayed}
        self.undisturbed([client for client in lab.fleet.clients() if client.number in staying])

    def test_8_reload_of_nginx_under_load_and_a_broken_template(self):
        lab = self.lab
        master = lab.proxy.ssh("systemctl show -P MainPID nginx").strip()
        for _ in range(3):
            lab.proxy.ssh("systemctl reload nginx")
            lab.fleet.exchange(1)
        self.undisturbed(lab.fleet.clients())

        tree = lab.proxy.ssh("nginx -T 2>&1 | sha256sum")
        workers = lab.proxy.ssh("pgrep -P $(systemctl show -P MainPID nginx)")
        lab.controller.repository = spoiled_repository("ansible/roles/stickyport_nginx/templates/timeouts.conf.j2", "proxy_read_timeout", "proxy_read_timeuot")
        outcome = lab.controller.play("deploy.yml").must_fail()
        lab.controller.repository = hosts.root.REPOSITORY
        self.assertEqual(outcome.failed, [lab.proxy.name])
        self.assertEqual(lab.proxy.ssh("nginx -T 2>&1 | sha256sum"), tree)
        self.assertEqual(lab.proxy.ssh("pgrep -P $(systemctl show -P MainPID nginx)"), workers)
        self.assertEqual(lab.proxy.ssh("systemctl show -P MainPID nginx").strip(), master)
        lab.fleet.exchange(1)
        self.undisturbed(lab.fleet.clients())

    def test_9_check_finds_each_mistake_and_nothing_in_what_was_deployed(self):
        self.assertEqual(self.found(Deployed(self.lab)), [])
        for mistake in MISTAKES:
            with self.subTest(mistake.rule):
                deployed = Deployed(self.lab)
                deployed.edit(mistake)
                self.assertIn(mistake.rule, [finding["rule"] for finding in self.found(deployed, *mistake.flags)])
        clock.say(f"{len(MISTAKES)} mistakes planted")

    def test_10_bad_input_stops_before_anything_that_runs_is_touched(self):
        lab = self.lab
        pids, tree = lab.pids(), lab.proxy.ssh("nginx -T 2>&1 | sha256sum")
        lab.applications[1].ssh("systemd-run --quiet --unit squatter python3 -m http.server 3133")
        self.addCleanup(lab.applications[1].ssh, "systemctl stop squatter")
        for bad in BAD_INPUT:
            with self.subTest(bad.what):
                outcome = lab.controller.play("deploy.yml", spoil=bad.spoil).must_fail()
                for word in bad.said:
                    self.assertIn(word, outcome.output)
        self.assertEqual(lab.pids(), pids)
        self.assertEqual(lab.proxy.ssh("nginx -T 2>&1 | sha256sum"), tree)
        lab.fleet.exchange(1)
        self.undisturbed(lab.fleet.clients())

    def test_a_new_instance_that_does_not_come_up_leaves_nothing_behind(self):
        lab = self.lab
        host = lab.applications[0]
        pids, tree = lab.pids(), lab.proxy.ssh("nginx -T 2>&1 | sha256sum")
        # Nothing looks for that beforehand: somebody has left a drop-in there.
        host.ssh("mkdir /etc/systemd/system/stickyport@2.service.d && printf '[Service]\\nExecStartPre=/bin/false\\n' >/etc/systemd/system/stickyport@2.service.d/left.conf")
        self.addCleanup(host.ssh, "rm -r /etc/systemd/system/stickyport@2.service.d")
        lab.controller.instances_per_host = 3
        outcome = lab.controller.play("scale.yml").must_fail()
        lab.controller.instances_per_host = 2
        self.assertEqual(outcome.failed, [host.name])
        self.assertIn(f"{host.name}: instance 2 does not run release", outcome.output)
        self.assertIn("it is stopped, because it is new, and no other instance was touched", outcome.output)
        self.assertEqual(host.ssh("cd / && ls -d opt/stickyport/instances/2 etc/stickyport/instances/2.toml etc/systemd/system/stickyport@2.socket.d 2>/dev/null || true"), "")
        self.assertEqual(lab.pids(), pids)
        self.assertEqual(lab.proxy.ssh("nginx -T 2>&1 | sha256sum"), tree)
        lab.fleet.exchange(1)
        self.undisturbed(lab.fleet.clients())

    def test_over_redis_clients_of_different_hosts_are_in_one_room(self):
        lab = self.lab
        # They would all hear each other, which is more than they are to be asked about.
        lab.stop()
        lab.controller.redis = [lab.proxy]
        outcome = lab.controller.play("deploy.yml").must_succeed()
        self.assertNotIn("0123456789abcdef", outcome.output)
        second = lab.controller.play("deploy.yml").must_succeed()
        self.assertEqual(set(second.changed.values()), {0}, f"a second run changes something:\n{second.output}")
        self.assertIn(f"{lab.proxy.address}:6379", lab.proxy.ssh("ss -Hltn 'sport = :6379'"))
        subprocess.run(["node", ROOM, *(f"http://{host.address}:3131" for host in lab.applications)], check=True, stdin=subprocess.DEVNULL)

    def foresees(self, playbook, *words):
        """With --check --diff it says what it would do, and does nothing."""
        before = self.lab.state()
        outcome = self.lab.controller.play(playbook, "--check", "--diff").must_succeed()
        for word in words:
            self.assertIn(word, outcome.output)
        # Settings may hold a password, and this is what people show each other.
        self.assertNotIn("drain_timeout =", outcome.output)
        self.assertEqual(self.lab.state(), before)

    def rolls(self, playbook):
        """Every instance is restarted in place: no request fails, and each client comes back once, to its own."""
        lab = self.lab
        before = {client.number: client.node for client in lab.fleet.clients()}
        lab.controller.play(playbook).must_succeed()
        lab.fleet.until("every client is connected", all_connected)
        lab.fleet.exchange(2)
        self.no_request_failed()
        self.came_back(lab.fleet.clients(), to=before)

    def found(self, deployed, *flags):
        done = subprocess.run([self.lab.controller.binary, "check", *deployed.flags(), *flags, "--json"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.assertIn(done.returncode, (0, 1, 2), done.stderr)
        findings = json.loads(done.stdout)["findings"]
        self.assertEqual(done.returncode == 0, findings == [])
        return findings

    # --- what is asked of clients ---

    def undisturbed(self, clients, connects=0):
        """They noticed nothing: no connection ended, none failed, no message went missing."""
        self.assertGreater(len(clients), 0)
        disturbed = [client for client in clients if client.connects != connects or client.disconnects or client.errors or went_wrong(client)]
        self.assertFalse(disturbed, f"{len(disturbed)} of {len(clients)} clients were disturbed, such as {disturbed[:3]}")

    def came_back(self, clients, to):
        """Each lost its connection once, came back once, and lost no acknowledged message. `to`: the nodes it may be on, or its node by number."""
        self.assertGreater(len(clients), 0)
        for client in clients:
            self.assertEqual((client.connects, len(client.disconnects)), (1, 1), client)
            self.assertFalse(went_wrong(client), client)
            self.assertIn(client.node, [to[client.number]] if isinstance(to, dict) else to, client)

    def no_request_failed(self):
        """nginx has answered nothing with 5xx since the scenario began."""
        self.assertEqual([line for line in self.lab.log_since(self.log) if status(line) >= 500], [])

    def report(self, clients):
        """For the reader of the progress: who is where, and what went on."""
        nodes = collections.Counter(client.node for client in clients)
        sums = {name: sum(count(getattr(client, name)) for client in clients) for name in ("connects", "acknowledged", "repeated", "lost", "cut")}
        clock.say(f"clients by node {dict(sorted(nodes.items()))}, {sums}")


class Deployed:
    """A copy of what `stickyport check` reads, as it is on the hosts."""

    def __init__(self, lab):
        self.folder = hosts.RUN / "deployed"
        shutil.rmtree(self.folder, ignore_errors=True)
        application = lab.applications[0].root
        shutil.copytree(application / "etc/systemd/system", self.folder, symlinks=True)
        shutil.copy(application / "etc/stickyport/instances/0.toml", self.folder)
        (self.folder / NGINX).write_text(lab.nginx_tree())

    def edit(self, mistake):
        file = self.folder / mistake.file
        text = file.read_text()
        if mistake.right not in text:
            raise AssertionError(f"{mistake.file} does not say {mistake.right!r}")
        file.write_text(text.replace(mistake.right, mistake.wrong, 1))

    def flags(self):
        units = [flag for unit in sorted(self.folder.glob("stickyport*")) if unit.is_file() for flag in ("--unit", unit)]
        return ["--config", self.folder / SETTINGS_FILE, "--nginx", self.folder / NGINX, *units]


def went_wrong(client):
    return bool(client.lost or client.twice or client.refusals)


def all_connected(clients):
    return all(client.connected for client in clients)


def split(clients, belongs):
    return [client for client in clients if belongs(client)], [client for client in clients if not belongs(client)]


def count(value):
    return len(value) if isinstance(value, list) else value


def status(line):
    """The status in a line of nginx's access log."""
    return int(line.split('"')[2].split()[0])


def main_pid(host, instance):
    return int(host.ssh(f"systemctl show -P MainPID stickyport@{instance}.service"))


def open_files(host, instance):
    """The limits of what a process may open, soft and hard."""
    return host.ssh(f"grep '^Max open files' /proc/{main_pid(host, instance)}/limits").split()[3:5]


def until_ready(instance):
    """A command that ends when the instance answers: its socket takes connections all the time, so this waits for a process that accepts."""
    ask = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{3131 + instance}/readyz', timeout=30)"
    return f'python3 -c "{ask}"'


def other_binary(binary, name, more):
    path = hosts.RUN / name
    path.write_bytes(binary.read_bytes() + more)
    path.chmod(0o755)
    return path


def crashing_binary():
    """Its configuration is right, it says so, and it dies as soon as it is to serve."""
    path = hosts.RUN / "crashing"
    path.write_text('#!/bin/sh\n[ "$1" = serve ] || exec /opt/stickyport/current/stickyport "$@"\nkill -SEGV $$\n')
    path.chmod(0o755)
    return path


def spoiled_repository(file, right, wrong):
    """A repository in which somebody has just mistyped a line."""
    path = hosts.RUN / "spoiled"
    shutil.rmtree(path, ignore_errors=True)
    for folder in ("ansible", "nginx", "systemd"):
        shutil.copytree(hosts.root.REPOSITORY / folder, path / folder)
    text = (path / file).read_text()
    assert right in text, f"{file} does not say {right}"
    (path / file).write_text(text.replace(right, wrong))
    return path


def chosen(lab, words):
    """The scenarios whose names contain one of the words, and always the first, without which there is nothing."""
    Scenarios.lab = lab
    words = [word for word in words if not word.startswith("--")]
    # In the order of the file.
    names = [name for name in vars(Scenarios) if name.startswith("test_")]
    return [Scenarios(name) for name in names if not words or name.startswith("test_1_") or any(word in name for word in words)]
