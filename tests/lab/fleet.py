"""The driver's side of fleet.mjs: asks the clients for facts, and waits for what is to become true of them."""

import json
import queue
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).with_name("fleet.mjs")


@dataclass(repr=False)
class Client:
    """What there is to know of one client since the last mark; fleet.mjs says what the words mean."""

    number: int
    kind: str
    network: int
    node: int
    since: float
    connected: bool
    connects: int
    disconnects: list
    errors: list
    acknowledged: int
    repeated: int
    lost: list
    cut: list
    twice: list
    refusals: list
    transport: str

    def __repr__(self):
        """What is worth reading: no empty lists, and of long ones the beginning."""
        worth = {name: value[:4] if isinstance(value, list) else value for name, value in vars(self).items() if value != []}
        return f"Client({', '.join(f'{name}={value}' for name, value in worth.items())})"


class Fleet:
    def __init__(self, log):
        self.process = subprocess.Popen(["node", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(log, "w"), text=True)
        self.happened = queue.Queue()
        self.answers = {}
        self.last = 0
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            said = json.loads(line)
            if "event" in said:
                self.happened.put(said)
            else:
                self.answers[said["id"]].put(said)
        for waiting in self.answers.values():
            waiting.put({"error": "the fleet is gone"})

    def ask(self, what, timeout=60, /, **wish):
        self.last += 1
        answer = self.answers[self.last] = queue.Queue()
        self.process.stdin.write(json.dumps({"id": self.last, "ask": what, **wish}) + "\n")
        self.process.stdin.flush()
        try:
            said = answer.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"the fleet did not answer `{what}` within {timeout} s") from None
        if "error" in said:
            raise AssertionError(f"the fleet could not `{what}`: {said['error']}")
        return said.get("answer")

    def start(self, url, clients, pace):
        self.ask("start", url=url, clients=clients, pace=pace)
        self.until("every client is connected", lambda found: len(found) == clients and all(client.connected for client in found))
        self.exchange(2)

    def clients(self):
        return [Client(**facts) for facts in self.ask("facts")]

    def mark(self):
        self.ask("mark")

    def exchange(self, count, timeout=60):
        """Until each client that is connected now has had that many more of its messages acknowledged."""
        self.ask("exchange", timeout, count=count)

    def replace(self, every):
        """Every so manieth client goes, and another one comes from the same address."""
        self.mark()
        self.ask("replace", every=every)
        self.until("the new clients are connected", lambda found: all(client.connected and client.connects == 1 for client in found if client.number % every == 0))
        return [client for client in self.clients() if client.number % every == 0]

    def until(self, what, holds, timeout=60):
        """Waits until `holds` of the clients, looking again whenever one of them comes or goes; returns them."""
        deadline = time.monotonic() + timeout
        while True:
            clients = self.clients()
            if holds(clients):
                return clients
            try:
                self.happened.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not within {timeout} s: {what}; {self.summary()}") from None
            # What happened meanwhile needs no look of its own.
            while not self.happened.empty():
                self.happened.get_nowait()

    def summary(self):
        clients = self.clients()
        away = [client for client in clients if not client.connected]
        return f"{len(clients) - len(away)} of {len(clients)} clients are connected" + (f"; not so {away[0]}" if away else "")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)
