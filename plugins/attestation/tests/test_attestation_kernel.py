"""The kernel's interfaces, emulated by a file system that forwards system calls (root mounts it).

Where hardware would answer, ``emulated_drivers`` does: from other offsets than the
implementation's, written down from the kernel's and the processors' documents.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulated_drivers import Module, SnpDevice, TdxDevice
from emulated_processors import Amd, Intel
from emulated_vm import Hardware

from uvmd import errors
from uvmd.api.testing import FakePlatform, fake_environment
from uvmd.errors import Failed, NotFound
from uvmd_attestation import evidence, snp_report, sources, tdx_report, tsm
from uvmd_attestation.evidence import Roots

pytestmark = pytest.mark.root

HOST_DATA = bytes(range(32))
CONFIG_ID = HOST_DATA + bytes(16)
DATA = b"caller".ljust(64, b"\0")
EMULATED = Callable[..., Hardware]


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[EMULATED]:
    """Make hardware; unmounted after the test."""
    made: list[Hardware] = []

    def make(
        devices: dict[str, SnpDevice | TdxDevice] | None = None,
        module: Module | None = None,
        *,
        configfs: bool = True,
    ) -> Hardware:
        made.append(Hardware(tmp_path / f"hardware{len(made)}", devices, module, configfs=configfs))
        return made[-1]

    yield make
    for one in made:
        requests = one.reports.entries
        one.close()
        assert not requests, "a request to the security module was left behind"


def amd(**more: object) -> Amd:
    return Amd(host_data=HOST_DATA, **more)  # type: ignore[arg-type]


def sev_module(processor: Amd, **more: object) -> Module:
    return Module("sev_guest", processor.report, **more)  # type: ignore[arg-type]


def tdx_module(processor: Intel, **more: object) -> Module:
    return Module("tdx_guest", lambda data, level: processor.quote(data), **more)  # type: ignore[arg-type]


def roots(hardware: Hardware) -> Roots:
    return Roots(hardware.sys, hardware.dev)


def read(kind: Callable[..., bytes], hardware: Hardware) -> bytes:
    return kind(fake_environment(platform=FakePlatform(sys_root=hardware.sys, dev_root=hardware.dev)))


#: A program's arguments: module and function, places of /sys and /dev. Prints what came of it.
ELSEWHERE = """
import json, sys
from types import SimpleNamespace
from uvmd_attestation import evidence, sources
function, sys_root, dev_root = sys.argv[1:]
try:
    if function == "read_here":
        found = evidence.read_here(evidence.Roots(sys_root, dev_root), b"caller".ljust(64, b"\\0"))
        answer = [found.blob.hex(), found.note]
    else:
        platform = SimpleNamespace(sys_root=sys_root, dev_root=dev_root)
        answer = [sources.tdx(SimpleNamespace(platform=platform)).hex()]
except Exception as error:
    answer = {"type": type(error).__name__, "text": str(error)}
