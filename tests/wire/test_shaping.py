"""What annotations and fields of a specification do to a real container."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.containers import created, run, shell
from support.daemon import Daemon
from support.host import Connection, Refused

PRIVILEGED = "io.microsoft.virtualmachine.lcow.privileged"
CORE_LIMIT = "io.microsoft.lcow.rlimitcore"
SHM_SIZE = "io.microsoft.lcow.shm.size-kb"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({"username": "web"}, "1000 1001"),
        ({"username": "web:wheel"}, "1000 10"),
        ({"username": "1000:0"}, "1000 0"),
        ({"username": "4242"}, "4242 0"),
        ({"uid": 7, "gid": 8}, "7 8"),
    ],
)
def test_the_user_of_init_is_resolved_in_the_image(bridge: Connection, user: dict, expected: str) -> None:
    assert run(bridge, *shell("echo $(id -u) $(id -g)"), user=user).stdout.decode().strip() == expected


def test_the_size_of_shared_memory_is_the_annotations(bridge: Connection) -> None:
    text = run(
        bridge, *shell("grep ' /dev/shm ' /proc/mounts"), annotations={SHM_SIZE: "2048"}
    ).stdout.decode()
    assert text.count("\n") == 1, "the specification's own mount is replaced"
    assert "size=2048k" in text
    for option in ("nosuid", "nodev", "noexec"):
        assert option in text


@pytest.mark.parametrize("size", ["0", "-1", "much", "1.5", "99999999999999999999999"])
def test_a_size_of_shared_memory_that_is_none_is_refused(bridge: Connection, size: str) -> None:
    with pytest.raises(Refused):
        run(bridge, "/bin/true", annotations={SHM_SIZE: size})


def test_the_core_limit_is_the_annotations(bridge: Connection) -> None:
    ran = run(bridge, *shell("grep core /proc/self/limits"), annotations={CORE_LIMIT: "512;1024"})
    assert ran.stdout.split()[4:6] == [b"512", b"1024"]


@pytest.mark.parametrize("limit", ["1", "1;", "1;2;3", "a;b", "-1;1", ";"])
def test_a_core_limit_that_is_none_is_refused(bridge: Connection, limit: str) -> None:
    with pytest.raises(Refused):
        run(bridge, "/bin/true", annotations={CORE_LIMIT: limit})


def test_a_privileged_container_has_the_devices_of_the_vm(bridge: Connection) -> None:
    plain = run(bridge, *shell("ls /dev")).stdout.decode().split()
    for spelling in ("true", "1", "T"):
        more = run(bridge, *shell("ls /dev; ls -l /dev/kmsg"), annotations={PRIVILEGED: spelling})
        names = more.stdout.decode().split()
        assert "kmsg" in names
        assert more.exit_code == 0
    assert "kmsg" not in plain
    assert "kmsg" not in run(bridge, *shell("ls /dev"), annotations={PRIVILEGED: "false"}).stdout.decode()


def test_a_privileged_container_may_use_what_it_sees(bridge: Connection) -> None:
    script = "head -c 10 /dev/urandom | wc -c; dd if=/dev/zero of=/dev/full 2>&1"
    ran = run(bridge, *shell(script), annotations={PRIVILEGED: "true"})
    assert ran.stdout.startswith(b"10\n")
    assert b"No space left" in ran.stdout


def test_the_hostname_is_the_specifications(bridge: Connection) -> None:
    assert run(bridge, "/bin/hostname", hostname="a-b_c.d").stdout == b"a-b_c.d\n"


def test_the_bundle_is_written_by_root_alone(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        bundle = bridge.host.bundle(container.id)
        assert bundle.stat().st_mode & 0o022 == 0
        assert (bundle / "config.json").exists()
        text = (bundle / "config.json").read_text()
        assert text.endswith("\n")
        assert "windows" not in text
        assert f'"cgroupsPath":"{daemon.pods}/{container.id}"' in text.replace(" ", "")
    assert not Path(bundle).exists()
