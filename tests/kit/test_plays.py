"""What the playbooks decide: they run in a copy whose hosts are folders of this machine, and whose preflight has seen what a test says."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

REPOSITORY = pathlib.Path(__file__).parents[2]
# What stands for the parts that ask or change a whole host.
PART = """
- hosts: stickyport_app
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: stickyport, tasks_from: PART}
"""
STAND_INS = {
    "preflight.yml": "- hosts: localhost\n  gather_facts: false\n",
    "converge.yml": """
- hosts: stickyport_app
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {content: "{{ stickyport_release }}", dest: "{{ root }}/release"}
      check_mode: false
""",
    "roles/stickyport_nginx/tasks/configure.yml": """
- ansible.builtin.template: {src: "{{ item }}.conf.j2", dest: "{{ root }}/{{ item }}.conf"}
  loop: [pool, owners]
  check_mode: false
""",
    "values.yml": """
- hosts: stickyport_proxy
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: stickyport_nginx, tasks_from: values}
""",
    "write.yml": """
- hosts: stickyport_proxy
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: stickyport_nginx, tasks_from: "{{ part }}"}
      loop: [slots, configure]
      loop_control: {loop_var: part}
      vars: {stickyport_nginx_leaving: [], stickyport_nginx_draining: []}
""",
    "render.yml": """
- hosts: stickyport_proxy
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: stickyport_nginx, tasks_from: render}
""",
    "roles/stickyport_nginx/tasks/render.yml": """
- ansible.builtin.template: {src: "{{ item }}.conf.j2", dest: "{{ root }}/{{ item }}.conf"}
  loop: [listen, redirect, server, timeouts, limits, upstream-keepalive]
  check_mode: false
""",
    # A proxy that has no nginx yet.
    "roles/stickyport_nginx/files/stage.py": """
import json, sys
asked = json.load(sys.stdin)
seen = {"program": False, "active": False, "included": False, "unread": False, "stale": False, "foreign": [], "refusal": "", "printed": "", "files": {}}
print(json.dumps(seen | {"differs": sorted(asked["files"]), "left": sorted(asked["left"]), "surplus": asked["removed"]}))
""",
    "cluster.yml": PART.replace("PART", "cluster"),
    "told.yml": PART.replace("PART", "told"),
    "roles/stickyport/tasks/told.yml": """
- ansible.builtin.template: {src: instance.toml.j2, dest: "{{ root }}/0.toml"}
  vars: {stickyport_instance: 0}
  check_mode: false
""",
    "roles/stickyport/tasks/install.yml": "- ansible.builtin.meta: noop\n",
    # What becomes of an instance, a line each.
    "roles/stickyport/tasks/instance.yml": """
- ansible.builtin.shell: "echo up {{ stickyport_instance }} >>{{ root }}/happened"
  check_mode: false
""",
    "roles/stickyport/tasks/drain.yml": """
- ansible.builtin.shell: "for each in {{ stickyport_emptied | join(' ') }}; do echo down $each >>{{ root }}/happened; done"
  check_mode: false
