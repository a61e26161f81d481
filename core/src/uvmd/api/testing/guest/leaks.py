"""What a guest holds: compared before and after, nothing may be left behind."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvmd.api.testing.guest.vm import Vm

Holdings = dict[str, list[str]]


def holdings() -> Holdings:
    """Collect it; runs in the guest, so it imports what it uses."""
    import os

    def read(path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def below(root: str) -> list[str]:
        return [f"{folder}/{name}" for folder, folders, files in os.walk(root) for name in (*folders, *files)]

    def links(folder: str) -> list[str]:
        found = []
        try:
            for name in os.listdir(folder):
                path = os.readlink(f"{folder}/{name}").partition(":[")[0]
                # Of its own, whatever its pid.
                found.append(path.replace(folder.removesuffix("fd"), "/proc/self/"))
        except OSError:
            pass
        return found

    # Files that the first change makes and that stay: the records, each plugin's state.
    kept = ("/run/uvmd/devices.json", "/run/uvmd/plugins/")
    answer: dict[str, Any] = {"processes": [], "block devices": [], "cgroups": []}
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        words = read(f"/proc/{pid}/cmdline").split("\0")
        if not words[0] or words[0] == "(udev-worker)":
            continue  # Kernel threads, zombies and udev's workers come and go.
        answer["processes"].append(" ".join(words[:6]).strip())
        for role, sign in (("monitor", "uvmd/monitor/__main__.py"), ("daemon", "uvmd.daemon")):
            if any(word.endswith(sign) for word in words):
                open_files = links(f"/proc/{pid}/fd")
                # They stay open too, once.
                for path in {path for path in open_files if path.startswith(kept)}:
                    open_files.remove(path)
                answer[f"descriptors of the {role}"] = open_files
    for name in os.listdir("/sys/block"):
        mapper = read(f"/sys/block/{name}/dm/name").strip()
        backing = read(f"/sys/block/{name}/loop/backing_file").strip()
        if mapper or backing:
            answer["block devices"].append(f"{mapper or name} {backing}".strip())
    for root in (
        "/sys/fs/cgroup/pods",
        *(f"/sys/fs/cgroup/{name}/pods" for name in os.listdir("/sys/fs/cgroup")),
    ):
        answer["cgroups"] += [root, *below(root)] if os.path.isdir(root) else []
    answer["cgroups"] = [path for path in answer["cgroups"] if os.path.isdir(path)]
    answer["mounts"] = [line.split(" ")[4] for line in read("/proc/1/mountinfo").splitlines()]
    answer["run files"] = [path for path in below("/run/uvmd") if not path.startswith(kept)]
    # The folder of all bundles comes with the first and stays.
    answer["bundles"] = [path for path in below("/run/gcs") + below("/run/mounts") if path != "/run/gcs/c"]
    answer["network devices"] = os.listdir("/sys/class/net")
    answer["network namespaces"] = below("/run/netns")
    return answer


def differences(before: Holdings, after: Holdings) -> list[str]:
    """What came and what went, one line each."""
    lines = []
    for kind in sorted(before.keys() | after.keys()):
        old, new = Counter(before.get(kind, [])), Counter(after.get(kind, []))
        lines += [f"{kind}: + {what}" for what in sorted((new - old).elements())]
        lines += [f"{kind}: - {what}" for what in sorted((old - new).elements())]
    return lines


def assert_nothing_left(guest: Vm, before: Holdings, timeout_s: float = 10) -> None:
    """Compare with ``before``; what is on its way out gets a moment."""
    deadline = time.monotonic() + timeout_s
    while lines := differences(before, guest.call(holdings)):
        assert time.monotonic() < deadline, "left behind in the guest:\n" + "\n".join(lines)
        time.sleep(0.1)
