"""python-socketio's clients, the one for threads and the one for asyncio, against the examples and the demo, directly and through nginx."""

import asyncio
import json
import os
import subprocess
import unittest

import socketio

DEADLINE = 15
APPLICATIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib", "applications.mjs")
# What the servers are told for the serializer that the clients use.
SERVERS = {
    "default": {},
    "msgpack": {"flags": ["--parser", "msgpack"], "settings": ["socketio.parser=msgpack"]},
}
stages = {}


def setUpModule():
    for serializer, given in SERVERS.items():
        stages[serializer] = Stage(given)


def tearDownModule():
    for stage in stages.values():
        stage.end()


class Stage:
    """The applications, started in a process of their own."""

    def __init__(self, given):
        command = ["node", APPLICATIONS, json.dumps(given)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.place = json.loads(self.process.stdout.readline())

    def restart(self):
        print("restart", file=self.process.stdin, flush=True)
        return self.process.stdout.readline()

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


class Suite:
    """What holds for every client, way and transport; the classes below say which."""

    def setUp(self):
        self.clients = []

    async def asyncTearDown(self):
        for client in self.clients:
            await client.disconnect()

    def url(self, application):
        return stages[self.serializer].place["urls"][self.way][application]

    async def connected(self, application="conformance", namespaces=("/",), **options):
        client = self.client()
        await client.connect(self.url(application), namespaces=list(namespaces), transports=self.transports, **options)
        return client

    def client(self):
        client = self.kind(serializer=self.serializer)
        self.clients.append(client)
        return client

    async def test_connects_over_the_transport_asked_for(self):
        client = await self.connected()
        self.assertEqual(client.transport(), "websocket" if "websocket" in self.transports else "polling")
        self.assertRegex(client.get_sid(), r"^[A-Za-z0-9_-]{20}$")

    async def test_arguments_of_any_shape_come_back_as_they_went(self):
        client = await self.connected()
        everything = [None, True, 0, -1.5, "", 'Zeichen: äöü ☃ 💩 "\\\n\0', [], {}, [[[]]], {"a": {"b": [1, {"c": "d"}]}, "": 1}]
        await client.emit("message", tuple(everything))
        self.assertEqual(await client.receive("message-back"), everything)
        await client.emit("message")
        self.assertEqual(await client.receive("message-back"), [])

    async def test_binary_comes_back_from_wherever_it_was_nested(self):
        client = await self.connected()
        octets = bytes(range(256))
        nested = [octets, {"deep": [{"deeper": octets}, "text", b""]}, 7, b"\1" * 60_000]
        await client.emit("message", tuple(nested))
        self.assertEqual(await client.receive("message-back"), nested)

    async def test_the_server_acknowledges(self):
        client = await self.connected()
        self.assertEqual(list(await client.call("message-with-ack", (1, "2", {"3": [4]}))), [1, "2", {"3": [4]}])
        self.assertEqual(await client.call("message-with-ack", {"bytes": "ö".encode()}), {"bytes": "ö".encode()})

    async def test_the_client_acknowledges(self):
        client = self.client()
        client.answer("question", lambda *args: {"answerTo": list(args)})
        await client.connect(self.url("features"), namespaces=["/"], transports=self.transports)
        await client.emit("ask", (1, {"two": 2}))
        self.assertEqual(await client.receive("answer"), [{"answerTo": [1, {"two": 2}]}])
        await client.emit("ask", b"\1\2\3")
        self.assertEqual(await client.receive("answer"), [{"answerTo": [b"\1\2\3"]}])

    async def test_the_handshakes_auth_arrives(self):
        auth = {"token": "ä 123", "nested": [1]}
        client = await self.connected(namespaces=("/", "/custom"), auth=auth)
        self.assertEqual(await client.receive("auth"), [auth])
        self.assertEqual(await client.receive("auth", "/custom"), [auth])
        client = await self.connected()
        self.assertEqual(await client.receive("auth"), [{}])

    async def test_namespaces_share_a_connection_and_nothing_else(self):
        client = await self.connected(namespaces=("/", "/custom"))
        self.assertNotEqual(client.get_sid("/"), client.get_sid("/custom"))
        await client.emit("message", "only here", namespace="/custom")
        self.assertEqual(await client.receive("message-back", "/custom"), ["only here"])
        self.assertEqual(await client.call("message-with-ack", 1), 1)
        self.assertTrue(client.nothing_left("message-back"))

    async def test_an_unknown_namespace_is_refused(self):
        client = self.client()
        with self.assertRaises(socketio.exceptions.ConnectionError):
            await client.connect(self.url("conformance"), namespaces=["/unknown"], transports=self.transports)
        self.assertEqual(await client.receive("connect_error", "/unknown"), [{"message": "Invalid namespace"}])

    async def test_a_middleware_refuses_with_a_message_and_data(self):
        client = self.client()
        with self.assertRaises(socketio.exceptions.ConnectionError):
            await client.connect(self.url("features"), namespaces=["/guarded"], transports=self.transports, auth={"token": "wrong"})
        self.assertEqual(await client.receive("connect_error", "/guarded"), [{"message": "not authorized", "data": {"code": 401}}])
        await self.connected("features", namespaces=("/guarded",), auth={"token": "secret"})

    async def test_a_broadcast_reaches_everyone_in_the_namespace(self):
        one, two = await self.connected(), await self.connected()
        await one.emit("broadcast", ("to all", b"both"))
        self.assertEqual(await one.receive("broadcast"), ["to all", b"both"])
        self.assertEqual(await two.receive("broadcast"), ["to all", b"both"])

    async def test_events_arrive_in_the_order_in_which_they_were_sent(self):
        client = await self.connected()
        back = []
        # Ten at a time: this client gives up on a poll with more than 16 packets.
        for burst in range(0, 300, 10):
            for n in range(burst, burst + 10):
                await client.emit("message", {"n": n, "bytes": b"x"} if n % 50 == 0 else {"n": n})
            arrived = [(await client.receive("message-back"))[0]["n"] for _ in range(10)]
            # It runs each handler in a thread of its own, in whatever order these come to run.
            back += arrived if self.kind is Asyncio else sorted(arrived)
        self.assertEqual(back, list(range(300)))

    async def test_it_comes_back_by_itself_after_the_server_restarts(self):
        client = await self.connected("restarted", auth={"who": "me"})
        self.assertEqual(await client.receive("auth"), [{"who": "me"}])
        self.assertEqual(await asyncio.to_thread(stages[self.serializer].restart), "restarted\n")
        await client.receive("disconnect")
        self.assertEqual(await client.receive("auth", deadline=60), [{"who": "me"}])
        self.assertEqual(await client.call("message-with-ack", "again"), "again")

    async def test_the_demo_says_which_instance_it_is_and_which_port_it_has(self):
        client = await self.connected("demo", namespaces=("/", "/ws"))
        self.assertEqual(await client.receive("data"), ["connected to worker: 0"])
        for namespace in ("/", "/ws"):
            await client.emit("b:message", "hello", namespace=namespace)
            self.assertEqual(await client.receive("s:message", namespace), [f"{namespace}: {stages[self.serializer].place['demoPort']}"])


class Inbox:
    """What arrived, by namespace and event, whichever thread brought it."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.queues = {}
        for namespace in ("/", "/custom", "/guarded", "/unknown", "/ws"):
            for name in ("connect", "connect_error", "disconnect"):
                self.client.on(name, self.keep(namespace, name), namespace=namespace)
            self.client.on("*", self.keep(namespace), namespace=namespace)

    def queue(self, namespace, name):
        return self.queues.setdefault((namespace, name), asyncio.Queue())

    def keep(self, namespace, name=None):
        def handler(*args):
            event, *rest = args if name is None else (name, *args)
            self.loop.call_soon_threadsafe(lambda: self.queue(namespace, event).put_nowait(rest))

        return handler

    async def receive(self, name, namespace="/", deadline=DEADLINE):
        try:
            return await asyncio.wait_for(self.queue(namespace, name).get(), deadline)
        except asyncio.TimeoutError:
            raise AssertionError(f"no {name} in {namespace} within {deadline} s") from None

    def nothing_left(self, name, namespace="/"):
        return self.queue(namespace, name).empty()

    def answer(self, name, handler):
        self.client.on(name, handler)

    def transport(self):
        return self.client.transport()

    def get_sid(self, namespace="/"):
        return self.client.get_sid(namespace)


OPTIONS = {"reconnection_delay": 0.1, "reconnection_delay_max": 0.5}


class Threads(Inbox):
    def __init__(self, **options):
        self.client = socketio.Client(**OPTIONS, **options)
        super().__init__()

    async def connect(self, *args, **options):
        await asyncio.to_thread(self.client.connect, *args, wait_timeout=DEADLINE, **options)

    async def emit(self, *args, **options):
        await asyncio.to_thread(self.client.emit, *args, **options)

    async def call(self, *args, **options):
        return await asyncio.to_thread(self.client.call, *args, timeout=DEADLINE, **options)

    async def disconnect(self):
        await asyncio.to_thread(self.client.disconnect)


class Asyncio(Inbox):
    def __init__(self, **options):
        self.client = socketio.AsyncClient(**OPTIONS, **options)
        super().__init__()

    async def connect(self, *args, **options):
        await self.client.connect(*args, wait_timeout=DEADLINE, **options)

    async def emit(self, *args, **options):
        await self.client.emit(*args, **options)

    async def call(self, *args, **options):
        return await self.client.call(*args, timeout=DEADLINE, **options)

    async def disconnect(self):
        await self.client.disconnect()


TRANSPORTS = {"Polling": ["polling"], "WebSocket": ["websocket"], "Upgrade": ["polling", "websocket"]}

for _kind in (Threads, Asyncio):
    # What the proxy does is the same whatever is in the packets.
    for _way, _serializer in (("direct", "default"), ("nginx", "default"), ("direct", "msgpack")):
        for _name, _transports in TRANSPORTS.items():
            _case = f"{_kind.__name__}{_way.title()}{_name}{'' if _serializer == 'default' else 'MsgPack'}"
            _members = {"kind": _kind, "way": _way, "serializer": _serializer, "transports": _transports}
            globals()[_case] = type(_case, (Suite, unittest.IsolatedAsyncioTestCase), _members)

if __name__ == "__main__":
    unittest.main()
