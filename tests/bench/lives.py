"""Container lives and execs over the bridge, one at a time and many at once."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import sixty
from bare import rest
from report import Figure, milliseconds
from stances import bare_beside, clock

from support import specs
from support.containers import created, new_id
from support.daemon import Daemon
from support.host import CREATE, DELETE, EXECUTE, GET_PROPERTIES, START, WAIT, ZERO_GUID, Connection

TRUE = ["/bin/true"]
NO_STREAMS = {"ProcessParameters": "{}"}
FOREVER = 0xFFFFFFFF


def body(container_id: str, **fields: Any) -> dict[str, Any]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


def steps(bridge: Connection, container_id: str) -> Generator[tuple[int, Any], dict[str, Any], None]:
    """The requests of one life without streams; each answer is sent in."""
    config = bridge.host.container_config(container_id, specs.container(*TRUE))
    yield CREATE, body(container_id, ContainerConfig=config)
    started = yield EXECUTE, body(container_id, Settings=NO_STREAMS)
    exited = yield WAIT, body(container_id, ProcessId=started["ProcessId"], TimeoutInMs=FOREVER)
    assert exited["ExitCode"] == 0
    yield DELETE, body(container_id)


def advance(life: Generator[Any, Any, None], answer: dict[str, Any] | None) -> tuple[int, Any] | None:
    assert answer is None or answer["Result"] == 0, answer
    try:
        return next(life) if answer is None else life.send(answer)
    except StopIteration:
        return None


def one_life(bridge: Connection) -> float:
    life = steps(bridge, new_id())
    request = advance(life, None)
    began = clock(bridge)
    while request is not None:
        request = advance(life, bridge.ask(*request))
    return clock(bridge) - began


def many_lives(bridge: Connection, count: int, at_once: int) -> float:
    """The seconds for ``count`` lives, ``at_once`` of them in flight."""
    began = time.perf_counter()
    waiting = [steps(bridge, new_id()) for _ in range(count)]
    flying: dict[int, Generator[Any, Any, None]] = {}

    def go_on(life: Generator[Any, Any, None], answer: dict[str, Any] | None) -> None:
        request = advance(life, answer)
        if request is not None:
            flying[bridge.send(*request)] = life
        elif waiting:
            go_on(waiting.pop(), None)

    for _ in range(min(at_once, count)):
        go_on(waiting.pop(), None)
    while flying:
        bridge.pump(30)
        for id_ in [id_ for id_ in flying if id_ in bridge.answers]:
            go_on(flying.pop(id_), bridge.answer(id_))
    return time.perf_counter() - began


def config_of(daemon: Daemon, bridge: Connection) -> dict[str, Any]:
    """The config.json that uvmd gives to the runtime; files of the bundle are kept for the bare one."""
    with created(bridge, *TRUE) as container:
        bundle = daemon.host.bundle(container.id)
        there = {mount["destination"]: Path(mount["source"]) for mount in sixty.network_files()}
        return config_for_bare(daemon, bundle, there, bundle)


def config_for_bare(daemon: Daemon, bundle: Path, there: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """A config.json for a runtime by itself: what uvmd has bound for its own is named again, by destination.

    Files of ``folder``, which goes with its container, are copied.
    """
    config: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    for mount in config["mounts"]:
        source = Path(mount.get("source", ""))
        if daemon.run_dir in source.parents:
            source = there[mount["destination"]]
            mount["source"] = str(source)
        if folder in source.parents and source.is_file():
            mount["source"] = str(shutil.copy2(source, daemon.folder))
    return config


def life_against_bare(daemon: Daemon, bridge: Connection, runtime: str, count: int) -> Figure:
    bare = bare_beside(bridge, runtime, config_of(daemon, bridge), daemon.folder)
    for _ in range(3):
        one_life(bridge), bare.life(TRUE)
    ours, theirs = [], []
    for _ in range(count):
        theirs.append(bare.life(TRUE))
        rest()
        ours.append(one_life(bridge))
    ratio = statistics.median(ours) / statistics.median(theirs)
    beside = f"uvmd {milliseconds(ours):.1f} ms, bare {runtime} {milliseconds(theirs):.1f} ms"
    return Figure(f"life of /bin/true, {runtime}, to bare", 1.35, ratio, "x", beside, count)


def exec_against_bare(daemon: Daemon, bridge: Connection, runtime: str, count: int) -> Figure:
    bare = bare_beside(bridge, runtime, config_of(daemon, bridge), daemon.folder)
    process = specs.process(*TRUE)
    process_file = Path(daemon.folder, "process.json")
    process_file.write_text(json.dumps(process))
    name, pid = bare.start_container(["/bin/sleep", "600"])
    settings = {"ProcessParameters": json.dumps({"OciProcess": process})}
    ours, theirs = [], []
    with created(bridge, "/bin/sleep", "600") as container:
        container.init()
        for number in range(count + 3):
            alone = bare.exec(name, process_file)
            began = time.perf_counter()
            pid_of_exec = bridge.call(EXECUTE, container.id, Settings=settings)["ProcessId"]
            bridge.call(WAIT, container.id, ProcessId=pid_of_exec, TimeoutInMs=FOREVER)
            taken = time.perf_counter() - began
            if number >= 3:  # the first ones warm caches up
                ours.append(taken)
                theirs.append(alone)
    bare.remove(name, pid)
    ratio = statistics.median(ours) / statistics.median(theirs)
    beside = f"uvmd {milliseconds(ours):.1f} ms, bare {runtime} exec {milliseconds(theirs):.1f} ms"
    return Figure(f"exec and wait of /bin/true, {runtime}, to bare", 1.5, ratio, "x", beside, count)


def round_trip(bridge: Connection, count: int) -> Figure:
    with created(bridge, "/bin/sleep", "600") as container:
        request = body(container.id)
        samples = []
        for _ in range(count):
            began = time.perf_counter()
            bridge.ask(START, request)
            samples.append(time.perf_counter() - began)
    return Figure("StartContainer round trip, p50", 0.35, milliseconds(samples), "ms", samples=count)


def properties(bridge: Connection, count: int) -> Figure:
    with created(bridge, "/bin/sleep", "600") as container:
        container.init()
        request = body(container.id, Query='{"PropertyTypes":["Statistics","ProcessList"]}')
        samples = []
        for _ in range(count):
            began = time.perf_counter()
            answer = bridge.ask(GET_PROPERTIES, request)
            samples.append(time.perf_counter() - began)
            assert answer["Result"] == 0
    return Figure("GetProperties, both types, p50", 1.5, milliseconds(samples), "ms", samples=count)


def concurrency(bridge: Connection, rounds: int) -> Figure:
    in_a_row, at_once = [], []
    for _ in range(rounds):
        in_a_row.append(many_lives(bridge, 64, 1))
        at_once.append(many_lives(bridge, 64, 32))
    row, together = statistics.median(in_a_row), statistics.median(at_once)
    beside = f"in a row {64 / row:.1f} lives/s, 32 at once {64 / together:.1f} lives/s"
    return Figure("64 lives, 32 at once, to 64 in a row", 0.65, together / row, "x", beside, rounds * 64)
