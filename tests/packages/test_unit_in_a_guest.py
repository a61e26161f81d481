"""The unit of an ordinary installation under a real systemd, as it is and with tighter.conf."""

from __future__ import annotations

import pytest

from guest.harness.code import ROOTFS
from guest.harness.guest import Guest
from support.containers import created
from support.machine import ROOT

UNITS = ROOT / "packaging" / "systemd"
PLACE = "/etc/systemd/system"
#: Of Debian's usual units, which no guest of ours boots and every service waits for by default.
BASIC_S = 240


def _write(path: str, text: str) -> None:
    import os

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


@pytest.fixture(params=["as it is", "tighter"])
def installed(request: pytest.FixtureRequest, fresh_guest: Guest) -> Guest:
    """A guest whose uvmd runs under the unit of the package."""
    guest = fresh_guest
    guest.daemon.stop()
    guest.call(_write, f"{PLACE}/uvmd.service", (UNITS / "uvmd.service").read_text())
    if request.param == "tighter":
        guest.call(_write, f"{PLACE}/uvmd.service.d/tighter.conf", (UNITS / "tighter.conf").read_text())
    guest.sh("systemctl daemon-reload")
    guest.sh("systemctl start basic.target", timeout_s=BASIC_S)
    guest.daemon.start()
    return guest


def test_containers_run_and_outlive_a_reload_of_the_unit(installed: Guest) -> None:
    assert installed.run("/bin/true").exit_code == 0
    assert installed.sh("stat -c %a /run/uvmd").strip() == "700"
    with created(installed.bridge, "/bin/sleep", "600", root=ROOTFS) as container:
        container.init()
        before = installed.daemon.pids
        installed.sh("systemctl reload uvmd.service", timeout_s=60)
        installed.daemon.wait_for_another(before["daemon"])
        installed.hang_up()
        container.bridge = installed.bridge
        assert container.exec("/bin/true").wait() == 0
        assert installed.daemon.pids["monitor"] == before["monitor"]
    installed.daemon.stop()
    assert installed.daemon.state["Result"] == "success"


def test_settings_that_would_be_refused_leave_the_daemon_that_runs(installed: Guest) -> None:
    before = installed.daemon.pids
    installed.daemon.configure("[plugin.nobody]\nx = 1")
    assert "failed" in installed.sh("systemctl reload uvmd.service 2>&1; true", timeout_s=60)
    assert installed.daemon.pids == before
    assert installed.run("/bin/true").exit_code == 0