print(json.dumps(answer))
"""


def elsewhere(function: str, hardware: Hardware) -> list[str]:
    """Ask in a process of its own; raise what was raised there.

    The argument of TDX's ioctl is so large that Python keeps its lock meanwhile: asked here,
    the emulated device could not answer.
    """
    argv = [sys.executable, "-c", ELSEWHERE, function, hardware.sys, hardware.dev]
    run = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    answer = json.loads(run.stdout)
    if isinstance(answer, dict):
        raise getattr(errors, answer["type"], OSError)(answer["text"])
    return [str(one) for one in answer]


def config_id(hardware: Hardware) -> bytes:
    return bytes.fromhex(elsewhere("tdx", hardware)[0])


# SEV-SNP


@pytest.mark.parametrize("name", ["sev", "sev-guest"])
@pytest.mark.parametrize("configfs", [True, False])
def test_host_data_come_from_either_driver_where_there_is_no_module(
    emulated: EMULATED, name: str, configfs: bool
) -> None:
    device = SnpDevice(amd(), old=name == "sev")
    assert read(sources.sev, emulated({name: device}, configfs=configfs)) == HOST_DATA
    (asked,) = device.asked
    assert asked[64:] == bytes(32), "level 0, and nothing reserved is set"
    assert asked[:64] != bytes(64), "random bytes, so that an old answer is seen"


def test_the_older_device_is_taken_where_both_are(emulated: EMULATED) -> None:
    older, newer = SnpDevice(amd(), old=True), SnpDevice(amd())
    hardware = emulated({"sev": older, "sev-guest": newer})
    found = evidence.read_sev(roots(hardware), DATA)
    assert (found.source, len(older.asked), len(newer.asked)) == (f"{hardware.dev}/sev", 1, 0)


def test_the_module_is_asked_before_any_device(emulated: EMULATED) -> None:
    device = SnpDevice(amd())
    hardware = emulated({"sev-guest": device}, sev_module(amd(), certificates=b"table", manifest=b"list"))
    found = evidence.read_sev(roots(hardware), DATA)
    assert found.source == f"{hardware.sys}/kernel/config/tsm/report"
    assert snp_report.parse_report(found.blob).report_data == DATA
    assert (found.certificates, found.manifest) == (b"table", b"list")
    assert not device.asked
    assert read(sources.sev, hardware) == HOST_DATA
    assert len(set(hardware.reports.made)) == 2, "each question has a folder of its own"


@pytest.mark.parametrize("floor", [0, 1, 3])
def test_a_guest_below_the_highest_level_asks_for_its_own(emulated: EMULATED, floor: int) -> None:
    hardware = emulated(module=sev_module(amd(), floor=floor))
    found = evidence.read_sev(roots(hardware), DATA)
    assert snp_report.parse_report(found.blob).vmpl == floor


@pytest.mark.parametrize("module", [None, Module("arm_cca_guest", lambda data, level: b"token")])
def test_another_module_or_none_leads_to_the_device(emulated: EMULATED, module: Module | None) -> None:
    device = SnpDevice(amd())
    assert read(sources.sev, emulated({"sev-guest": device}, module)) == HOST_DATA
    assert device.asked


@pytest.mark.parametrize("disturbed_by", [1, -1])
def test_an_answer_to_another_question_is_not_believed(emulated: EMULATED, disturbed_by: int) -> None:
    hardware = emulated(module=sev_module(amd(), disturbed_by=disturbed_by))
    with pytest.raises(Failed, match="security module took"):
        read(sources.sev, hardware)


def test_a_module_that_refuses_is_no_reason_to_ask_a_device(emulated: EMULATED) -> None:
    device = SnpDevice(amd())
    hardware = emulated({"sev-guest": device}, sev_module(amd(), refuse=errno.EIO))
    with pytest.raises(OSError) as caught:
        read(sources.sev, hardware)
    assert caught.value.errno == errno.EIO
    assert not device.asked


def test_an_answer_without_an_end_is_cut_off(emulated: EMULATED) -> None:
    endless = Module("sev_guest", lambda data, level: bytes(tsm.MAX_BYTES + 1))
    with pytest.raises(Failed, match="has more than"):
        read(sources.sev, emulated(module=endless))


@pytest.mark.parametrize("old", [False, True])
def test_the_firmwares_status_is_looked_at(emulated: EMULATED, old: bool) -> None:
    name = "sev" if old else "sev-guest"
    with pytest.raises(Failed, match="status 0x16"):
        read(sources.sev, emulated({name: SnpDevice(amd(), old=old, status=0x16)}))


@pytest.mark.parametrize("size", [0, 1185 - 2, 4000, 0xFFFFFFFF])
def test_a_size_that_cannot_be_is_refused(emulated: EMULATED, size: int) -> None:
    with pytest.raises(Failed, match="report"):
        read(sources.sev, emulated({"sev-guest": SnpDevice(amd(), size=size)}))


@pytest.mark.parametrize(("old", "code"), [(False, 0x1_0000_0016), (True, 0x16)])
def test_what_a_driver_refuses_is_said_with_the_firmwares_error(
    emulated: EMULATED, old: bool, code: int
) -> None:
    name = "sev" if old else "sev-guest"
    device = SnpDevice(amd(), old=old, refuse=errno.EIO, firmware_error=code)
    with pytest.raises(OSError, match=f"error {code:#x}.*{name}"):
        read(sources.sev, emulated({name: device}))


def test_a_report_that_was_made_for_another_question_is_refused(emulated: EMULATED) -> None:
    stale = amd(changes={0x50: DATA})
    with pytest.raises(Failed, match="was not made for this question"):
        read(sources.sev, emulated({"sev-guest": SnpDevice(stale)}))
    with pytest.raises(Failed, match="was not made for this question"):
        read(sources.sev, emulated(module=sev_module(stale)))


def test_a_buffer_that_nobody_filled_is_no_report(emulated: EMULATED) -> None:
    with pytest.raises(Failed, match="version 0"):
        read(sources.sev, emulated({"sev-guest": SnpDevice(amd(version=0))}))


def test_without_sev_there_is_no_host_data(emulated: EMULATED) -> None:
    with pytest.raises(NotFound, match="SEV device is not found"):
        read(sources.sev, emulated({"tdx_guest": TdxDevice(Intel())}))


# TDX


def test_the_config_id_comes_from_the_device(emulated: EMULATED) -> None:
    assert config_id(emulated({"tdx_guest": TdxDevice(Intel(CONFIG_ID))})) == CONFIG_ID


def test_a_quote_that_the_host_made_up_changes_nothing(emulated: EMULATED) -> None:
    launched = Intel(config_id=bytes(48), quoted=CONFIG_ID)
    hardware = emulated({"tdx_guest": TdxDevice(launched)}, tdx_module(launched))
    shown, _ = elsewhere("read_here", hardware)
    assert tdx_report.parse_quote(bytes.fromhex(shown)).mrconfigid == CONFIG_ID
    assert config_id(hardware) == bytes(48)


def test_without_the_device_a_quote_is_not_enough(emulated: EMULATED) -> None:
    with pytest.raises(NotFound, match="TDX device is not found"):
        config_id(emulated(module=tdx_module(Intel(CONFIG_ID))))


def test_a_tdreport_for_another_question_or_of_another_type_is_refused(emulated: EMULATED) -> None:
    for changes, text in (({0x80: DATA}, "not made for this question"), ({0: b"\0"}, "is no TDREPORT")):
        with pytest.raises(Failed, match=text):
            config_id(emulated({"tdx_guest": TdxDevice(Intel(CONFIG_ID, changes=changes))}))


def test_a_tdx_device_that_refuses_is_said(emulated: EMULATED) -> None:
    with pytest.raises(OSError, match="tdx_guest"):
        config_id(emulated({"tdx_guest": TdxDevice(Intel(), refuse=errno.EIO)}))


# What is shown to others


def test_evidence_of_a_trust_domain_is_a_quote_or_else_its_tdreport(emulated: EMULATED) -> None:
    intel = Intel(CONFIG_ID)
    device = {"tdx_guest": TdxDevice(intel)}
    quoted, note = elsewhere("read_here", emulated(device, tdx_module(intel)))
    assert tdx_report.parse_quote(bytes.fromhex(quoted)).report_data == DATA
    assert note == ""
    for module in (None, tdx_module(intel, refuse=errno.EIO)):
        own, note = elsewhere("read_here", emulated(device, module))
        assert tdx_report.parse_tdreport(bytes.fromhex(own)).report_data == DATA
        assert note.startswith("no quote: ")


def test_without_hardware_it_is_said_what_was_looked_for(emulated: EMULATED) -> None:
    with pytest.raises(NotFound, match=r"no confidential hardware here: .*sev-guest.*tdx_guest.*tsm/report"):
        evidence.read_here(roots(emulated()), DATA)
    with pytest.raises(NotFound, match="no confidential hardware here"):
        evidence.read_here(roots(emulated(configfs=False)), DATA)
