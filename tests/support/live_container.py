"""A process in a slot of a live monitor, left behind by something that imitates a runtime."""

from __future__ import annotations

from support.live_monitor import LiveMonitor, StandIn

PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

# Imitates a runtime: leaves the program behind with the runtime's own stdio.
RUNTIME = """
import os, sys
pid_file, program = sys.argv[1], sys.argv[2:]
if os.fork() == 0:
    os.setsid()
    with open(pid_file + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(pid_file + ".new", pid_file)
    os.execvp(program[0], program)
while not os.path.exists(pid_file):
    pass
"""

# The same with a terminal, whose master goes over the console socket.
CONSOLE_RUNTIME = """
import os, pty, sys, socket, fcntl, termios
pid_file, console, program = sys.argv[1], sys.argv[2], sys.argv[3:]
master, slave = pty.openpty()
if os.fork() == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(slave, fd)
    os.closerange(3, 100)
    with open(pid_file + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(pid_file + ".new", pid_file)
    os.execvp(program[0], program)
while not os.path.exists(pid_file):
    pass
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(console)
    socket.send_fds(sock, [b"/dev/ptmx"], [master])
"""


class Container:
    """A process with three streams in a slot of its own."""

    def __init__(
        self,
        monitor: LiveMonitor,
        daemon: StandIn,
        *program: str,
        ports: tuple[int | None, int | None, int | None] = (1, 2, 3),
        console: bool = False,
        **connect: object,
    ) -> None:
        self.daemon = daemon
        self.slot = daemon.link.new_slot()
        folder = monitor.folder / f"slot{self.slot}"
        folder.mkdir()
        socket_path = str(folder / "console") if console else ""
        daemon.link.open_slot(self.slot, terminal=console, console_socket=socket_path, label="test")
        self.listeners = {port: monitor.listen(port) for port in ports if port is not None}
        daemon.link.connect(self.slot, ports, **connect)  # type: ignore[arg-type]
        self.streams = {port: monitor.accept(listener) for port, listener in self.listeners.items()}
        script = CONSOLE_RUNTIME if console else RUNTIME
        argv = ["/usr/bin/python3", "-I", "-S", "-c", script, str(folder / "pid")]
        argv += [socket_path] if console else []
        completed = daemon.link.run(
            [*argv, *program], env=PATH, deadline_s=10, slot=self.slot, pid_file=str(folder / "pid")
        )
        assert completed.status == 0
        self.pid = completed.pid

    def wait_exited(self) -> int:
        status: int = self.daemon.events.wait_for("exited", self.slot)[3]
        return status

    def wait_drained(self, timeout_s: float = 15) -> None:
        self.daemon.events.wait_for("drained", self.slot, timeout_s=timeout_s)

    @property
    def drained(self) -> bool:
        return ("drained", self.slot) in self.daemon.events.all()
