"""What plugins add to a container: mounts, devices, environment, groups, and who clashes with whom.

A plugin's objects are read like a host's: keys folded, types checked. Nothing of the host's
is replaced but a variable, since a vendor's description knows better than an image's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from uvmd.api.containers import Additions
from uvmd.errors import Failed, InvalidMessage, Refused
from uvmd.linux.paths import is_clean_absolute
from uvmd.oci.fields import DEVICE, MOUNT, Object, read_object
from uvmd.oci.shape.devices import allow, rule

_KINDS: Final = ("b", "c", "u", "p")
_ACCESS: Final = "rwm"
_MAX_GROUP: Final = (1 << 32) - 1

Entry = dict[str, Any]


def apply_additions(spec: Entry, additions: Sequence[tuple[str, Additions]]) -> tuple[Entry, list[Entry]]:
    """Return the specification with all additions, and the devices among them.

    ``additions`` are with the names of who made them.

    Raises:
        Refused: two of them, or one and the host, want one destination, path or variable.
        Failed: one of them is not what an addition may be.
    """
    merged = _Merged(spec)
    for name, added in additions:
        merged.take(name, added)
    return merged.apply(spec), merged.devices


class _Merged:
    """All additions, each place with the one who took it."""

    def __init__(self, spec: Entry) -> None:
        self.mounts: list[Entry] = []
        self.devices: list[Entry] = []
        self.rules: list[Entry] = []
        self.environment: dict[str, str] = {}
        self.groups: dict[int, None] = {}
        self._taken: dict[tuple[str, str], str] = {}
        for mount in spec.get("mounts", ()):
            self._taken["mount at", mount.get("destination", "")] = "the host"
        for device in spec["linux"].get("devices", ()):
            self._taken["device", device.get("path", "")] = "the host"

    def take(self, name: str, added: Additions) -> None:
        if not isinstance(added, Additions):
            raise Failed(f"shaper {name} returned {type(added).__name__}, not Additions")
        for mount in added.mounts:
            self.mounts.append(self._mount(name, mount))
        for device in added.devices:
            self._device(name, device)
        for key, value in added.environment.items():
            self._variable(name, key, value)
        for group in added.groups:
            if type(group) is not int or not 0 <= group <= _MAX_GROUP:
                raise Failed(f"shaper {name}: a group is a number")
            self.groups[group] = None

    def _claim(self, name: str, what: str, which: str) -> None:
        other = self._taken.get((what, which))
        if other is not None:
            raise Refused(f"shaper {name} adds the {what} {which:.200}, and so does {other}")
        self._taken[what, which] = f"shaper {name}"

    def _mount(self, name: str, given: Mapping[str, Any]) -> Entry:
        mount = _read(name, given, MOUNT, "mount")
        destination = mount.get("destination", "")
        if not is_clean_absolute(destination):
            raise Failed(f"shaper {name}: a mount's destination is an absolute, clean path")
        self._claim(name, "mount at", destination)
        return mount

    def _device(self, name: str, given: Mapping[str, Any]) -> None:
        access = given.get("access", _ACCESS) if isinstance(given, Mapping) else _ACCESS
        device = _read(name, given, DEVICE, "device")
        path, kind = device.get("path", ""), device.get("type", "")
        if not is_clean_absolute(path) or kind not in _KINDS:
            raise Failed(f"shaper {name}: a device has an absolute, clean path and a type")
        if not isinstance(access, str) or not access or not set(access) <= set(_ACCESS):
            raise Failed(f"shaper {name}: the access to a device is some of {_ACCESS}")
        self._claim(name, "device", path)
        self.devices.append(device)
        if kind != "p":  # a fifo has no number that a rule could name
            self.rules.append(rule(kind, device.get("major", 0), device.get("minor", 0), access))

    def _variable(self, name: str, key: object, value: object) -> None:
        if not isinstance(key, str) or not isinstance(value, str) or not key or "=" in key:
            raise Failed(f"shaper {name}: a variable has a name without = and a text")
        if "\0" in key + value:
            raise Failed(f"shaper {name}: a variable has no NUL")
        self._claim(name, "variable", key)
        self.environment[key] = value

    def apply(self, spec: Entry) -> Entry:
        """Return the specification with everything that was taken."""
        process, linux = spec["process"], spec["linux"]
        if self.mounts:
            spec = {**spec, "mounts": [*spec.get("mounts", ()), *self.mounts]}
        if self.devices:
            spec = {**spec, "linux": {**linux, "devices": [*linux.get("devices", ()), *self.devices]}}
            spec = allow(spec, self.rules)
        if self.environment:
            kept = [text for text in process.get("env", ()) if text.partition("=")[0] not in self.environment]
            process = {**process, "env": kept + [f"{key}={text}" for key, text in self.environment.items()]}
        if self.groups:
            user = process["user"]
            groups = dict.fromkeys([*user.get("additionalGids", ()), *self.groups])
            process = {**process, "user": {**user, "additionalGids": list(groups)}}
        return {**spec, "process": process}


def _read(name: str, given: object, fields: Object, what: str) -> Entry:
    try:
        # Strict: unknown keys would be the runtime's to interpret, unseen by the policy.
        plain = dict(given) if isinstance(given, Mapping) else given
        return read_object(plain, fields, what=what, strict=True)
    except InvalidMessage as error:
        raise Failed(f"shaper {name}: {error}") from None
