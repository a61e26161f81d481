"""The daemon's death: how long until the next one serves, and what the monitor needs to outlive it."""

from __future__ import annotations

import statistics
import time

from footprint import MIB, settled
from report import Figure, milliseconds
from stances import Stance

from support import leaks, specs
from support.containers import new_id
from support.daemon import wait_until
from support.host import CREATE, DELETE, GET_PROPERTIES, NULL_ID, START, ZERO_GUID


def killed(stance: Stance, containers: int, kills: int) -> list[Figure]:
    """With so many containers running: from SIGKILL to the answer of a request that came right after."""
    with stance.running() as daemon:
        bridge = stance.connect(daemon)
        inits = []
        for _ in range(containers):
            container_id = new_id()
            config = bridge.host.container_config(container_id, specs.container("/bin/sleep", "600"))
            bridge.call(CREATE, container_id, ContainerConfig=config)
            inits.append((container_id, bridge.execute(container_id, stdin=True, stdout=True, stderr=True)))
        waits = [bridge.send_wait(container_id, init.pid) for container_id, init in inits]
        settled(daemon)
        pss = leaks.pss_kib(daemon.monitor_pid) / MIB
        first, models = [], []
        for _ in range(kills):
            before = daemon.daemon_pid
            began = time.perf_counter()
            daemon.kill_daemon()
            bridge.call(START, NULL_ID)
            first.append(time.perf_counter() - began)
            query = '{"PropertyTypes": ["uvmd.ps"]}'
            rows = bridge.call(GET_PROPERTIES, NULL_ID, Query=query)["Properties"]
            models.append(time.perf_counter() - began)
            assert rows.count("running") >= containers
            wait_until(lambda before=before: daemon.find_daemon() not in (None, before))
            time.sleep(1)  # one that dies at once again is started later
        for (container_id, init), wait in zip(inits, waits, strict=True):
            bridge.signal(container_id, init.pid, 9)
            assert bridge.answer(wait)["ExitCode"] == 137
            bridge.ask(DELETE, {"ContainerId": container_id, "ActivityId": ZERO_GUID})
        bridge.close()
    beside = (
        f"longest {max(first) * 1000:.0f} ms; a request that needs the models {milliseconds(models):.0f} ms,"
        f" longest {max(models) * 1000:.0f} ms"
    )
    served = statistics.median(first) * 1000
    most = 8 + containers * 100 / 1024
    waiting = f"{containers} waits pending"
    return [
        Figure(f"SIGKILL to serving again, {containers} containers", 1000, served, "ms", beside, kills),
        Figure(f"monitor, PSS with {containers} containers of three streams", most, pss, "MiB", waiting),
    ]
