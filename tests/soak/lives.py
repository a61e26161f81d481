"""Two thousand container lives, 32 at once, on one connection: nothing is left, nothing grows."""

from __future__ import annotations

import json
import signal
import time
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

from bench.report import Figure
from soak.aftermath import GROWTH, SOON, Watch, growth, log_figure
from support import specs
from support.containers import new_id, shell
from support.daemon import running
from support.host import (
    CREATE,
    DELETE,
    EXECUTE,
    GET_PROPERTIES,
    SIGNAL,
    START,
    WAIT,
    ZERO_GUID,
    Connection,
    code,
)
from support.streams import Output

AT_ONCE, WARM = 32, 100
#: What a life yields to wait until its container's end was told.
TOLD = 0
Life = Generator[tuple[int, dict[str, Any]], dict[str, Any], None]


class Lives:
    """Many lives in step: each is a generator of requests, which is sent the answers."""

    def __init__(self, bridge: Connection) -> None:
        self._bridge = bridge
        self._asked: dict[int, Life] = {}
        self._untold: dict[str, Life] = {}
        self._seen = 0
        self.lived = 0

    def run(self, count: int) -> None:
        """Live so many lives."""
        waiting = deque(self._life(self.lived + number) for number in range(count))
        alive = 0
        while waiting or alive:
            while waiting and alive < AT_ONCE:
                alive += 1
                self._ask(waiting[0], next(waiting[0]))
                waiting.popleft()
            assert self._bridge.pump(60), f"nothing for a minute; {alive} lives, {len(self._untold)} untold"
            alive -= self._go_on()

    def _ask(self, life: Life, request: tuple[int, dict[str, Any]]) -> None:
        type_, fields = request
        if type_ == TOLD:
            self._untold[fields["ContainerId"]] = life
        else:
            self._asked[self._bridge.send(type_, {"ActivityId": ZERO_GUID, **fields})] = life

    def _go_on(self) -> int:
        """Hand over what has come; return how many lives have ended."""
        came: list[tuple[Life, dict[str, Any]]] = []
        answers = self._bridge.answers
        for id_ in [id_ for id_ in answers if id_ in self._asked]:
            came.append((self._asked.pop(id_), answers.pop(id_)))
        told = self._bridge.notifications
        early = [note for note in told if note["ContainerId"] not in self._untold]
        came += [(self._untold.pop(note["ContainerId"]), note) for note in told if note not in early]
        self._bridge.notifications = early
        ended = 0
        for life, answer in came:
            try:
                self._ask(life, life.send(answer))
            except StopIteration:
                ended += 1
        # A life that has begun to wait for news that is there already.
        if any(note["ContainerId"] in self._untold for note in self._bridge.notifications):
            ended += self._go_on()
        return ended

    def _life(self, number: int) -> Life:
        """From create to delete; five kinds take turns."""
        kind, expected = number % 5, number % 100
        me = {"ContainerId": new_id()}
        script = "sleep 600" if kind > 2 else f"echo life {number}; exit {expected}"
        spec = specs.container(*shell(script), terminal=kind == 2)
        _must(
            (
                yield (
                    CREATE,
                    me | {"ContainerConfig": self._bridge.host.container_config(me["ContainerId"], spec)},
                )
            )
        )
        _must((yield START, me))
        output, settings = self._output(wanted=kind in (1, 2))
        pid = {"ProcessId": _must((yield EXECUTE, me | {"Settings": settings}))["ProcessId"]}
        if kind == 3:
            _must((yield GET_PROPERTIES, me | {"Query": json.dumps({"PropertyTypes": ["Statistics"]})}))
        elif kind == 4:
            within = {"OciProcess": specs.process(*shell(f"exit {expected}"))}
            settings = {"ProcessParameters": json.dumps(within)}
            exec_ = _must((yield EXECUTE, me | {"Settings": settings}))["ProcessId"]
            ended = yield WAIT, me | {"ProcessId": exec_, "TimeoutInMs": 0xFFFFFFFF}
            assert _must(ended)["ExitCode"] == expected
        if kind > 2:
            _must((yield SIGNAL, me | pid | {"Options": {"Signal": signal.SIGKILL}}))
            expected = 128 + signal.SIGKILL
        ended = yield WAIT, me | pid | {"TimeoutInMs": 0xFFFFFFFF}
        assert _must(ended)["ExitCode"] == expected, f"life {number}: {ended}"
        if output is not None:
            text = output.read_all()
            assert text.strip() == b"life %d" % number, f"life {number}, kind {kind}: {text!r}"
        note = yield TOLD, me
        assert note["Type"] == ("ForcedExit" if kind > 2 else "UnexpectedExit"), note
        _must((yield DELETE, me))
        self.lived += 1

    def _output(self, *, wanted: bool) -> tuple[Output | None, dict[str, Any]]:
        if not wanted:
            return None, {"ProcessParameters": "{}"}
        port, listener = self._bridge.host.next_port()
        asked = json.dumps({"CreateStdOutPipe": True})
        return Output(listener), {"ProcessParameters": asked, "VsockStdioRelaySettings": {"StdOut": port}}


def _must(answer: dict[str, Any]) -> dict[str, Any]:
    assert code(answer) == "S_OK", answer
    return answer


def section(seed: int, quick: bool) -> Iterator[Figure]:
    """The lives; the seed changes nothing."""
    count, bar = (300, SOON) if quick else (2000, GROWTH)
    with running() as daemon:
        bridge = daemon.connect()
        lives = Lives(bridge)
        lives.run(WARM)
        watch, began = Watch(daemon), time.monotonic()
        before = watch.look()
        lives.run(count - WARM)
        took_s = time.monotonic() - began
        after = watch.look()
        watch.assert_nothing_left()
        watch.wait_for_idle_threads()
        assert lives.lived == count
        assert not bridge.outstanding
        assert not bridge.notifications, "told twice, or of nobody"
        beside = f"of {count:,}, {AT_ONCE} at once, {(count - WARM) / took_s:.0f} a second"
        yield Figure("lives: exit codes, outputs, notifications lost", 0, 0, "", beside, count)
        yield from growth("lives", [before], [after], bar)
        yield log_figure("lives", daemon)
        bridge.close()
