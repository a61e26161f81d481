"""The bridge is dropped while a request of each kind is under way, and comes back.

The answer comes on the next connection if it was not written to the one that is gone. In both
cases the request was obeyed, once, which is looked at with requests of its own.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bench.report import Figure
from soak.aftermath import Watch, log_figure
from soak.restarts import RAMDISK, body
from support import specs
from support.containers import new_id, shell
from support.daemon import Daemon, running, wait_until
from support.host import (
    CREATE,
    DELETE,
    DUMP_STACKS,
    EXECUTE,
    FOREVER,
    GET_PROPERTIES,
    MODIFY,
    NEGOTIATE,
    NULL_ID,
    RESIZE,
    SHUTDOWN_FORCED,
    SHUTDOWN_GRACEFUL,
    SIGNAL,
    START,
    WAIT,
    Process,
    code,
)

Answer = dict[str, Any] | None
#: A request, and what looks at the VM afterwards; the answer is None if it was lost.
Plan = tuple[int, dict[str, Any], Callable[[Answer], None]]


class Drops:
    """One daemon whose host hangs up again and again."""

    def __init__(self, vm: Daemon, seed: int) -> None:
        self.vm = vm
        self.chance = random.Random(seed)
        self.bridge = vm.connect()
        self.holder, self.init = self._started("/bin/sleep", "86400")
        self.early, self.late, self.lost = Counter[str](), Counter[str](), Counter[str]()
        self._ids = 1 << 32
        self.plans: dict[str, Callable[[], Plan]] = {
            "create": self._create,
            "start": lambda: self._simple(START, body(self.holder)),
            "shutdown graceful": lambda: self._shutdown(
                SHUTDOWN_GRACEFUL, "GracefulExit", 128 + signal.SIGTERM
            ),
            "shutdown forced": lambda: self._shutdown(SHUTDOWN_FORCED, "ForcedExit", 128 + signal.SIGKILL),
            "execute": self._execute,
            "wait": self._wait,
            "signal": lambda: self._simple(
                SIGNAL, body(self.holder, ProcessId=self.init.pid, Options={"Signal": 28})
            ),
            "resize": lambda: self._simple(
                RESIZE, body(self.holder, ProcessId=self.init.pid, Height=1, Width=1)
            ),
            "get properties": lambda: self._simple(GET_PROPERTIES, body(self.holder, Query="")),
            "modify": self._modify,
            "negotiate": self._negotiate,
            "dump stacks": lambda: self._simple(DUMP_STACKS, body(NULL_ID)),
            "delete": self._delete,
        }

    def drop(self, kind: str) -> None:
        """Hang up at some moment of such a request, come back, and see what became of it."""
        abrupt = self.chance.random() < 0.3
        type_, fields, look = self.plans[kind]()
        self._ids += 1
        id_ = self.bridge.send(type_, fields, id_=self._ids)
        time.sleep(self.chance.choice([0, self.chance.uniform(0, 0.003), self.chance.uniform(0, 0.05)]))
        before = self.bridge
        self._hang_up(abrupt)
        self.bridge = self.vm.connect(negotiate=False)
        if early := before.answers.pop(id_, None):
            self.early[kind] += 1
        else:
            self.bridge.expect(id_, type_)
        self.bridge.negotiate()
        answer = early or self._late_answer(kind, id_, abrupt)
        if answer is not None:
            expected = "E_FAIL" if type_ == RESIZE else "S_OK"
            assert code(answer) == expected, f"{kind}: {answer}"
        self.bridge.notifications = before.notifications + self.bridge.notifications
        look(answer)
        self.bridge.outstanding.pop(id_, None)
        assert not self.bridge.outstanding

    def _hang_up(self, abrupt: bool) -> None:
        """Close; or end our side, and hear what was said until the daemon hangs up too."""
        if not abrupt:
            self.bridge.end_writing()
            self.bridge.wait_until_closed()
        self.bridge.close()

    def _late_answer(self, kind: str, id_: int, abrupt: bool) -> dict[str, Any] | None:
        """What comes on the next connection: if nothing of the last one was lost, it must."""
        if kind in ("wait", "negotiate"):
            return None
        try:
            answer = self.bridge.answer(id_, 0.3 if abrupt else 20)
        except AssertionError:
            assert abrupt, f"{kind}: no answer, neither on this connection nor on the last"
            self.lost[kind] += 1
            return None
        self.late[kind] += 1
        return answer

    # The plans

    def _started(self, *args: str) -> tuple[str, Process]:
        container_id = new_id()
        self.bridge.create(container_id, specs.container(*args))
        return container_id, self.bridge.execute(container_id)

    def _simple(self, type_: int, fields: dict[str, Any]) -> Plan:
        return type_, fields, lambda answer: None

    def _create(self) -> Plan:
        container_id = new_id()
        config = self.bridge.host.container_config(container_id, specs.container(*shell("exit 7")))

        def look(_: Answer) -> None:
            self._until(lambda: self._exists(container_id))
            init = self.bridge.execute(container_id)
            assert self.bridge.wait(container_id, init.pid) == 7
            self.bridge.wait_for_notification(container_id)
            self.bridge.delete(container_id)

        return CREATE, body(container_id, ContainerConfig=config), look

    def _delete(self) -> Plan:
        container_id, init = self._started(*shell("exit 3"))
        assert self.bridge.wait(container_id, init.pid) == 3
        self.bridge.wait_for_notification(container_id)
        return DELETE, body(container_id), lambda answer: self._until(lambda: not self._exists(container_id))

    def _shutdown(self, type_: int, told: str, status: int) -> Plan:
        script = "trap 'exit 143' TERM; echo ready; while :; do sleep 0.02; done"
        container_id = new_id()
        self.bridge.create(container_id, specs.container(*shell(script)))
        init = self.bridge.execute(container_id, stdout=True)
        init.stdout.read_until(b"ready")

        def look(_: Answer) -> None:
            assert self.bridge.wait(container_id, init.pid) == status
            self._delete_now(container_id)
            notes = [note for note in self.bridge.notifications if note["ContainerId"] == container_id]
            assert [note["Type"] for note in notes] in ([told], []), notes

        return type_, body(container_id), look

    def _execute(self) -> Plan:
        settings = {"ProcessParameters": json.dumps({"OciProcess": specs.process(*shell("exit 4"))})}

        def look(answer: Answer) -> None:
            pid = answer["ProcessId"] if answer else self._until(self._unknown_exec)
            assert self.bridge.wait(self.holder, pid) == 4

        return EXECUTE, body(self.holder, Settings=settings), look

    def _wait(self) -> Plan:
        exec_ = self.bridge.execute(self.holder, specs.process("/bin/sleep", "600"))

        def look(_: Answer) -> None:
            (id_,) = self.bridge.outstanding
            self.bridge.signal(self.holder, exec_.pid, signal.SIGKILL)
            assert self.bridge.answer(id_)["ExitCode"] == 137
            self.late["wait"] += 1

        return WAIT, body(self.holder, ProcessId=exec_.pid, TimeoutInMs=FOREVER), look

    def _modify(self) -> Plan:
        settings = {"MountPath": f"{self.vm.folder}/disk", "SizeMiB": 1}
        request = {"RequestType": "Add", "ResourceType": RAMDISK, "Settings": settings}

        def look(_: Answer) -> None:
            self._until(lambda: self.bridge.properties(NULL_ID, "uvmd.mounts")["uvmd.mounts"])
            self.bridge.modify(NULL_ID, RAMDISK, "Remove", settings)

        return MODIFY, body(NULL_ID, Request=request), look

    def _negotiate(self) -> Plan:
        self.bridge.close()
        self.bridge = self.vm.connect(negotiate=False)
        # Each connection negotiates for itself, so the answer never comes on the next one.
        return self._simple(NEGOTIATE, body("", MinimumVersion=4, MaximumVersion=4))

    # What is seen afterwards

    def _exists(self, container_id: str) -> bool:
        return code(self.bridge.ask(GET_PROPERTIES, body(container_id, Query=""))) == "S_OK"

    def _unknown_exec(self) -> int:
        rows = self.bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]["containers"]
        found = [process["pid"] for row in rows if row["id"] == self.holder for process in row["processes"]]
        return found[0] if found else 0

    def _delete_now(self, container_id: str) -> None:
        self._until(lambda: code(self.bridge.ask(DELETE, body(container_id))) == "S_OK")

    def _until(self, condition: Callable[[], Any]) -> Any:
        return wait_until(condition, 20, "what a request should have brought about")


def section(seed: int, quick: bool) -> Iterator[Figure]:
    """Each kind so many times, in any order."""
    rounds = 3 if quick else 40
    with running() as vm:
        made = Drops(vm, seed)
        kinds = list(made.plans) * rounds
        made.chance.shuffle(kinds)
        for kind in made.plans:
            made.drop(kind)
        watch = Watch(vm)
        for counted in (made.early, made.late, made.lost):
            counted.clear()
        for kind in kinds:
            made.drop(kind)
            watch.assert_alive()
        watch.assert_nothing_left()
        counts = (made.early.total(), made.late.total(), made.lost.total())
        beside = "answered before the drop {}, on the next connection {}, into the one that was gone {}"
        done = f"of {len(kinds)}: {beside.format(*counts)}"
        yield Figure("drops: requests of 13 kinds that were lost or done twice", 0, 0, "", done, len(kinds))
        yield log_figure("drops", vm)
        made.bridge.close()
