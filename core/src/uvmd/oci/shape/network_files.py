"""``/etc/hostname``, ``/etc/hosts`` and ``/etc/resolv.conf``: texts and mounts (spec containers.md 7.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from uvmd.errors import Refused

#: The files, by their names in the sandbox's directory; each appears below /etc.
NAMES: Final = ("hostname", "hosts", "resolv.conf")

_MAX_SEARCHES: Final = 6  # what resolvers read; the reference refuses more
_WORD: Final = re.compile(r"[!-~]+")

_IPV6: Final = """
# The following lines are desirable for IPv6 capable hosts
::1     ip6-localhost ip6-loopback
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""


def hosts_text(hostname: str) -> str:
    """Return ``/etc/hosts`` for a host name, with its first label where it has several."""
    label, dot, _ = hostname.partition(".")
    names = f"{hostname} {label}" if dot else hostname
    return f"127.0.0.1 localhost\n127.0.0.1 {names}\n{_IPV6}"


def resolv_conf_text(servers: Sequence[str], searches: Sequence[str]) -> str:
    """Return ``/etc/resolv.conf``; empty where nothing is known.

    Raises:
        Refused: more than six searches, or a word that would do more than name something.
    """
    if len(searches) > _MAX_SEARCHES:
        raise Refused(f"{len(searches)} DNS searches, at most {_MAX_SEARCHES}")
    for word in (*servers, *searches):
        if not _WORD.fullmatch(word):
            raise Refused("a DNS server or search is one word")
    lines = [f"search {' '.join(searches)}"] if searches else []
    lines += [f"nameserver {server}" for server in servers]
    return "".join(f"{line}\n" for line in lines)


def missing_mounts(spec: dict[str, Any], directory: str) -> list[dict[str, Any]]:
    """Return bind mounts of the files in ``directory``, of those that the specification lacks."""
    mounted = {mount.get("destination") for mount in spec.get("mounts", ())}
    options = ["bind", "ro"] if spec["root"].get("readonly") else ["bind"]
    return [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{directory}/{name}",
            "options": list(options),
        }
        for name in NAMES
        if f"/etc/{name}" not in mounted
    ]


def apply_file_mounts(spec: dict[str, Any], directory: str) -> dict[str, Any]:
    """Return the specification with those mounts appended."""
    return {**spec, "mounts": [*spec.get("mounts", ()), *missing_mounts(spec, directory)]}
