"""The real daemon in an emulated confidential VM: which policies a host can bring into force (root)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated_drivers import Module, SnpDevice, TdxDevice
from emulated_processors import Amd, Intel
from emulated_vm import Hardware, show

from support import machine
from support.daemon import Daemon
from support.host import GET_PROPERTIES, NULL_ID, ZERO_GUID, Connection, Refused, code
from support.strict import MONITOR, SCRIPTED
from uvmd.api.testing import POLICY

pytestmark = [pytest.mark.root, pytest.mark.system]

DIGEST = hashlib.sha256(base64.b64decode(POLICY)).digest()
OF_NOTHING = hashlib.sha256(b"").digest()


def sev(host_data: bytes) -> dict[str, SnpDevice | TdxDevice]:
    return {"sev-guest": SnpDevice(Amd(host_data))}


def old_sev(host_data: bytes) -> dict[str, SnpDevice | TdxDevice]:
    return {"sev": SnpDevice(Amd(host_data), old=True)}


def tdx(host_data: bytes) -> dict[str, SnpDevice | TdxDevice]:
    return {"tdx_guest": TdxDevice(Intel(host_data.ljust(48, b"\0")))}


KINDS = pytest.mark.parametrize("kind", [sev, old_sev, tdx])


@contextlib.contextmanager
def confidential_vm(
    folder: Path,
    devices: dict[str, SnpDevice | TdxDevice],
    module: Module | None = None,
    *,
    script: dict[str, object] | None = None,
    late: bool = False,
    **options: str,
) -> Iterator[tuple[Daemon, Connection]]:
    """A daemon in a VM with these devices; its flags wish for an open door."""
    hardware = Hardware(folder / "hardware", devices, module, late=late)
    daemon = Daemon(options={"vm-stance": "allow", "vm-sequential": "auto", **options})
    flags = [f"--{key}={value}" for key, value in daemon.options.items()]
    python = str(machine.BIN / "python")
    command = [python, "-I", "-S", str(MONITOR), "--", python, "-I", str(SCRIPTED)]
    command += [f"--script={json.dumps(script or {})}", *flags]
    daemon.program = hardware.program(daemon.folder, command)
    try:
        daemon.start()
        bridge = daemon.connect()
        yield daemon, bridge
        bridge.close()
        assert daemon.stop() == 0, daemon.describe()
    finally:
        daemon.close()
        hardware.close()


def set_policy(bridge: Connection, policy: str = POLICY) -> None:
    settings = {"EnforcerType": "scripted" if policy else "", "EncodedSecurityPolicy": policy}
    bridge.modify(NULL_ID, "SecurityPolicy", settings=settings)


def is_open(bridge: Connection) -> bool:
    """Whether something that a policy decides is answered."""
    body = {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Query": '{"PropertyTypes": ["uvmd.ps"]}'}
    answer = bridge.ask(GET_PROPERTIES, body)
    return code(answer) == "S_OK"


def assert_refused(bridge: Connection, text: str, *policies: str) -> None:
    for policy in policies or (POLICY, ""):
        with pytest.raises(Refused, match=text):
            set_policy(bridge, policy)
    assert not is_open(bridge)


@KINDS
def test_the_policy_that_the_vm_was_launched_for_comes_into_force(kind, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with confidential_vm(tmp_path, kind(DIGEST)) as (_, bridge):
        assert not is_open(bridge), "the flag wished for an open door, the hardware decides"
        set_policy(bridge)
        assert is_open(bridge)
        with pytest.raises(Refused, match="already been set"):
            set_policy(bridge)


@KINDS
def test_any_other_policy_is_refused_and_the_right_one_still_accepted(kind, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = base64.b64encode(b"package policy\n\nallow_everything := true\n").decode()
    with confidential_vm(tmp_path, kind(DIGEST)) as (_, bridge):
        assert_refused(bridge, "doesn't match HostData provided at launch", other, "")
        set_policy(bridge)
        assert is_open(bridge)


@KINDS
def test_without_a_source_of_launch_data_everything_is_refused(kind, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with confidential_vm(tmp_path, kind(DIGEST), **{"plugins-deny": "attestation"}) as (_, bridge):
        assert_refused(bridge, "no plugin reads the launch data")


def test_the_empty_policy_needs_a_vm_that_was_launched_for_it(tmp_path: Path) -> None:
    with confidential_vm(tmp_path, sev(OF_NOTHING)) as (_, bridge):
        assert_refused(bridge, "doesn't match", POLICY)
        set_policy(bridge, "")
        assert is_open(bridge)


def test_a_driver_that_is_loaded_after_the_start_is_seen_when_a_policy_comes(tmp_path: Path) -> None:
    with confidential_vm(tmp_path, sev(DIGEST), late=True, **{"vm-stance": "deny"}) as (daemon, bridge):
        show(daemon.monitor_pid, tmp_path / "hardware", "sev-guest")
        assert_refused(bridge, "doesn't match", "")
        set_policy(bridge)
        assert is_open(bridge)


def test_a_firmware_that_refuses_leaves_the_door_closed(tmp_path: Path) -> None:
    broken = {"sev-guest": SnpDevice(Amd(DIGEST), status=0x16)}
    with confidential_vm(tmp_path, broken) as (_, bridge):
        assert_refused(bridge, "cannot be read: /dev/sev-guest: the firmware refused")


def test_launch_data_come_through_configfs_where_the_kernel_has_it(tmp_path: Path) -> None:
    processor = Amd(DIGEST)
    module = Module("sev_guest", processor.report)
    # The device would say something else: it is not asked.
    with confidential_vm(tmp_path, sev(bytes(32)), module) as (_, bridge):
        set_policy(bridge)
        assert is_open(bridge)


def test_a_quote_of_the_hosts_does_not_bring_a_policy_into_force(tmp_path: Path) -> None:
    launched = Intel(config_id=bytes(48), quoted=DIGEST.ljust(48, b"\0"))
    module = Module("tdx_guest", lambda data, level: launched.quote(data))
    with confidential_vm(tmp_path, {"tdx_guest": TdxDevice(launched)}, module) as (_, bridge):
        assert_refused(bridge, "doesn't match HostData")


def test_a_restarted_daemon_asks_again_and_goes_on(tmp_path: Path) -> None:
    device = SnpDevice(Amd(DIGEST))
    with confidential_vm(tmp_path, {"sev-guest": device}) as (daemon, bridge):
        set_policy(bridge)
        asked = len(device.asked)
        daemon.kill_daemon()
        bridge = daemon.connect()
        assert is_open(bridge)
        assert len(device.asked) > asked
        with pytest.raises(Refused, match="already been set"):
            set_policy(bridge)
        bridge.close()


@pytest.mark.parametrize("allowed", [False, True])
def test_the_log_is_silent_until_the_policy_lets_the_daemon_write(tmp_path: Path, allowed: bool) -> None:
    script = {"runtime_logging": {"allowed": allowed}}
    with confidential_vm(tmp_path, sev(DIGEST), script=script) as (daemon, bridge):
        assert not is_open(bridge)
        from_daemon = [line for line in daemon.log_lines() if line.get("logger") != "uvmd.monitor"]
        assert not from_daemon
        set_policy(bridge)
        assert is_open(bridge)
    lines = [line for line in daemon.log_lines() if "operation" in line]
    assert bool(lines) is allowed
