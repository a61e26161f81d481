"""policyd as a process: its limits, its end, and that it outlives a daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import policies
import pytest
import regorus
from live_policyd import Vm, running
from policies import ID, create, policy

import uvmd
from uvmd.api import Fragment
from uvmd.errors import PolicyLost, Refused

pytestmark = pytest.mark.system

#: A rule beside the framework's that takes its time, or its memory, when the input asks for it.
LOOP = """
get_properties := {"allowed": count(a) > 0} if {
	input.loop
	a := [1 | some x in numbers.range(1, 3000); some y in numbers.range(1, 3000); x * y == 7]
}
get_properties := {"allowed": true} if not input.loop
"""
GREED = """
get_properties := {"allowed": count(a) > 0} if {
	input.loop
	a := [{"x": x, "y": [x, y]} | some x in numbers.range(1, 4000); some y in numbers.range(1, 4000)]
}
get_properties := {"allowed": true} if not input.loop
"""


def without_properties(more: str) -> str:
    return policy().replace("get_properties := data.framework.get_properties\n", "") + more


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Vm]:
    with running(tmp_path) as one:
        yield one


def test_a_policy_lives_through_a_daemons_end_with_all_that_it_remembers(machine: Vm) -> None:
    before = machine.enforcer(policy())
    pid = machine.pid
    for number, layer in enumerate(("base", "top")):
        assert before.decide("mount_device", policies.device(layer, number)).allowed
    assert before.decide("mount_overlay", policies.overlay(1, 0)).allowed
    assert before.decide("create_container", create()).allowed
    machine.restart_daemon()
    after = machine.enforcer(policy())
    assert machine.pid == pid, "the same process goes on"
    assert after.snapshot() == before.snapshot()
    decision = after.decide("exec_in_container", policies.execute())
    assert (decision.allowed, decision.stdio) == (True, True)
    assert not after.decide("create_container", create()).allowed, "an id is used once"


def test_what_is_to_be_done_meanwhile_is_done_while_policyd_answers(machine: Vm) -> None:
    enforcer, done = machine.enforcer(policy()), []
    before = enforcer.snapshot()
    device = policies.device("base", 0)
    (yes,) = enforcer.decide_all([("mount_device", device)], lambda: done.append(enforcer._memory.digest))
    assert yes.allowed
    assert done == [before[0].digest()], "once, and before the answer was taken"  # type: ignore[index]
    assert enforcer._memory.digest != done[0]
    (no,) = enforcer.decide_all([("mount_device", device)], lambda: done.append("again"))
    assert (no.allowed, done[1:]) == (False, ["again"])


def test_a_process_is_asked_for_so_too(machine: Vm) -> None:
    enforcer, done = machine.enforcer(policy()), []
    assert enforcer.decide("mount_device", policies.device("base", 0)).allowed
    assert enforcer.decide("mount_device", policies.device("top", 1)).allowed
    assert enforcer.decide("mount_overlay", policies.overlay(1, 0)).allowed
    (yes,) = enforcer.decide_all([("create_container", create())], lambda: done.append("once"))
    assert (yes.allowed, yes.stdio, done) == (True, True, ["once"])


def test_a_policyd_that_ends_meanwhile_is_a_no(machine: Vm) -> None:
    enforcer = machine.enforcer(without_properties(LOOP))
    asked = [("get_properties", {"loop": True})]
    (no,) = enforcer.decide_all(asked, lambda: os.kill(machine.pid, signal.SIGKILL))
    assert not no.allowed
    assert enforcer.decide("get_properties", {"loop": False}).allowed, "the next question finds another one"


def test_a_builtin_that_panics_is_tried_inside_of_the_limits(machine: Vm) -> None:
    panics = 'get_properties := {"allowed": true} if not strings.count("a", input.empty)\n'
    enforcer = machine.enforcer(without_properties(panics))
    assert enforcer.decide("get_properties", {"empty": ""}).allowed
    pid = machine.pid
    for empty in ("", None, "b"):
        assert enforcer.decide("get_properties", {"empty": empty}).allowed is (empty != "b")
    assert machine.pid == pid


def test_a_fresh_policy_lives_through_a_daemons_end_too(machine: Vm) -> None:
    machine.enforcer(policy(allow_dump_stacks=True))
    pid = machine.pid
    machine.restart_daemon()
    after = machine.enforcer(policy(allow_dump_stacks=True))
    assert after.decide("dump_stacks", {}).allowed
    assert machine.pid == pid


def test_a_policyd_of_another_version_makes_way(machine: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine.enforcer(policy())
    assert before.decide("mount_device", policies.device("base", 0)).allowed
    pid = machine.pid
    machine.restart_daemon()
    monkeypatch.setattr("uvmd_policy_rego.protocol.VERSION", 99)
    after = machine.enforcer(policy())
    assert machine.pid != pid
    assert not after.decide("mount_device", policies.device("base", 0)).allowed, "it is mounted"


def test_a_policyd_that_knows_more_than_was_answered_makes_way(machine: Vm) -> None:
    before = machine.enforcer(policy())
    assert before.decide("mount_device", policies.device("base", 0)).allowed
    pid = machine.pid
    # A daemon that dies between policyd's answer and its record.
    before._memory.add = lambda *_, **__: None  # type: ignore[method-assign]
    assert before.decide("mount_device", policies.device("top", 1)).allowed
    machine.restart_daemon()
    after = machine.enforcer(policy())
    assert machine.pid != pid
    assert after.decide("mount_device", policies.device("top", 1)).allowed, "it was never answered"
    assert not after.decide("mount_device", policies.device("base", 0)).allowed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_policyd_that_ends_is_made_anew_from_the_record(machine: Vm, number: int) -> None:
    enforcer = machine.enforcer(policy())
    assert enforcer.decide("mount_device", policies.device("base", 0)).allowed
    os.kill(machine.pid, number)
    denied = enforcer.decide("mount_device", policies.device("top", 1))
    assert not denied.allowed
    assert "policyd has ended" in denied.reason
    assert not enforcer.decide("mount_device", policies.device("base", 0)).allowed, "it is mounted"
    assert enforcer.decide("mount_device", policies.device("top", 1)).allowed
    machine.wait_for(1)


def test_a_change_is_put_back_although_policyd_has_ended(machine: Vm) -> None:
    enforcer = machine.enforcer(policy())
    before = enforcer.snapshot()
    assert enforcer.decide("mount_device", policies.device("base", 0)).allowed
    os.kill(machine.pid, signal.SIGKILL)
    enforcer.restore(before)
    assert enforcer.snapshot() == before
    assert enforcer.decide("mount_device", policies.device("base", 0)).allowed


def test_fragments_and_default_mounts_are_there_in_the_next_policyd(machine: Vm) -> None:
    one = {"issuer": "i", "feed": "f", "minimum_svn": 1, "includes": ["containers", "namespace"]}
    enforcer = machine.enforcer(policy(fragments=[one]))
    hosts = {"destination": "/etc/hosts", "type": "bind", "source": "/h", "options": ["bind"]}
    enforcer.extend_default_mounts([hosts])
    added = policy(policies.container(layers=["extra"])).split("\n")[3]
    code = f'package extra\nsvn := 1\nframework_version := "0.5.0"\n{added}\n'
    enforcer.load_fragment(Fragment("i", "f", code))
    assert enforcer.decide("mount_device", policies.device("extra", 0)).allowed
    assert enforcer.decide("mount_overlay", policies.overlay(0)).allowed
    os.kill(machine.pid, signal.SIGKILL)
    assert not enforcer.decide("create_container", create(mounts=[hosts])).allowed
    assert enforcer.decide("create_container", create(mounts=[hosts])).allowed
    pid = machine.pid
    machine.restart_daemon()
    after = machine.enforcer(policy(fragments=[one]))
    assert after.decide("exec_in_container", policies.execute()).allowed
    assert after.dump_state()["namespaces"] == ["extra"]
    assert machine.pid == pid


def test_a_policy_that_loops_is_denied_in_time_and_answers_the_next_question(machine: Vm) -> None:
    enforcer = machine.enforcer(without_properties(LOOP), decision_timeout_s=0.5)
    assert enforcer.decide("get_properties", {}).allowed
    pid = machine.pid
    denied = enforcer.decide("get_properties", {"loop": True})
    assert not denied.allowed
    assert denied.reason.startswith(
        "The security policy does not allow get_properties: the policy could not answer"
        " (no answer within 0.5 s)"
    )
    assert enforcer.decide("get_properties", {}).allowed
    assert machine.pid != pid


def test_a_policy_that_eats_memory_is_denied_and_answers_the_next_question(machine: Vm) -> None:
    enforcer = machine.enforcer(without_properties(GREED), memory_mib=96)
    assert enforcer.decide("get_properties", {}).allowed
    assert not enforcer.decide("get_properties", {"loop": True}).allowed
    assert enforcer.decide("get_properties", {}).allowed


def test_a_policy_that_takes_too_long_or_too_much_to_load_is_refused(machine: Vm) -> None:
    large = policy(*(policies.container(layers=[f"{number:064x}"]) for number in range(4000)))
    with pytest.raises(Refused, match=r"no answer within 0\.1 s"):
        machine.enforcer(large, load_timeout_s=0.1)
    machine.wait_for(0)
    with pytest.raises(Refused, match=r"policyd has ended|could not be started"):
        machine.enforcer(policy(*(policies.container(x="y" * 4000) for _ in range(16000))), memory_mib=64)
    machine.wait_for(0)


@pytest.mark.parametrize("opened", ["[", '{"a": ', "not (", "f("])
def test_a_policy_that_is_too_deep_for_any_stack_is_refused(machine: Vm, opened: str) -> None:
    closed = {"[": "]", "{": "}"}.get(opened[0], ")")
    deep = 200_000
    with pytest.raises(Refused):
        machine.enforcer(f"package policy\nx := {opened * deep}1{closed * deep}\n", load_timeout_s=20)
    machine.wait_for(0)
    assert machine.enforcer(policy(allow_dump_stacks=True)).decide("dump_stacks", {}).allowed


def test_a_policyd_that_stands_still_is_replaced_also_by_the_next_daemon(machine: Vm) -> None:
    enforcer = machine.enforcer(policy(allow_dump_stacks=True), decision_timeout_s=0.3)
    os.kill(machine.pid, signal.SIGSTOP)
    assert "no answer within" in enforcer.decide("dump_stacks", {}).reason
    assert enforcer.decide("dump_stacks", {}).allowed
    pid = machine.pid
    os.kill(pid, signal.SIGSTOP)
    machine.restart_daemon()
    after = machine.enforcer(policy(allow_dump_stacks=True), decision_timeout_s=0.3)
    assert machine.pid != pid
    assert after.decide("dump_stacks", {}).allowed


def test_a_record_that_does_not_fit_closes_the_door(machine: Vm) -> None:
    enforcer = machine.enforcer(policy())
    for number, layer in enumerate(("base", "top")):
        assert enforcer.decide("mount_device", policies.device(layer, number)).allowed
    assert enforcer.decide("mount_overlay", policies.overlay(1, 0)).allowed
    kept = enforcer._memory.kept
    kept._names["matches"][1][ID] = "#" + "0" * 32  # a candidate that nobody has
    os.kill(machine.pid, signal.SIGKILL)
    assert not enforcer.decide("get_properties", {}).allowed
    for _ in range(2):
        with pytest.raises(PolicyLost, match="could not be brought back"):
            enforcer.decide("get_properties", {})
    machine.wait_for(0)


def test_policyd_is_bounded_confined_and_small(machine: Vm) -> None:
    machine.enforcer(policy(), memory_mib=200)
    proc = Path(f"/proc/{machine.pid}")
    lines = (proc / "status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1")
    assert int(status["VmRSS"].split()[0]) < 35 * 1024
    limits = (proc / "limits").read_text()
    assert f"{200 << 20}" in next(line for line in limits.splitlines() if line.startswith("Max data size"))
    environment = (proc / "environ").read_bytes()
    assert environment.startswith(b"PATH=")
    assert environment.count(b"\0") == 1
    maps = (proc / "maps").read_text()
    assert "pydantic" not in maps
    assert "libcrypto" not in maps


def test_policyd_ends_with_a_monitor_that_is_killed(machine: Vm) -> None:
    machine.enforcer(policy())
    pid = machine.pid
    machine.monitor.process.kill()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("policyd runs on")


#: Tries, once it is confined as policyd is, what policyd must not be able to do.
FORBIDDEN = """
import ctypes, os, sys
sys.path[1:1] = sys.argv[1:]
from uvmd_policy_rego.policyd import confinement
libc = ctypes.CDLL(None, use_errno=True)
confinement.install()
tried = {
    "fork": lambda: os.fork(), "execve": lambda: os.execv("/bin/true", ["true"]),
    "open to read": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "open to write": lambda: os.open("/tmp/policyd", os.O_WRONLY | os.O_CREAT),
    "unlink": lambda: os.unlink("/tmp/policyd"), "mkdir": lambda: os.mkdir("/tmp/policyd"),
    "rename": lambda: os.rename("/tmp/a", "/tmp/b"), "chmod": lambda: os.chmod("/", 0o755),
    "kill": lambda: os.kill(os.getpid(), 0), "setuid": lambda: os.setuid(0), "chdir": lambda: os.chdir("/"),
    "mount": lambda: check(libc.mount(b"", b"", b"", 0, None)),
    "ptrace": lambda: check(libc.ptrace(0, 0, 0, 0)), "prctl": lambda: check(libc.prctl(15, b"x", 0, 0, 0)),
    "socket": lambda: check(libc.socket(1, 1, 0)), "socketpair": lambda: check(libc.socketpair(1, 1, 0, 0)),
    "connect": lambda: check(libc.connect(0, 0, 0)), "bind": lambda: check(libc.bind(0, 0, 0)),
    "sendmsg": lambda: check(libc.sendmsg(0, 0, 0)), "dup": lambda: os.dup(0), "pipe": lambda: os.pipe(),
    "memfd_create": lambda: os.memfd_create("x"), "setrlimit": lambda: check(libc.setrlimit(0, 0)),
    "code": lambda: check(0 if libc.mmap(None, 4096, 7, 0x22, -1, 0) != -1 else -1),
}
def check(result):
    if result != -1:
        raise AssertionError(result)
    raise OSError(ctypes.get_errno(), "")
left = []
for name, call in tried.items():
    try:
        call()
    except OSError as error:
        if error.errno != 1:
            left.append(f"{name} {error.errno}")
    else:
        left.append(name)
os.write(1, repr(left).encode())
os._exit(0)
"""


def test_policyd_has_no_files_processes_sockets_or_signals() -> None:
    folders = [str(Path(__file__).parents[1] / "src"), str(Path(uvmd.__file__).parents[1])]
    folders.append(str(Path(regorus.__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", FORBIDDEN, *folders], capture_output=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr.decode(), done.returncode) == (b"[]", "", 0)


POLICYD = ", ".join(f"uvmd_policy_rego.policyd.{name}" for name in ("main", "confinement", "serving"))


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("uvmd_policy_rego.enforcer", ["regorus", "uvmd_policy_rego.engine", "uvmd_policy_rego.envelopes"]),
        (POLICYD, ["pydantic", "pluggy", "hashlib", "logging", "uvmd.api.policy", "uvmd.monitor"]),
    ],
)
def test_neither_side_imports_what_the_other_needs(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([one for one in {absent!r} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True, timeout=60)
    assert done.stdout == b"[]\n"
