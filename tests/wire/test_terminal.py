"""Containers and execs with a terminal."""

from __future__ import annotations

import re

from support import specs
from support.containers import created, shell
from support.host import RESIZE, ZERO_GUID, Connection, code
from support.matrix import row


def resize(bridge: Connection, container_id: str, pid: int, rows: int, columns: int) -> str:
    body = {"ContainerId": container_id, "ActivityId": ZERO_GUID, "ProcessId": pid}
    return code(bridge.ask(RESIZE, {**body, "Height": rows, "Width": columns}))


@row("resize.terminal")
def test_an_init_with_a_terminal_reads_writes_and_is_resized(bridge: Connection) -> None:
    script = "tty; stty size; read line; stty size; echo got $line; exit 4"
    with created(bridge, *shell(script), terminal=True) as container:
        init = container.init(stdin=True, stdout=True)
        init.stdout.read_until(b"/dev/")
        assert resize(bridge, container.id, init.pid, 41, 113) == "S_OK"
        init.stdin.write(b"hello\r")
        assert init.wait() == 4
        text = init.stdout.read_all()
        assert b"41 113" in text
        assert b"got hello\r\n" in text


def test_an_exec_with_a_terminal_in_a_container_without(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        exec_ = container.exec("/bin/sh", terminal=True, stdin=True, stdout=True)
        exec_.stdin.write(b"echo $((40 + 2)); exit 5\r")
        assert exec_.wait() == 5
        assert re.search(rb"\b42\r\n", exec_.stdout.read_all())


def test_the_console_size_of_the_request_is_applied(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        process = specs.process(*shell("sleep 0.1; stty size"), terminal=True)
        process["consoleSize"] = {"height": 21, "width": 77}
        exec_ = bridge.execute(container.id, process, stdin=True, stdout=True)
        assert exec_.wait() == 0
        assert b"21 77" in exec_.stdout.read_all()


def test_control_c_is_a_signal_for_the_foreground(bridge: Connection) -> None:
    script = "trap 'echo int; exit 6' INT; echo ready; while :; do sleep 0.05; done"
    with created(bridge, *shell(script), terminal=True) as container:
        init = container.init(stdin=True, stdout=True)
        init.stdout.read_until(b"ready")
        init.stdin.write(b"\x03")
        assert init.wait(timeout_s=10) == 6


def test_the_end_of_stdin_does_not_hang_up_the_terminal(bridge: Connection) -> None:
    with created(bridge, *shell("echo ready; sleep 0.4; echo still here"), terminal=True) as container:
        init = container.init(stdin=True, stdout=True)
        init.stdout.read_until(b"ready")
        init.stdin.half_close()
        assert init.wait() == 0
        assert b"still here" in init.stdout.read_all()


def test_a_resize_after_the_terminal_is_closed_succeeds_silently(bridge: Connection) -> None:
    with created(bridge, *shell("exit 1"), terminal=True) as container:
        init = container.init(stdin=True, stdout=True)
        assert init.wait() == 1
        assert resize(bridge, container.id, init.pid, 5, 5) == "S_OK"


def test_a_terminal_without_streams_works(bridge: Connection) -> None:
    with created(bridge, *shell("test -t 0 && test -t 1 && exit 7"), terminal=True) as container:
        assert container.init().wait() == 7


def test_much_output_through_a_terminal_is_complete(bridge: Connection) -> None:
    with created(
        bridge, *shell("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"), terminal=True
    ) as container:
        init = container.init(stdin=True, stdout=True)
        assert init.wait() == 0
        lines = init.stdout.read_all().decode().split()
        assert lines == [str(n) for n in range(20000)]
