"""Throws made-up frames at the bridge, in front of a host in memory, for a bounded time.

    python tests/fuzz/fuzz_bridge.py --seconds 60 --seed 1

Holds: nothing is raised; every request gets exactly one answer, of its own type and id, no
larger than 65,536 bytes, with a Result that is an int32 and an ActivityId that is a GUID or
absent; a wait may be answered later, but not twice; what a broken connection did not carry
arrives on a later one. A failure prints the seed and the input's number.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.fake_host import FakeHost
from uvmd.bridge.frames import MAX_OUTBOUND_BYTES, Decoder, Frame, split
from uvmd.bridge.identifiers import CONTAINER_NOTIFICATION, ZERO_GUID, Message, response_type
from uvmd.bridge.server import Bridge
from uvmd.errors import Failed, PolicyDenied

GUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
IDS = ["a", "b", ZERO_GUID, "", "no such", "../../etc", "\x00", "ü" * 40, "x" * 300]
NEGOTIATE = f'{{"ContainerId":"","ActivityId":"{ZERO_GUID}","MinimumVersion":4,"MaximumVersion":4}}'.encode()
ODD_NUMBERS = [0, 1, -1, 4, 101, 102, 2**16, 2**31, 2**32 - 1, 2**32, 2**64, 10**25, 1.5, True, 1e30]
ODD_TEXTS = ["", "{}", "null", "[]", "{", "\ud800", "\u0000", "x" * 5000, '{"a":' * 300, '"\\ud800"', "NaN"]
HOSTILE = [b"[" * 5000, b'{"a":' * 2000, b"9" * 5000, b'{"ContainerId":' + b'"x"' * 9, b"[]," * 500]
PIECES = [b'"', b"\\", b"{", b"}", b"\xff", b"\\ud800", b"1" * 30, b"null"]
FAILURES: list[Callable[[str], BaseException]] = [
    ValueError,
    KeyError,
    MemoryError,
    RecursionError,
    SystemExit,
    Failed,
    PolicyDenied,
    lambda text: OSError(5, text),
]


class Broken(AssertionError):
    """The bridge did what it must not."""


class Fuzzer:
    """One host, one bridge, many connections."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.count = 0
        self._fresh()

    def _fresh(self) -> None:
        choose = self.random.random
        self.fake = FakeHost(sequential=choose() < 0.3, strict=choose() < 0.3)
        self.bridge = Bridge(self.fake, self)
        self.generation = 0
        self.next_id = self.random.choice([0, 2**31, 2**64 - 10_000])
        self.asked: dict[int, int] = {}
        self.answered: Counter[int] = Counter()
        self.in_flight: list[tuple[int, int, bytes]] = []
        self._connect()

    def step(self) -> None:
        """Throw one input, or let something happen."""
        self.count += 1
        chance = self.random.random()
        if chance < 0.01:
            self._lose()
        elif chance < 0.03:
            self._exit()
        elif chance < 0.032:
            self.settle()
            self._fresh()
        elif chance < 0.05:
            self._ask_a_failing_host(self.random.choice(FAILURES)("s3cr3t"))
        elif chance < 0.053:
            self._ask_for_much()
        else:
            self._ask(self._type(), self._body())

    def settle(self) -> None:
        """Let everything end and check that nothing is left unanswered."""
        self._lose()
        for process in self._processes():
            self.fake._exit(process, 0)
        self._check_all_answered(set(self.asked))

    def _connect(self) -> None:
        self.generation += 1
        self.bridge.bridge_up(self.generation)
        if self.random.random() < 0.9:
            self._ask(Message.NEGOTIATE, NEGOTIATE)

    def _lose(self) -> None:
        """Break the connection; some of what was sent last was not written, and a host comes again."""
        self.in_flight = self.in_flight[self.random.randint(0, len(self.in_flight)) :]
        self._bounce()
        self.bridge.bridge_down(self.generation, "a test")
        self._bounce()  # what was handed to the dead connection meanwhile
        self.generation += 1
        self.bridge.bridge_up(self.generation)
        self._ask(Message.NEGOTIATE, NEGOTIATE)

    def _bounce(self) -> None:
        unsent, self.in_flight = self.in_flight, []
        for request, slot, frame in unsent:
            self._count(split(frame), -1)
            self.bridge.bridge_unsent(request, slot, frame)

    def _exit(self) -> None:
        running = [process for process in self._processes() if process.exit_code is None]
        if running:
            self.fake._exit(self.random.choice(running), self.random.choice([0, 137, -1, 2**32]))
        self.fake.timers.pass_s(self.random.choice([0.0, 1.0, 1e7]))
        self.fake.timers.run_posted()

    def _processes(self) -> list[Any]:
        inside = [[one.init, *one.execs.values()] for one in self.fake.containers.values()]
        return [*self.fake.external.values(), *(process for some in inside for process in some)]

    def _ask_a_failing_host(self, error: BaseException) -> None:
        self.fake.raising = dict.fromkeys(("create", "wait", "modify", "start", "delete", "execute"), error)
        self._ask(self._type(), self._body())
        self.fake.raising = {}

    def _ask_for_much(self) -> None:
        """Let the host answer, or fail, at greater length than the peer accepts."""
        text = self.random.choice(["x", "é\n", "\x00", "\udcff"]) * 70_000
        processes = [{"ProcessId": n} for n in range(9000)]
        self.fake.returning = {"dump_stacks": text, "properties": {"ProcessList": processes}}
        self._ask(self.random.choice([Message.DUMP_STACKS, Message.GET_PROPERTIES]), self._body())
        self.fake.returning = {}
        self._ask_a_failing_host(Failed(text))

    def _ask(self, type_: int, body: bytes) -> None:
        id_ = self.next_id = (self.next_id + 1) % 2**64
        self.asked[id_] = type_
        # Through the decoder, cut anywhere: what comes out is what the monitor hands over.
        stream, decoder = Frame(type_, id_, body).encode(), Decoder()
        cut = self.random.randint(0, len(stream))
        decoder.feed(stream[:cut])
        frame = decoder.next_frame()
        decoder.feed(stream[cut:])
        frame = frame or decoder.next_frame()
        if frame is None or frame.encode() != stream or decoder.pending_bytes:
            raise Broken("the decoder lost a frame")
        self.bridge.bridge_frame(self.generation, id_, stream)
        self.fake.timers.run_posted()
        if type_ != Message.WAIT:
            self._check_all_answered({id_})

    def _check_all_answered(self, ids: set[int]) -> None:
        for id_ in ids:
            if self.answered[id_] != 1:
                raise Broken(f"request {id_} of type 0x{self.asked[id_]:08x}: {self.answered[id_]} answers")

    def forget_request(self, request: int) -> None:
        if request not in self.asked:
            raise Broken(f"request {request} is forgotten, and was never asked")

    def send_frame(
        self, generation: int, frame: bytes, request: int = 0, slot: int = 0, state: int = -1
    ) -> None:
        if not generation:
            return
        if generation != self.generation:
            raise Broken(f"a frame for connection {generation}, now is {self.generation}")
        if len(frame) > MAX_OUTBOUND_BYTES:
            raise Broken(f"a frame of {len(frame)} bytes")
        self.in_flight.append((request, slot, frame))
        self.in_flight = self.in_flight[-5:]
        self._count(split(frame), 1)

    def _count(self, frame: Frame, times: int) -> None:
        body = json.loads(frame.body.decode())
        if not -(2**31) <= body["Result"] < 2**31 or not GUID.fullmatch(body.get("ActivityId", ZERO_GUID)):
            raise Broken("a result or an activity id that a host cannot read")
        if frame.type == CONTAINER_NOTIFICATION:
            return
        if frame.id not in self.asked or frame.type != response_type(self.asked[frame.id]):
            raise Broken(f"an answer of type 0x{frame.type:08x} to nothing, id {frame.id}")
        if times < 0 and frame.type == response_type(Message.NEGOTIATE):
            return  # an answer to Negotiate that was not written is dropped with its connection
        self.answered[frame.id] += times
        if self.answered[frame.id] > 1:
            raise Broken(f"request {frame.id} was answered twice")

    # Made-up input.

    def _type(self) -> int:
        chance = self.random.random()
        if chance < 0.9:
            return self.random.choice(list(Message))
        if chance < 0.95:
            return self.random.choice([0x10100E01, 0x30100101, 0x20100101, 0x10200101, 0, 2**32 - 1])
        return self.random.getrandbits(32)

    def _body(self) -> bytes:
        chance = self.random.random()
        if chance < 0.05:
            return self.random.randbytes(self.random.choice([0, 1, 16, 300]))
        if chance < 0.07:
            return self.random.choice(HOSTILE)
        text = json.dumps(self._object(), ensure_ascii=self.random.random() < 0.5)
        body = text.encode("utf-8", "surrogatepass")
        if chance < 0.2:
            body = self._mangled(body)
        return body

    def _object(self) -> dict[str, Any]:
        pick = self.random.choice
        body: dict[str, Any] = {
            "ContainerId": pick(IDS),
            "ActivityId": pick([ZERO_GUID, "", "x", "0f8fad5b-d9cb-469f-a165-70867728950e"]),
            "ProcessId": pick([101, 102, 103, 0]),
            "TimeoutInMs": pick([0, 1000, 2**32 - 1]),
            "Options": {"Signal": pick([0, 9, 15])},
            "Height": 24,
            "Width": 80,
            "MinimumVersion": 4,
            "MaximumVersion": 4,
            "Query": json.dumps({"PropertyTypes": pick([["ProcessList"], ["Statistics"], [], ["uvmd.x"]])}),
            "ContainerConfig": json.dumps(
                {"SchemaVersion": {"Major": 2, "Minor": pick([0, 1])}, "OciSpecification": {"process": {}}}
            ),
            "Settings": {
                "ProcessParameters": json.dumps({"CommandArgs": ["x"], "CreateStdInPipe": True}),
                "VsockStdioRelaySettings": {"StdIn": 1},
            },
            "Request": {"ResourceType": pick(["Network", "Foo", "PodCgroupMemoryLimit"]), "Settings": {}},
        }
        for _ in range(pick([0, 0, 1, 1, 2, 5])):
            self._spoil(body)
        return body

    def _spoil(self, value: dict[str, Any]) -> None:
        """Change one field somewhere: its value, its spelling, or that it is there."""
        key = self.random.choice(list(value) or ["x"])
        inner = value.get(key)
        if isinstance(inner, dict) and self.random.random() < 0.6:
            self._spoil(inner)
            return
        match self.random.randrange(4):
            case 0:
                value.pop(key, None)
            case 1:
                value[self.random.choice([key.lower(), key.upper(), key.title()])] = inner
            case 2:
                value[key] = self.random.choice([None, [], {}, [None], {"a": None}, *ODD_NUMBERS])
            case 3:
                value[key] = self.random.choice(ODD_TEXTS)

    def _mangled(self, body: bytes) -> bytes:
        changed = bytearray(body)
        for _ in range(self.random.choice([1, 1, 3, 20])):
            place = self.random.randrange(len(changed))
            match self.random.randrange(3):
                case 0:
                    changed[place] = self.random.randrange(256)
                case 1:
                    del changed[place : place + self.random.choice([1, 5, 500])]
                case 2:
                    changed[place:place] = self.random.choice(PIECES)
            if not changed:
                break
        return bytes(changed)


def run(seconds: float, seed: int) -> tuple[int, float]:
    """Fuzz for ``seconds``; return how many inputs there were and how long it took.

    Raises:
        Broken: or whatever the bridge let through.
    """
    logging.getLogger("uvmd").addHandler(logging.NullHandler())
    logging.getLogger("uvmd").propagate = False
    fuzzer, began = Fuzzer(seed), time.monotonic()
    try:
        while time.monotonic() - began < seconds:
            for _ in range(200):
                fuzzer.step()
        fuzzer.settle()
    except BaseException:
        print(f"seed {seed}, input {fuzzer.count}", file=sys.stderr)
        raise
    finally:
        logging.getLogger("uvmd").propagate = True
    return fuzzer.count, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Throw made-up frames at the bridge.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    count, took_s = run(options.seconds, seed)
    print(f"seed {seed}: {count} inputs in {took_s:.1f} s ({count / took_s:.0f} a second), all answered")


if __name__ == "__main__":
    main()
