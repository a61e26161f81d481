"""The units of an ordinary installation under a real systemd, the monitor's with tighter.conf."""

from __future__ import annotations

import pytest

from guest.harness.code import ROOTFS
from guest.harness.daemon import MONITOR
from guest.harness.guest import Guest
from support.containers import created
from support.machine import ROOT

PLACE = "/etc/systemd/system"
#: Of Debian's usual units, which no guest of ours boots and every service waits for by default.
BASIC_S = 240


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


@pytest.fixture
def installed(fresh_guest: Guest) -> Guest:
    """A guest whose uvmd runs under the units of the package, without the drop-ins of the image."""
    guest = fresh_guest
    guest.daemon.stop()
    tighter = (ROOT / "packaging" / "systemd" / "tighter.conf").read_text()
    guest.sh(f"rm {PLACE}/uvmd*.service.d/uvm.conf")
    guest.call(_write, f"{PLACE}/{MONITOR}.d/tighter.conf", tighter)
    guest.sh("systemctl daemon-reload")
    guest.sh("systemctl start basic.target", timeout_s=BASIC_S)
    guest.daemon.start()
    return guest


def test_containers_run_and_outlive_a_reload_of_the_daemon(installed: Guest) -> None:
    assert installed.run("/bin/true").exit_code == 0
    assert installed.sh("stat -c %a /run/uvmd").strip() == "700"
    with created(installed.bridge, "/bin/sleep", "600", root=ROOTFS) as container:
        container.init()
        before = installed.daemon.pids
        installed.sh("systemctl reload uvmd.service", timeout_s=60)
        installed.daemon.wait_for_another(before["daemon"])
        assert container.exec("/bin/true").wait() == 0
        assert installed.daemon.pids["monitor"] == before["monitor"]
    installed.daemon.stop()
    assert installed.daemon.state["Result"] == "success"
    assert installed.daemon.state_of(MONITOR)["Result"] == "success"
