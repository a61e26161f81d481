"""A million malformed inputs against the real daemon, with valid requests in between.

Every sixteenth request is valid and must be answered rightly; every other one must be
answered too. A bad header, and a frame that ends in the middle, end their connection: what was
asked before is answered on the next one. The daemon runs in a machine of its own
(``support/sandbox.py``), since what a host asks for by accident is done as root.
"""

from __future__ import annotations

import base64
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bench.report import Figure
from soak.aftermath import SOON, Watch, growth, log_figure
from soak.inputs import Inputs
from support import specs
from support.containers import new_id
from support.daemon import Daemon
from support.host import (
    CREATE,
    DELETE,
    DUMP_STACKS,
    EXECUTE,
    GET_PROPERTIES,
    HEADER,
    MODIFY,
    NEGOTIATE,
    NULL_ID,
    RESIZE,
    SHUTDOWN_FORCED,
    SIGNAL,
    START,
    WAIT,
    ZERO_GUID,
    Connection,
    Gone,
    code,
)
from support.sandbox import SandboxedDaemon

#: Requests that may be under way at once.
WINDOW = 256
BATCH = 64
PROBE_EVERY = 16
#: Inputs between two connections that end badly, and between two times of tidying up.
LOSE_EVERY, TIDY_EVERY = 1000, 4000
VICTIMS = 2
#: How much more memory the last looks may see than those after half of the inputs. A heap that
#: has held lists of millions of numbers has holes, which are filled now and then.
GROWTH = 1.1
#: No device comes, so no request need wait for one.
CONFIG = """
[plugin.storage_scsi]
device_timeout_s = 0.001
[plugin.storage_pmem]
device_timeout_s = 0.001
[plugin.vpci]
device_timeout_s = 0.001
[plugin.network]
adapter_timeout_s = 0.001
dhcp_timeout_s = 0.001
[plugin.plan9]
dial_timeout_s = 0.1
mount_timeout_s = 0.1
"""
ALLOW_ALL = base64.b64encode(b'{"allow_all": true}').decode()


class Stance(NamedTuple):
    """In what kind of VM. ``policies``: SecurityPolicy is among the inputs."""

    name: str
    share: float
    options: dict[str, str]
    strict: bool = False
    policies: bool = False


STANCES = (
    Stance("open", 0.4, {}),
    Stance("sequential", 0.2, {"vm-sequential": "always"}),
    Stance("strict", 0.25, {}, strict=True),
    Stance("any policy", 0.15, {}, policies=True),
)


class Probe(NamedTuple):
    """A valid request, and whether its answer is right."""

    type: int
    fields: dict[str, Any]
    is_right: Callable[[dict[str, Any]], bool]


class Sent(NamedTuple):
    """A request without an answer. ``probe``: it is valid."""

    type: int
    body: bytes
    codes: frozenset[str] | None
    probe: Probe | None


def sandboxed(stance: Stance) -> Daemon:
    """A daemon in a machine of its own."""
    vm = SandboxedDaemon(options=stance.options)
    (vm.folder / "config").write_text(CONFIG)
    vm.program = [*(vm.program or ()), f"--config={vm.folder}/config"]
    return vm


