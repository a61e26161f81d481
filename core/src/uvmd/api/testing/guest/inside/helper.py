"""The tests' hands in the guest: runs what comes over a virtio-serial port, one line of JSON each.

Started by systemd with the guest's bare Python (``-I -S``); it shares nothing with the code
under test. A function that a test hands over runs in this process, which costs a
millisecond; a shell command costs a process.
"""

from __future__ import annotations
import __future__

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

PORT = "testbed.helper"
# A write takes at most this much; more is a short write, which is normal here.
CHUNK = 32768


def find_port(name: str) -> str:
    """Return the device of a virtio-serial port by its name."""
    while True:
        for entry in pathlib.Path("/sys/class/virtio-ports").glob("*"):
            with contextlib.suppress(OSError):
                if (entry / "name").read_text().strip() == name and os.path.exists(f"/dev/{entry.name}"):
                    return f"/dev/{entry.name}"
        time.sleep(0.02)


def notify_ready() -> None:
    """Tell systemd that we are here (sd_notify(3))."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)


def run_shell(request: dict[str, Any]) -> dict[str, Any]:
    """Run a shell command in a process group of its own, killed at the deadline."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        process = subprocess.Popen(
            ["/bin/sh", "-c", request["command"]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=error,
            start_new_session=True,
            cwd="/",
        )
        try:
            status: int | str = process.wait(request["timeout_s"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = "timeout"
        texts = []
        for file in (out, error):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return {"status": status, "out": texts[0], "error": texts[1]}


def run_function(request: dict[str, Any]) -> dict[str, Any]:
    """Run the source of a function; what it returns must be JSON."""
    namespace: dict[str, Any] = {"__name__": "from_the_test", "__builtins__": __builtins__}
    # Its annotations name types of the test's module, which is not here.
    flags = __future__.annotations.compiler_flag
    exec(compile(request["source"], f"<{request['name']} of the test>", "exec", flags), namespace)
    function = namespace[request["name"]]
    if request.get("fork"):
        return {"value": run_forked(function, request["args"])}
    return {"value": function(*request["args"])}


def run_forked(function: Callable[..., Any], args: list[Any]) -> Any:
    """Run a function in a child: what it does to its process ends with it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = {"value": function(*args)}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        with open(writer, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    answer = json.loads(text or '{"error": "the child ended without an answer"}')
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["value"]


OPERATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "shell": run_shell,
    "function": run_function,
    "ping": lambda request: {"value": "pong"},
}


def answer(line: bytes) -> dict[str, Any]:
    """Return the reply to one request."""
    request = json.loads(line)
    try:
        reply = OPERATIONS[request["do"]](request)
    except BaseException:
        reply = {"raised": traceback.format_exc()}
    return {"id": request["id"], **reply}


def main() -> None:
    fd = os.open(find_port(PORT), os.O_RDWR)
    notify_ready()
    pending = b""
    while True:
        data = os.read(fd, CHUNK)
        if not data:
            # Nobody at the other end: before the first command, or between save and restore.
            time.sleep(0.02)
            continue
        pending += data
        *lines, pending = pending.split(b"\n")
        for line in lines:
            view = memoryview(json.dumps(answer(line)).encode() + b"\n")
            while view:
                view = view[os.write(fd, view[:CHUNK]) :]


if __name__ == "__main__":
    # What functions of tests like to use is loaded before the guest is saved.
    import fcntl  # noqa: F401
    import hashlib  # noqa: F401
    import re  # noqa: F401
    import shutil  # noqa: F401
    import struct  # noqa: F401

    threading.main_thread().name = "helper"
    main()
