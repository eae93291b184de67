"""Who is where: the nodes of the fleet, and the slots that they have in nginx's pool."""

import hashlib
import math
import re

FIRST_PORT = 3131
INSTANCES_PER_HOST = 32


def nodes(hosts, hostvars):
    """Every instance that the inventory asks for, sorted by its number in the fleet."""
    found = []
    for host in hosts:
        known = hostvars[host]
        for instance in range(int(known["stickyport_instances_per_host"])):
            found.append(node(instance, host, address(host, hostvars), int(known["stickyport_host_id"])))
    return sorted(found, key=lambda each: each["node"])


def address(host, hostvars):
    """Where the others reach a host: where ansible does, unless the inventory says otherwise; empty if it says nothing at all."""
    known = hostvars[host]
    return str(known.get("stickyport_address", known.get("ansible_host", "")))


def node(instance, host, address, host_id):
    """What everybody derives alike from a host's fixed number and an instance's."""
    return {
        "node": host_id * INSTANCES_PER_HOST + instance,
        "host": host,
        "instance": instance,
        "address": address,
        "port": FIRST_PORT + instance,
    }


def slots(kept, live, size=0):
    """The pool's slots, each the number of a node or None: those that exist stay where they are, new ones take a free place.

    A place is free that nobody ever had, and after these one whose node is not live; only when there is neither does the table grow. A node that
    comes back finds its own place, so scaling in and out again moves nobody. With another `size`, which is at least as many as are live, the table is made anew.
    """
    kept = list(kept or [])
    size = int(size)
    if not kept or (size and size != len(kept)):
        kept = [None] * (size or 2 * len(live))
    for number in live:
        if number in kept:
            continue
        free = [slot for slot, owner in enumerate(kept) if owner is None] or [slot for slot, owner in enumerate(kept) if owner not in live]
        if not free:
            free = [len(kept)]
            kept.extend([None] * len(kept))
        kept[free[0]] = number
    return kept


def table(tables):
    """What all proxies are to have: of their tables the one that all of them can become without anybody's slot moving; None if there is no such.

    They differ when a run reached some proxies only. A table that came later has more slots, and owners where there were none.
    """
    return next((table for table in tables if all(is_before(other, table) for other in tables)), None) if tables else []


def is_before(earlier, later):
    return len(earlier) <= len(later) and all(owner in (None, later[slot]) for slot, owner in enumerate(earlier))


def chosen(text, host, count):
    """Which of a host's instances a list such as `app1,app2:3` means."""
    names = [name.strip() for name in text.split(",")]
    return [instance for instance in range(int(count)) if host in names or f"{host}:{instance}" in names]


def drained(nodes, text):
    """The numbers of the nodes that such a list means."""
    names = [name.strip() for name in text.split(",")]
    return [each["node"] for each in nodes if each["host"] in names or f"{each['host']}:{each['instance']}" in names]


def homeless(routed, hosts, hostvars, dead=""):
    """Of nodes that sessions are led to those whose host the inventory no longer has, by the host's number; not of hosts that are said to be dead."""
    known = {str(int(hostvars[host]["stickyport_host_id"])) for host in hosts} | {number.strip() for number in str(dead).split(",")}
    numbers = sorted({node // INSTANCES_PER_HOST for node in routed})
    return {number: [node for node in routed if node // INSTANCES_PER_HOST == number] for number in numbers if str(number) not in known}


SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
BYTES = {"": 1, "B": 1, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


def seconds(text, default):
    """A length of time as the program's settings write it, in whole seconds, rounded up."""
    return math.ceil(measured(text, default, SECONDS))


def size(text, default):
    """A number of bytes as the program's settings write it."""
    return measured(text, default, BYTES)


def measured(text, default, units):
    """What the text says; the default where there is none, or it is mistyped, which the program itself says in better words when it is asked."""
    written = re.fullmatch(r"(\d+) *([A-Za-z]*)", str(text))
    if not written or written[2] not in units:
        written = re.fullmatch(r"(\d+) *([A-Za-z]*)", default)
    return int(written[1]) * units[written[2]]


def differing(contents, checksums):
    """Those of some files that a host has otherwise, by what it says of them: the checksum, or nothing where there is none."""
    return {path: content for path, content in contents.items() if checksums[path] != (hashlib.sha256(content.encode()).hexdigest() if content else "")}


def sentence(finding):
    """What `stickyport check` has found, for an operator whose settings are in the inventory."""
    place = finding["file"].replace("/dev/stdin", "stickyport_config")
    return f"{place}: {finding['value']}: {finding['effect']}; {finding['mend']}"


class FilterModule:
    """What ansible looks for."""

    def filters(self):
        return {
            "stickyport_address": address,
            "stickyport_chosen": chosen,
            "stickyport_drained": drained,
            "stickyport_differing": differing,
            "stickyport_homeless": homeless,
            "stickyport_node": node,
            "stickyport_nodes": nodes,
            "stickyport_seconds": seconds,
            "stickyport_sentence": sentence,
            "stickyport_size": size,
            "stickyport_slots": slots,
            "stickyport_table": table,
        }