""",
    "roles/stickyport_nginx/tasks/install.yml": "- ansible.builtin.meta: noop\n",
    "roles/stickyport/tasks/stay.yml": "- ansible.builtin.set_fact: {stickyport_release: a}\n",
    "roles/stickyport/tasks/prune.yml": "- ansible.builtin.meta: noop\n",
    # deploy.yml without what it uploads: it begins, all goes well, and it is finished.
    "begin.yml": PART.replace("PART", "begin"),
    "finish.yml": PART.replace("PART", "finish"),
}

# What preflight sees of an instance.
UP, DOWN = {"enabled": True, "serves": True}, {"enabled": False, "serves": False}
# An ssh that goes nowhere, and counts how often it went.
SSH = """#!/bin/sh
echo "trip $@" | head -n 1 >>"${0%/*}/trips"
for command; do :; done
exec sh -c "$command"
"""


class Limits(unittest.TestCase):
    def test_a_run_for_some_hosts_is_refused(self):
        with Fleet() as fleet:
            for limit in ("app2", "app1,app2", "stickyport_proxy"):
                said = fleet.play("drain.yml", "-e", "stickyport_drain=app2", "--limit", limit, real=["preflight.yml"]).refused()
                self.assertIn("run it without --limit", said)

    def test_one_without_redis_is_refused_too(self):
        with Fleet() as fleet:
            fleet.inventory["stickyport_redis"] = {"hosts": {"cache": {"ansible_host": "10.0.0.9"}}}
            said = fleet.play("deploy.yml", "--limit", "stickyport_app,stickyport_proxy", real=["preflight.yml"]).refused()
            self.assertIn("cache would be left out, and nothing was touched: run it without --limit", said)

    def test_a_drain_that_takes_longer_than_it_may_is_refused(self):
        with Fleet() as fleet:
            fleet.host("app2")["stickyport_config"] = {"drain_timeout": "1m"}
            said = fleet.play("drain.yml", "-e", "stickyport_drain=app2", real=["preflight.yml"]).refused()
            self.assertIn("app2: stickyport_drain_wait is 60 s, and a drain takes drain_timeout, 60 s: set it to 90.", said)

    def test_an_inventory_without_the_groups_is_refused(self):
        with Fleet() as fleet:
            fleet.inventory = {"servers": fleet.inventory["stickyport_app"]}
            said = fleet.play("deploy.yml", real=["preflight.yml"]).refused()
            self.assertIn("The inventory has no host in the group stickyport_app: add one.", said)


class Draining(unittest.TestCase):
    def test_who_was_drained_before_stays_so(self):
        with Fleet() as fleet:
            fleet.host("app2")["stickyport_seen"]["instances"]["0"] = DOWN
            fleet.play("drain.yml", "-e", "stickyport_drain=app2:1").done()
            self.assertEqual(fleet.slots(), {"10.0.0.1:3131": "live", "10.0.0.1:3132": "live", "10.0.0.2:3131": "down", "10.0.0.2:3132": "down"})

    def test_who_is_to_come_gets_no_clients_yet(self):
        with Fleet() as fleet:
            for host in ("app1", "app2"):
                fleet.host(host)["stickyport_instances_per_host"] = 3
                fleet.host(host)["stickyport_seen"]["instances"]["2"] = DOWN
            fleet.play("drain.yml", "-e", "stickyport_drain=app2:1").done()
            self.assertEqual([address for address, state in fleet.slots().items() if state == "live"], ["10.0.0.1:3131", "10.0.0.1:3132", "10.0.0.2:3131"])

    def test_sessions_of_instances_that_are_to_go_find_them_still(self):
        with Fleet() as fleet:
            leaving = {"node": 2, "host": "app1", "instance": 2, "address": "10.0.0.1", "port": 3133}
            fleet.host("app1")["stickyport_leaving_nodes"] = [leaving]
            fleet.play("drain.yml", "-e", "stickyport_drain=app2:1").done()
            self.assertIn("upstream stickyport_2 { server 10.0.0.1:3133;", (fleet.root("proxy1") / "owners.conf").read_text())


class Drained(unittest.TestCase):
    """What the other playbooks do with instances that stickyport_drain names: deploy, scale and rollback go on alike."""

    CONVERGE = ["converge.yml", "roles/stickyport/tasks/retire.yml"]

    def test_it_stays_so_while_the_others_are_scaled(self):
        with Fleet() as fleet:
            fleet.host("app2")["stickyport_seen"]["instances"] = {"0": UP, "1": DOWN}
            for host in ("app1", "app2"):
                fleet.host(host)["stickyport_instances_per_host"] = 3
                fleet.host(host)["stickyport_seen"]["instances"]["2"] = DOWN
            self.scale(fleet, "-e", "stickyport_drain=app2:1")
            self.assertEqual([fleet.happened("app1"), fleet.happened("app2")], [["up 2"], ["up 2"]])
            self.assertEqual([address for address, state in fleet.slots().items() if state == "down"], ["10.0.0.2:3132"])

    def test_it_is_emptied_and_stopped_if_it_runs(self):
        with Fleet() as fleet:
            self.scale(fleet, "-e", "stickyport_drain=app2:1")
            self.assertEqual([fleet.happened("app1"), fleet.happened("app2")], [[], ["down 1"]])

    def test_it_comes_back_when_nobody_names_it(self):
        with Fleet() as fleet:
            fleet.host("app2")["stickyport_seen"]["instances"]["1"] = DOWN
            self.scale(fleet)
            self.assertEqual(fleet.happened("app2"), ["up 1"])
            self.assertEqual(set(fleet.slots().values()), {"live"})

    def test_one_that_the_inventory_does_not_have_is_refused(self):
        with Fleet() as fleet:
            for name in ("app3", "app2:2", "app2:x"):
                said = fleet.play("scale.yml", "-e", f"stickyport_drain={name}", real=["preflight.yml"]).refused()
                self.assertIn(f"stickyport_drain names {name}, which the inventory does not have", said)

    def test_to_drain_nothing_is_refused(self):
        with Fleet() as fleet:
            self.assertIn("Which is to be drained?", fleet.play("drain.yml").refused())

    def scale(self, fleet, *arguments):
        fleet.play("scale.yml", *arguments, real=self.CONVERGE, changes=True).done()


class Proxies(unittest.TestCase):
    """Several of them place every client alike."""

    def test_all_have_the_same_pool(self):
        with Fleet() as fleet:
            fleet.add_proxy("proxy2", "10.0.0.4")
            fleet.play("drain.yml", "-e", "stickyport_drain=app2:1").done()
            self.assertEqual(fleet.pool("proxy2"), fleet.pool("proxy1"))

    def test_one_that_joins_takes_over_the_slots(self):
        with Fleet() as fleet:
            fleet.kept_slots("proxy1", [None, 33, 1, 32, 0, None])
            fleet.add_proxy("proxy2", "10.0.0.4")
            fleet.play("drain.yml", "-e", "stickyport_drain=app2:1").done()
            self.assertEqual([line.split()[1] for line in fleet.pool("proxy2")][1:5], ["10.0.0.2:3132", "10.0.0.1:3132", "10.0.0.2:3131", "10.0.0.1:3131"])
            self.assertEqual(fleet.pool("proxy2"), fleet.pool("proxy1"))

    def test_where_a_run_reached_only_one_the_other_follows(self):
        with Fleet() as fleet:
            fleet.add_proxy("proxy2", "10.0.0.4")
            fleet.kept_slots("proxy1", [0, 1, 32, None])
            fleet.kept_slots("proxy2", [0, 1, 32, 33])
            fleet.play("drain.yml", "-e", "stickyport_drain=app2:1").done()
            self.assertEqual(len(fleet.pool("proxy1")), 4)
            self.assertEqual(fleet.pool("proxy2"), fleet.pool("proxy1"))

    def test_where_they_contradict_each_other_nothing_is_touched(self):
        with Fleet() as fleet:
            fleet.add_proxy("proxy2", "10.0.0.4")
            fleet.kept_slots("proxy1", [0, 1, 32, 33])
            fleet.kept_slots("proxy2", [1, 0, 32, 33])
            said = fleet.play("drain.yml", "-e", "stickyport_drain=app2:1").refused()
            self.assertIn("slots.json has a slot that is one instance's on one proxy and another's on another", said)
            self.assertFalse((fleet.root("proxy1") / "pool.conf").exists())

    def test_on_a_host_of_instances_the_order_is_the_same_though_it_reaches_its_own_through_sockets(self):
        with Fleet() as fleet:
            fleet.inventory["stickyport_proxy"]["hosts"] = {host: {"stickyport_nginx_unix": True} for host in ("app1", "app2")}
            fleet.play("drain.yml", "-e", "stickyport_drain=app2:1").done()
            first, second = ([line.split()[1] for line in fleet.pool(host)][:4] for host in ("app1", "app2"))
            self.assertEqual(first, ["unix:/run/stickyport/0.sock", "unix:/run/stickyport/1.sock", "10.0.0.2:3131", "10.0.0.2:3132"])
            self.assertEqual(second, ["10.0.0.1:3131", "10.0.0.1:3132", "unix:/run/stickyport/0.sock", "unix:/run/stickyport/1.sock"])


class Rest(unittest.TestCase):
    """Who restarts no instance gives nginx nothing that follows their settings."""

    ROUTES = "nginx, and stickyport/pool.conf, stickyport/owners.conf, stickyport/web.conf, stickyport/routing.conf, stickyport/slots.json\""

    def test_to_drain_writes_where_clients_go_and_leaves_the_rest(self):
        with Fleet() as fleet:
            said = fleet.play("drain.yml", "-e", "stickyport_drain=app2:1", real=["roles/stickyport_nginx/tasks/configure.yml"]).done()
            self.assertIn(self.ROUTES, said)
            self.assertRegex(said, "/etc/nginx/stickyport/timeouts.conf .*is left as it is: deploy.yml writes it")

    def test_to_scale_is_refused_where_the_rest_would_be_another(self):
        with Fleet() as fleet:
            said = fleet.play("scale.yml", real=["converge.yml", "roles/stickyport_nginx/tasks/configure.yml"]).refused()
            self.assertRegex(said, "/etc/nginx/stickyport/timeouts.conf .*nothing was changed: run deploy.yml, which scales, too")

    def test_to_deploy_writes_all(self):
        with Fleet() as fleet:
            said = fleet.play("write.yml", real=["roles/stickyport_nginx/tasks/configure.yml"]).done()
            self.assertIn("stickyport/timeouts.conf", said)
            self.assertNotIn("deploy.yml writes it", said)


class Pool(unittest.TestCase):
    def test_more_instances_than_slots_are_refused(self):
        with Fleet() as fleet:
            fleet.host("proxy1")["stickyport_nginx_pool_slots"] = 3
            said = fleet.play("drain.yml", "-e", "stickyport_drain=app2:1").refused()
            self.assertIn("stickyport_nginx_pool_slots is 3, and there are 4 instances: set it to 8", said)


class Nobody(unittest.TestCase):
    def test_to_drain_all_is_refused(self):
        with Fleet() as fleet:
            said = fleet.play("drain.yml", "-e", "stickyport_drain=app1,app2").refused()
            self.assertIn("No instance would be left for new clients, and nothing was changed: name fewer in stickyport_drain", said)


class Status(unittest.TestCase):
    def test_a_host_that_is_down_hides_none_of_the_others(self):
        with Fleet() as fleet:
            fleet.host("app1").update({"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1})
            # That there is no nginx here to be seen is not what this is about.
            said = fleet.play("status.yml").refused()
            self.assertRegex(said, r'ok: \[app1\] => \{\s+"msg": \[\s+"cannot be reached"')
            self.assertRegex(said, r'ok: \[app2\] => \{\s+"msg": \[\s+"(instance|releases) ')
            self.assertIn('"msg": "app1 cannot be reached."', said)
            self.assertNotIn('"msg": "app2 cannot be reached."', said)


class Connections(unittest.TestCase):
    def test_a_task_is_one_round_trip_whatever_the_inventory_and_the_folder(self):
        with Fleet() as fleet:
            ssh = fleet.folder / "ssh"
            ssh.write_text(SSH)
            ssh.chmod(0o755)
            for host in ("app1", "app2", "proxy1"):
                fleet.host(host).update({"ansible_connection": "ssh", "ansible_ssh_executable": str(ssh)})
            fleet.play("status.yml")
            self.assertEqual((fleet.folder / "trips").read_text().count("trip"), 3, "one look at each host")

    def test_a_host_that_died_is_noticed_on_a_connection_of_before_too(self):
        """And what the inventory says of the way to the hosts stays said."""
        with Fleet() as fleet:
            ssh = fleet.folder / "ssh"
            ssh.write_text(SSH)
            ssh.chmod(0o755)
            fleet.inventory["all"] = {"vars": {"ansible_connection": "ssh", "ansible_ssh_executable": str(ssh), "ansible_ssh_common_args": "-J bastion"}}
            for host in ("app1", "app2", "proxy1"):
                del fleet.host(host)["ansible_connection"]
            fleet.play("status.yml")
            for trip in (fleet.folder / "trips").read_text().splitlines():
                self.assertRegex(trip, "-o ControlPersist=60s .*-J bastion .*-o ServerAliveInterval=5 -o ServerAliveCountMax=2 ")


class Balancer(unittest.TestCase):
    def test_somebody_has_to_be_believed_but_not_everybody(self):
        with Fleet() as fleet:
            fleet.host("proxy1")["stickyport_nginx_front"] = "alb"
            self.assertIn("stickyport_nginx_front_networks is empty: give it the balancer's subnets", fleet.play("values.yml").refused())
            for networks in (["10.0.0.0/24", "0.0.0.0/0"], ["::/0"]):
                fleet.host("proxy1")["stickyport_nginx_front_networks"] = networks
                self.assertIn("stickyport_nginx_front_networks believes everybody", fleet.play("values.yml").refused())
            fleet.host("proxy1")["stickyport_nginx_front_networks"] = ["10.0.0.0/24"]
            fleet.play("values.yml").done()

    def test_an_https_that_nobody_speaks_is_said(self):
        with Fleet() as fleet:
            fleet.host("app1")["stickyport_config"] = {"public_url": "https://chat.example.org"}
            self.assertIn("WARNING: public_url is https://chat.example.org, and proxy1 speaks plain HTTP", fleet.play("values.yml").done())
            fleet.host("proxy1")["stickyport_nginx_tls"] = {"certificate": "/c.pem", "key": "/k.pem"}
            self.assertNotIn("WARNING", fleet.play("values.yml").done())

    def test_every_port_that_a_network_balancer_leads_to_takes_the_proxy_protocol(self):
        with Fleet() as fleet:
            tls = {"certificate": "/c.pem", "key": "/k.pem"}
            fleet.host("proxy1").update({"stickyport_nginx_front": "nlb", "stickyport_nginx_front_networks": ["10.0.0.0/24"], "stickyport_nginx_tls": tls})
            self.assertEqual(fleet.rendered("listen", "listen "), ["listen 443 ssl default_server proxy_protocol backlog=4096;", "listen [::]:443 ssl default_server proxy_protocol backlog=4096;"])
            self.assertEqual(fleet.rendered("redirect", "listen "), ["listen 80 default_server proxy_protocol;", "listen [::]:80 default_server proxy_protocol;"])

    def test_beside_other_sites_it_has_its_names_and_no_others(self):
        with Fleet() as fleet:
            fleet.host("proxy1").update({"stickyport_nginx_server_name": "chat.example.org", "stickyport_nginx_tls": {"certificate": "/c.pem", "key": "/k.pem"}})
            self.assertEqual(fleet.rendered("listen", ("listen ", "server_name ")), ["listen 443 ssl backlog=4096;", "listen [::]:443 ssl backlog=4096;", "server_name chat.example.org;"])
            self.assertEqual(fleet.rendered("redirect", ("listen ", "server_name ")), ["listen 80;", "listen [::]:80;", "server_name chat.example.org;"])

    def test_hsts_is_what_the_inventory_says(self):
        with Fleet() as fleet:
            fleet.host("proxy1")["stickyport_nginx_tls"] = {"certificate": "/c.pem", "key": "/k.pem", "hsts": 3600}
            self.assertEqual(fleet.rendered("listen", "add_header "), ['add_header Strict-Transport-Security "max-age=3600" always;'])


class Releases(unittest.TestCase):
    """They are called by their age: a is the oldest."""

    def test_the_last_three_are_kept(self):
        with Fleet() as fleet:
            fleet.releases("abcde", current="d", previous="c")
            self.finish(fleet, "e")
            self.assertEqual([fleet.kept("app1"), fleet.kept("app2")], [set("cde")] * 2)

    def test_one_that_is_used_is_kept_however_old_it_is(self):
        with Fleet() as fleet:
            fleet.releases("abcdef", current="e", previous="b")
            instances = fleet.root("app1") / "opt/stickyport/instances"
            instances.mkdir()
            (instances / "0").symlink_to("../releases/a")
            self.finish(fleet, "f")
            self.assertEqual([fleet.kept("app1"), fleet.kept("app2")], [set("adef"), set("def")])

    def test_one_that_never_came_to_run_on_all_instances_takes_nobodys_place(self):
        with Fleet() as fleet:
            fleet.releases("abcdefgh", ran="abch", current="c", previous="b")
            self.finish(fleet, "h")
            self.assertEqual([fleet.kept("app1"), fleet.kept("app2")], [set("bch")] * 2)

    def test_one_that_the_fleet_went_back_to_is_one_of_the_last(self):
        with Fleet() as fleet:
            fleet.releases("abcde", current="e", previous="d")
            self.finish(fleet, "a")
            self.assertEqual(fleet.kept("app1"), set("aed"))

    def finish(self, fleet, release):
        fleet.deploy("finish", release, real=["roles/stickyport/tasks/prune.yml"])


class Settings(unittest.TestCase):
    def test_nginx_follows_what_the_instances_are_told(self):
        with Fleet() as fleet:
            engine = {"ping_interval": "1m", "ping_timeout": "500ms", "max_payload": "5MB", "path": "/chat"}
            for host in ("app1", "app2"):
                fleet.host(host)["stickyport_config"] = {"engine": engine, "limits": {"keep_alive": "30s"}}
            self.assertEqual(fleet.rendered("timeouts", ("proxy_read", "keepalive")), ["proxy_read_timeout 71s;", "keepalive_timeout 91s;"])
            self.assertEqual(fleet.rendered("limits", "client_max_body_size"), ["client_max_body_size 5m;"])
            self.assertEqual(fleet.rendered("upstream-keepalive", "keepalive_timeout"), ["keepalive_timeout 15s;"])
            self.assertIn("location /chat/ {", fleet.rendered("server", "location"))

    def test_the_instances_are_told_of_the_redis_that_the_inventory_has(self):
        with Fleet() as fleet:
            fleet.inventory["stickyport_redis"] = {"hosts": {"cache": {"ansible_host": "2001:db8::9", "stickyport_redis_password": "secret", "stickyport_redis_port": 7000}}}
            fleet.host("app1")["stickyport_config"] = {"redis": {"request_timeout": "2s"}}
            fleet.play("told.yml").done()
            told = (fleet.root("app1") / "0.toml").read_text()
            self.assertIn('[redis]\nurl = "redis://stickyport:secret@[2001:db8::9]:7000"\nprefix = "socket.io"\nrequest_timeout = "2s"', told)

    def test_redis_is_asked_from_each_host_and_an_error_ends_the_play(self):
        with Fleet() as fleet:
            fleet.releases(names="a")
            for host in ("app1", "app2"):
                fleet.host(host)["stickyport_config"] = {"redis": {"url": "redis://10.0.0.9"}}
                program = fleet.root(host) / "opt/stickyport/releases/a/stickyport"
                program.write_text("#!/bin/sh\n[ \"$1 $2 $3\" = 'check --json --config' ] && grep -q 'url = \"redis://10.0.0.9\"' && cat ${0%/*}/said || exit 64\n")
                program.chmod(0o755)
                program.with_name("said").write_text('{"findings": []}')
            asked = ("cluster.yml", "-e", "stickyport_release=a")
            fleet.play(*asked, changes=True).done()
            finding = {"severity": "warning", "file": "redis 7 at 10.0.0.9", "line": 0, "value": "it takes 60ms", "effect": "it is slow", "mend": "nearer"}
            said = fleet.root("app2") / "opt/stickyport/releases/a/said"
            said.write_text(json.dumps({"findings": [finding]}))
            self.assertIn("redis 7 at 10.0.0.9: it takes 60ms: it is slow; nearer", fleet.play(*asked, changes=True).done())
            said.write_text(json.dumps({"findings": [finding | {"severity": "error", "file": "/dev/stdin"}, finding | {"severity": "note", "value": "unseen"}]}))
            output = fleet.play(*asked, changes=True).refused()
            self.assertIn("app2: no instance was restarted: stickyport_config: it takes 60ms: it is slow; nearer. To go on", output)
            self.assertNotIn("unseen", output)
            fleet.play(*asked, "-e", "stickyport_ask_redis=false", changes=True).done()
            # What cannot be asked is said, and what need not be is not.
            said.unlink()
            self.assertIn("the release cannot be asked about Redis", fleet.play(*asked, changes=True).done())
            fleet.host("app2")["stickyport_config"] = {}
            self.assertNotIn("cannot be asked", fleet.play(*asked, changes=True).done())

    def test_a_deploy_asks_redis_before_it_touches_an_instance(self):
        parts = (REPOSITORY / "ansible/deploy.yml").read_text().split("\n- name: ")
        at = {part: [number for number, play in enumerate(parts) if part in play] for part in ("tasks_from: release", "tasks_from: install", "tasks_from: cluster", "converge.yml")}
        [asked], [converged] = at["tasks_from: cluster"], at["converge.yml"]
        # Of the release that is on the hosts, about a Redis that is up.
        self.assertLess(max(at["tasks_from: release"] + at["tasks_from: install"]), asked)
        self.assertLess(asked, converged)
        self.assertIn("hosts: stickyport_app\n", parts[asked])
        self.assertIn("any_errors_fatal: true\n", parts[asked])


class Rollback(unittest.TestCase):
    """Releases are called by their age: a is the oldest."""

    def test_it_goes_to_the_release_of_before(self):
        with Fleet() as fleet:
            fleet.releases(current="b", previous="a")
            self.assertEqual(fleet.back(), {"a"})

    def test_one_that_does_not_take_todays_settings_or_does_not_run_is_no_way_back(self):
        with Fleet() as fleet:
            fleet.releases(current="b", previous="a")
            program = fleet.root("app2") / "opt/stickyport/releases/a/stickyport"
            program.write_text("#!/bin/sh\n[ \"$1 $2\" = 'check-config --config' ] && grep -q '^node = 32' $3 && echo no such key >&2 && exit 64\n")
            refused = "app2: release a does not take stickyport_config, and nothing that runs was touched: no such key"
            self.assertIn(refused, fleet.play("rollback.yml").refused())
            self.assertIn(refused, fleet.play("rollback.yml", changes=True).refused())
            program.write_text("hello\n")
            self.assertIn("app2: release a does not run there, and nothing that runs was touched: it is for another machine, or no program", fleet.play("rollback.yml").refused())
            self.assertFalse((fleet.root("app1") / "release").exists(), "nothing came after it")

    def test_a_deploy_that_began_is_undone_and_no_more(self):
        with Fleet() as fleet:
            fleet.releases(current="b", previous="a")
            fleet.deploy("begin", "c")
            self.assertEqual(fleet.links("app1"), {"current": "b", "previous": "a", "next": "c"})
            (fleet.root("app2") / "opt/stickyport/next").unlink()
            self.assertEqual(fleet.back(), {"b"})
            fleet.deploy("finish", "b")
            self.assertEqual([fleet.links(host) for host in ("app1", "app2")], [{"current": "b", "previous": "a"}] * 2)

    def test_a_deploy_that_was_finished_is_undone(self):
        with Fleet() as fleet:
            fleet.releases(current="b", previous="a")
            fleet.deploy("begin", "c")
            fleet.deploy("finish", "c")
            self.assertEqual(fleet.links("app2"), {"current": "c", "previous": "b"})
            self.assertEqual(fleet.back(), {"b"})

    def test_a_rollback_that_broke_off_is_tried_again(self):
        with Fleet() as fleet:
            fleet.releases(current="c", previous="b")
            self.assertEqual(fleet.back(), {"b"})
            fleet.deploy("finish", "b", "--limit", "app1")
            self.assertIn("app1 would run release c and app2 would run release b", fleet.play("rollback.yml").refused())
            self.assertEqual(fleet.back("-e", "stickyport_back_to=b"), {"b"})

    def test_to_scale_finishes_nothing(self):
        with Fleet() as fleet:
            fleet.releases(current="b", previous="a")
            fleet.deploy("begin", "c")
            fleet.deploy("finish", "b", "-e", "stickyport_only_missing=true")
            self.assertEqual(fleet.links("app1"), {"current": "b", "previous": "a", "next": "c"})

    def test_what_was_deployed_already_begins_nothing(self):
        with Fleet() as fleet:
            fleet.releases(current="b", previous="a")
            fleet.deploy("begin", "b")
            self.assertEqual(fleet.links("app1"), {"current": "b", "previous": "a"})


class Fleet:
    """Two application hosts and a proxy, each a folder."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="stickyport-plays-"))
        self.inventory = {"stickyport_app": {"hosts": {}}, "stickyport_proxy": {"hosts": {}}}
        for group, number, host in (("stickyport_app", 0, "app1"), ("stickyport_app", 1, "app2"), ("stickyport_proxy", 2, "proxy1")):
            root = self.root(host)
            root.mkdir()
            known = {"ansible_connection": "local", "ansible_become": False, "ansible_host": f"10.0.0.{number + 1}", "root": str(root)}
            if group == "stickyport_app":
                known |= {"stickyport_host_id": number, "stickyport_instances_per_host": 2, "stickyport_leaving": [], "stickyport_leaving_nodes": []}
                known["stickyport_seen"] = {"bare": False, "current": "", "next": "", "instances": {str(each): UP for each in range(2)}}
            self.inventory[group]["hosts"][host] = known

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def root(self, host):
        return self.folder / host

    def host(self, name):
        """What the inventory says of a host."""
        return next(group["hosts"][name] for group in self.inventory.values() if name in group["hosts"])

    def slots(self):
        """Which instances the pool has, and whether they get new clients."""
        lines = [line.split() for line in (self.root("proxy1") / "pool.conf").read_text().splitlines() if line.lstrip().startswith("server 10.")]
        return {line[1]: "down" if line[-1] == "down;" else "live" for line in lines}

    def rendered(self, template, start):
        """The lines of a template on the proxy that start so."""
        self.play("render.yml").done()
        lines = (self.root("proxy1") / f"{template}.conf").read_text().splitlines()
        return [line.strip() for line in lines if line.strip().startswith(start)]

    def pool(self, proxy):
        """The lines of a proxy's slots."""
        return [line for line in (self.root(proxy) / "pool.conf").read_text().splitlines() if line.startswith("    server ")]

    def kept_slots(self, proxy, table):
        path = self.root(proxy) / "etc/nginx/stickyport/slots.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(table))

    def add_proxy(self, name, address):
        self.root(name).mkdir()
        of = self.host("proxy1") | {"ansible_host": address, "root": str(self.root(name))}
        self.inventory["stickyport_proxy"]["hosts"][name] = of

    def happened(self, host):
        """What became of its instances."""
        path = self.root(host) / "happened"
        return path.read_text().splitlines() if path.exists() else []

    def kept(self, host):
        return {path.name for path in (self.root(host) / "opt/stickyport/releases").iterdir()}

    def releases(self, names="abc", ran=None, **links):
        """Which there are on all application hosts, the oldest first, which of them have run, all of them if it is not said, and what the links point to."""
        for host in self.inventory["stickyport_app"]["hosts"]:
            opt = self.root(host) / "opt/stickyport"
            for age, release in enumerate(names):
                (opt / "releases" / release).mkdir(parents=True, exist_ok=True)
                program = opt / "releases" / release / "stickyport"
                program.write_text("#!/bin/sh\nexec cat >&2\n")
                program.chmod(0o755)
                if ran is None or release in ran:
                    (opt / "releases" / release / "ran").touch()
                    os.utime(opt / "releases" / release / "ran", (age, age))
                os.utime(opt / "releases" / release, (age, age))
            for name, release in links.items():
                (opt / name).symlink_to(f"releases/{release}")

    def links(self, host):
        return {link.name: os.path.basename(os.readlink(link)) for link in (self.root(host) / "opt/stickyport").iterdir() if link.is_symlink()}

    def deploy(self, part, release, *arguments, real=()):
        for host in self.inventory["stickyport_app"]["hosts"]:
            self.host(host)["stickyport_seen"] |= {"current": "", "next": ""} | {name: f"releases/{to}" for name, to in self.links(host).items()}
        self.play(f"{part}.yml", "-e", f"stickyport_release={release}", *arguments, real=real, changes=True).done()

    def back(self, *arguments):
        """Which releases the hosts go back to."""
        self.play("rollback.yml", *arguments).done()
        return {(self.root(host) / "release").read_text() for host in self.inventory["stickyport_app"]["hosts"]}

    def play(self, playbook, *arguments, real=(), changes=False):
        """Runs a playbook; `real` are the parts for which nothing stands in, which then must change nothing on this machine."""
        copy = self.folder / "ansible"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(REPOSITORY / "ansible", copy)
        for name, text in STAND_INS.items():
            if name not in real:
                (copy / name).write_text(text)
        for tasks in copy.glob("roles/*/tasks/*.yml"):
            text = tasks.read_text()
            for path in ("/etc/nginx/stickyport/slots.json", "/opt/stickyport"):
                text = text.replace(path, f"{self.folder}/{{{{ inventory_hostname }}}}{path}")
            tasks.write_text(text)
        hosts = self.folder / "hosts.json"
        hosts.write_text(json.dumps(self.inventory))
        command = [pathlib.Path(sys.executable).with_name("ansible-playbook"), "-i", hosts, copy / playbook, *([] if changes else ["--check"]), *arguments]
        environment = os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
        return Outcome(subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment))


class Outcome:
    """How a playbook ended."""

    def __init__(self, done):
        self.status, self.output = done.returncode, done.stdout

    def done(self):
        assert self.status == 0, self.output
        return self.output

    def refused(self):
        assert self.status != 0, self.output
        return self.output


if __name__ == "__main__":
    unittest.main()
