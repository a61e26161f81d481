"""What QEMU is told: the same devices for saving and restoring, whatever the back ends."""

from __future__ import annotations

import itertools
from pathlib import Path

from uvmd.api.testing.guest.leaks import differences
from uvmd.api.testing.guest.profiles import PROFILES, Files, command_line

FILES = Files(Path("/f"), Path("/k"), (Path("/i"),), Path("/root"), Path("/ram"), shared=True)


def devices(words: list[str]) -> list[str]:
    return [after for word, after in itertools.pairwise(words) if word == "-device"]


def test_a_restored_guest_has_the_devices_of_the_saved_one() -> None:
    other = Files(Path("/g"), Path("/k"), (Path("/i"),), Path("/root"), Path("/copy"), shared=False)
    saved = command_line(PROFILES["v2"], FILES, "tcg", "t")
    restored = command_line(PROFILES["v2"], other, "tcg", "t", incoming=True)
    assert devices(saved) == devices(restored)
    assert restored[-2:] == ["-incoming", "defer"]


def test_a_profile_says_its_version_of_cgroups() -> None:
    words = command_line(PROFILES["v1"], FILES, "tcg", "t")
    assert "systemd.unified_cgroup_hierarchy=0" in words[words.index("-append") + 1]
    assert {name: profile.cgroups for name, profile in PROFILES.items()} == {
        "v2": "v2",
        "v1": "v1",
        "nvdimm": "v2",
    }


def test_kvm_takes_the_hosts_cpu_and_emulation_all_features() -> None:
    for accelerator, cpu in (("kvm", "host"), ("tcg", "max")):
        words = command_line(PROFILES["v2"], FILES, accelerator, "t")
        assert words[words.index("-cpu") + 1] == cpu


def test_what_came_and_went_is_told_with_its_kind() -> None:
    before = {"mounts": ["/a", "/a"], "cgroups": []}
    after = {"mounts": ["/a"], "cgroups": ["/pods/x"], "processes": ["sleep"]}
    assert differences(before, after) == ["cgroups: + /pods/x", "mounts: - /a", "processes: + sleep"]