class Onslaught:
    """One daemon and its host."""

    def __init__(self, stance: Stance, seed: int, vm: Daemon | None = None) -> None:
        self.stance = stance
        self.chance = random.Random(seed)
        self.vm = vm or sandboxed(stance)
        self.victims: list[str] = []
        places = {"bundles": str(self.vm.bundles), "folder": str(self.vm.folder / "devices")}
        self.inputs = Inputs(self.chance, places, lambda: self.victims, policies=stance.policies)
        self.open: dict[int, Sent] = {}
        self.kinds: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.thrown = self.probed = self.connections = 0
        self._ids = 1 << 20

    # The host's side

    def start(self) -> None:
        """Connect, and make what valid requests are about."""
        self.vm.start()
        self.bridge = self.vm.connect()
        self.connections = 1
        self.holder = new_id()
        self.bridge.create(self.holder, specs.container("/bin/sleep", "86400", root=self.vm.root))
        self.init = self.bridge.execute(self.holder)
        # The files of its cgroup stay open from the first look at them.
        self.bridge.properties(self.holder, "Statistics")
        self.bridge.properties(NULL_ID, "uvmd.usage")
        self.tidy(VICTIMS)
        if self.stance.strict:
            settings = {"EnforcerType": "rego", "EncodedSecurityPolicy": ALLOW_ALL}
            self.bridge.modify(NULL_ID, "SecurityPolicy", settings=settings)
        self._probes = self._make_probes()

    def throw(self, count: int) -> None:
        """So many inputs, probes among them; everything is answered at the end."""
        end = self.thrown + count
        while self.thrown < end:
            before = self.thrown
            self.thrown = min(end, before + BATCH)
            self.bridge.send_bytes(b"".join(map(self._next, range(before, self.thrown))))
            self._take(WINDOW)
            if before // LOSE_EVERY != self.thrown // LOSE_EVERY:
                self._lose()
            if before // TIDY_EVERY != self.thrown // TIDY_EVERY:
                self.tidy(VICTIMS)
        self._take(0)

    def _next(self, number: int) -> bytes:
        if number % PROBE_EVERY == 0:
            self.probed += 1
            probe = self.chance.choice(self._probes)
            body = json.dumps({"ActivityId": ZERO_GUID, **probe.fields}).encode()
            return self._frame(Sent(probe.type, body, None, probe))
        made = self.inputs.next()
        self.kinds[made.kind] += 1
        return self._frame(Sent(made.type, made.body, made.codes, None))

    def _frame(self, sent: Sent) -> bytes:
        self._ids += 1
        self.open[self._ids] = sent
        self.bridge.expect(self._ids, sent.type)
        return HEADER.pack(sent.type, HEADER.size + len(sent.body), self._ids) + sent.body

    def _take(self, leave: int, timeout_s: float = 60) -> None:
        """Take in answers until at most ``leave`` are missing, waits not counted."""
        deadline = time.monotonic() + timeout_s
        while True:
            while self.bridge.pump(0):
                pass
            self._judge()
            missing = [sent for sent in self.open.values() if sent.type != WAIT or sent.probe]
            if len(missing) <= leave:
                return
            left = deadline - time.monotonic()
            assert left > 0, f"without an answer: {missing[0]}"
            self.bridge.pump(left)

    def _judge(self) -> None:
        answers = self.bridge.answers
        for id_ in [id_ for id_ in answers if id_ in self.open]:
            answer, sent = answers.pop(id_), self.open.pop(id_)
            named = code(answer)
            self.codes[named] += 1
            if sent.probe is not None:
                right = sent.probe.is_right(answer)
            else:
                right = sent.codes is None or named in sent.codes
            if not right:
                self.wrong.append(f"{sent.type:#x} {sent.body[:300]!r}: {str(answer)[:300]}")
            activity = answer.get("ActivityId", ZERO_GUID)
            assert len(activity) == len(ZERO_GUID), f"a host cannot read the activity {activity!r}"

    def _lose(self) -> None:
        """End the connection by a bad header or in the middle of a frame; go on with the next."""
        if self.chance.random() < 0.7:
            self.kinds["bad header"] += 1
            self.bridge.send_bytes(self.inputs.bad_header())
        else:
            self.kinds["cut frame"] += 1
            self.bridge.send_bytes(self.inputs.cut_frame())
            self.bridge.end_writing()
        try:
            while True:
                assert self.bridge.pump(20), "the connection was not closed"
        except (Gone, ConnectionError):
            pass
        self._judge()
        # Each connection negotiates for itself: such an answer is not carried over.
        self.open = {id_: sent for id_, sent in self.open.items() if sent.type != NEGOTIATE}
        self.bridge.close()
        self.bridge = self._reconnect()

    def _reconnect(self) -> Connection:
        self.connections += 1
        bridge = self.vm.connect(negotiate=False)
        for id_, sent in self.open.items():
            bridge.expect(id_, sent.type)
        bridge.negotiate()
        return bridge

    # What inputs have brought about is taken away again, and the victims that died are replaced

    def tidy(self, victims: int = 0) -> None:
        """Leave the holder and so many victims; whatever else there is goes.

        A VM with a policy gets no new ones: its containers' file systems lie elsewhere.
        """
        self._take(0)
        seen = self.bridge.properties(NULL_ID, "uvmd.ps", "uvmd.mounts")
        for process in seen["uvmd.ps"]["processes"]:
            self.bridge.wait(NULL_ID, process["pid"])
        alive = []
        for container in seen["uvmd.ps"]["containers"]:
            if container["id"] == self.holder:
                assert container["state"] == "running", container
            elif container["id"] in self.victims[:victims] and container["state"] == "running":
                alive.append(container["id"])
            else:
                self._delete(container["id"])
        for entry in reversed(seen["uvmd.mounts"]):
            self._remove(entry["target"])
        self.victims = alive
        while len(self.victims) < victims and not self._policy_is_set:
            victim = new_id()
            self.bridge.create(victim, specs.container("/bin/sleep", "86400", root=self.vm.root))
            self.bridge.execute(victim)
            self.victims.append(victim)

    @property
    def _policy_is_set(self) -> bool:
        return self.thrown > 0 and (self.stance.strict or self.stance.policies)

    def _delete(self, container_id: str) -> None:
        fields = {"ContainerId": container_id, "ActivityId": ZERO_GUID}
        deadline = time.monotonic() + 20
        self.bridge.ask(SHUTDOWN_FORCED, fields)
        while code(answer := self.bridge.ask(DELETE, fields)) not in ("S_OK", "SYSTEM_NOT_FOUND"):
            assert time.monotonic() < deadline, f"{container_id[:80]}: {answer}"
            time.sleep(0.02)

    def _remove(self, target: str) -> None:
        for resource, key in (("example.com/Ramdisk", "MountPath"), ("CombinedLayers", "ContainerRootPath")):
            inner = {"RequestType": "Remove", "ResourceType": resource, "Settings": {key: target}}
            self.bridge.ask(MODIFY, {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": inner})

    def end(self) -> None:
        """Take everything down; every wait that an input has left must be answered then."""
        deadline = time.monotonic() + 30
        while self.open:
            assert time.monotonic() < deadline, f"waits without an answer: {list(self.open.values())[:3]}"
            self.bridge.pump(1)
            self._judge()

    # Valid requests

    def _make_probes(self) -> list[Probe]:
        me, pid = {"ContainerId": self.holder}, {"ProcessId": self.init.pid}
        unknown = {"ContainerId": "ee" * 32}

        def coded(type_: int, fields: dict[str, Any], expected: str) -> Probe:
            return Probe(type_, fields, lambda answer: code(answer) == expected)

        def runs(answer: dict[str, Any]) -> bool:
            rows = json.loads(answer["Properties"])["uvmd.ps"]["containers"]
            return any(row["id"] == self.holder and row["state"] == "running" for row in rows)

        def lists(answer: dict[str, Any]) -> bool:
            return {"ProcessId": self.init.pid} in json.loads(answer["Properties"])["ProcessList"]

        def query(name: str) -> dict[str, Any]:
            return {"Query": json.dumps({"PropertyTypes": [name]})}

        true = {"OciProcess": specs.process("/bin/true")}
        run = {"Settings": {"ProcessParameters": json.dumps(true)}}
        always = [
            coded(START, me, "S_OK"),
            coded(WAIT, me | pid | {"TimeoutInMs": 0}, "TIMEOUT"),
            coded(WAIT, me | {"ProcessId": 1}, "NOT_FOUND"),
            coded(NEGOTIATE, {"MinimumVersion": 4, "MaximumVersion": 4}, "E_NOTIMPL"),
            coded(RESIZE, me | pid | {"Height": 1, "Width": 1}, "E_FAIL"),
        ]
        if self.stance.policies:
            return always
        return [
            *always * 2,
            coded(SIGNAL, me | pid | {"Options": {"Signal": 28}}, "S_OK"),
            coded(SIGNAL, unknown | pid, "SYSTEM_NOT_FOUND"),
            coded(DUMP_STACKS, {"ContainerId": NULL_ID}, "S_OK"),
            coded(EXECUTE, unknown | run, "SYSTEM_NOT_FOUND"),
            coded(GET_PROPERTIES, unknown | {"Query": ""}, "SYSTEM_NOT_FOUND"),
            Probe(GET_PROPERTIES, {"ContainerId": NULL_ID, **query("uvmd.ps")}, runs),
            Probe(GET_PROPERTIES, me | query("ProcessList"), lists),
            coded(MODIFY, {"ContainerId": NULL_ID, "Request": {"ResourceType": "None"}}, "E_FAIL"),
            coded(CREATE, me | {"ContainerConfig": ""}, "INVALID_JSON"),
        ]

    def exec_once(self) -> None:
        """A process from start to its exit code."""
        if not self.stance.policies:
            assert self.bridge.execute(self.holder, specs.process("/bin/true")).wait() == 0


def storm(stance: Stance, count: int, seed: int, most: float = GROWTH) -> Iterator[Figure]:
    """So many malformed inputs at one daemon, and valid ones between them; then it must be as it was."""
    made = Onslaught(stance, seed)
    # With the valid ones, in ten parts, and none too few.
    part = count * PROBE_EVERY // (PROBE_EVERY - 1) // 10 + 1
    name = f"malformed, {stance.name}"
    try:
        made.start()
        for tenth in range(10):
            # What the largest requests do to a heap has been done when memory is first looked at.
            made.inputs.huge = tenth < 4
            made.throw(part)
            made.exec_once()
            if tenth == 0:
                made.tidy()
                watch, began, looks = Watch(made.vm), time.monotonic(), []
            watch.assert_alive()
            looks.append(watch.look())
        took_s = time.monotonic() - began
        made.tidy()
        watch.assert_nothing_left()
        made.end()
        made.bridge.close()
        assert made.vm.stop() == 0, made.vm.describe()
        for line in made.wrong[:5]:
            print(f"  wrong: {line}", file=sys.stderr)
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in made.kinds.most_common())
        assert made.kinds.total() >= count
        beside = f"of {made.kinds.total():,} ({kinds}), and {made.probed:,} valid ones"
        yield Figure(f"{name}: requests without the right answer", 0, len(made.wrong), "", beside, count)
        rate = f"{part * 9 / took_s:,.0f} a second over {made.connections} connections; answers: "
        rate += ", ".join(f"{n:,} {named}" for named, n in made.codes.most_common(5))
        yield Figure(f"{name}: daemons that died", 0, 0, "", rate)
        yield from growth(name, looks[4:7], looks[7:], most)
        yield log_figure(name, made.vm)
    except BaseException as error:
        error.add_note(f"{stance.name}, seed {seed}\n{made.vm.describe()}")
        raise
    finally:
        made.vm.close()


def section(seed: int, quick: bool) -> Iterator[Figure]:
    """All stances in turn, a million inputs in all."""
    for stance in STANCES:
        if quick:
            yield from storm(stance, int(40_000 * stance.share), seed, most=SOON)
        else:
            yield from storm(stance, int(1_000_000 * stance.share), seed)
