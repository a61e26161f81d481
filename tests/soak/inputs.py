"""Malformed requests: valid ones of all thirteen kinds and every resource type, spoiled.

An input is a type and a body, with the codes that may answer it where only some may. The same
seed makes the same inputs.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from support import specs
from support.host import (
    CREATE,
    DELETE,
    DUMP_STACKS,
    EXECUTE,
    GET_PROPERTIES,
    MODIFY,
    NEGOTIATE,
    NULL_ID,
    RESIZE,
    SHUTDOWN_FORCED,
    SHUTDOWN_GRACEFUL,
    SIGNAL,
    START,
    WAIT,
    ZERO_GUID,
)

REQUESTS = (
    CREATE, START, SHUTDOWN_GRACEFUL, SHUTDOWN_FORCED, EXECUTE, WAIT, SIGNAL, RESIZE, GET_PROPERTIES,
    MODIFY, NEGOTIATE, DUMP_STACKS, DELETE,
)  # fmt: skip
UNKNOWN_TYPES = (0x10100E01, 0x10100F01, 0x10200101, 0x20100101, 0x30100101, 0x10100102, 0, 0xFFFFFFFF)
GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
HEX_ID = "ab" * 32

ODD_NUMBERS: list[Any] = [
    0, -1, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, -(2**63), 10**30, 1.5, 1e300, -0.0,
]  # fmt: skip
ODD_TEXTS = [
    "", "/", "..", "../" * 20 + "etc/shadow", "/proc/self/root/tmp", "/dev/null", "/sys/kernel", "/a/../b",
    "a\0b", "a\nb", "\x1b[31m", "%s%n%x", "x" * 300, "x" * 5000, "ü" * 200, "\ud800", "\ufeff", "\u202e",
    "null", "{}", "[]", "{", '{"a":' * 200, '"\\ud800"', "NaN", "-1", "1e999", "${PATH}", "`id`", "$(id)",
    "a,b,,c", " ", "//a//", "/" + "a/" * 2000, "vsock:2", "unix:/x", "00000000-0000-0000-0000-00000000000g",
]  # fmt: skip
ODD_VALUES: list[Any] = [None, True, False, [], {}, [None], [[]], {"": None}, {"a": {"b": []}}, *ODD_NUMBERS]
BAD_UTF8 = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80\x80"]
PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\x00", b"\\u0000", b"\\ud800", b"1" * 30, b"null",
]  # fmt: skip

INVALID = frozenset({"INVALID_JSON"})
NOT_IMPLEMENTED = frozenset({"E_NOTIMPL"})


class Input(NamedTuple):
    """``codes``: which answers are right; None: any error or success is."""

    kind: str
    type: int
    body: bytes
    codes: frozenset[str] | None = None


class Sample(NamedTuple):
    """A valid request: ``inner`` travels as JSON text in the field at ``place``."""

    type: int
    outer: dict[str, Any]
    place: tuple[str, ...] = ()
    inner: dict[str, Any] | None = None


class Inputs:
    """An endless row of them.

    Args:
        chance: decides everything.
        places: ``bundles`` and ``folder``, where a host may write.
        victims: ids of containers to which anything may happen; looked at each time.
        policies: also throw SecurityPolicy messages.
    """

    def __init__(
        self,
        chance: random.Random,
        places: Mapping[str, str],
        victims: Callable[[], list[str]],
        *,
        policies: bool = False,
    ) -> None:
        self._chance = chance
        self._places = places
        self._victims = victims
        settings = self._settings()
        if not policies:
            del settings["SecurityPolicy"]
        self._modify = list(settings.items())
        kinds: list[tuple[int, Callable[[], Input]]] = [
            (25, self._odd_field),
            (15, self._hostile_ids),
            (15, self._mangled),
            (12, self._truncated),
            (8, self._doubled),
            (8, self._bad_utf8),
            (6, self._noise),
            (5, self._deep),
            (5, self._unknown_type),
        ]
        self._kinds = [make for _, make in kinds]
        self._weights = [weight for weight, _ in kinds]
        self._made = 0
        #: Whether requests of many MiB are among them.
        self.huge = True

    def next(self) -> Input:
        """Return the next one."""
        self._made += 1
        if self._made % 1000 == 0:
            return self._huge(self._chance.choice([70_000, 200_000, 1_000_000]))
        if self._made % 10_000 == 2345 and self.huge:
            return self._huge(15 << 20)
        return self._chance.choices(self._kinds, self._weights)[0]()

    def bad_header(self) -> bytes:
        """Return a header that closes the connection, with something behind it."""
        size = self._chance.choice([0, 1, 15, (16 << 20) + 1, 2**31, 2**32 - 1])
        type_ = self._chance.choice([*REQUESTS, *UNKNOWN_TYPES])
        head = type_.to_bytes(4, "little") + size.to_bytes(4, "little")
        return head + self._chance.getrandbits(64).to_bytes(8, "little")

    def cut_frame(self) -> bytes:
        """Return the beginning of a frame, behind which the host hangs up."""
        body = self._render(self._sample())
        frame = CREATE.to_bytes(4, "little") + (len(body) + 16).to_bytes(4, "little") + bytes(8) + body
        return frame[: self._chance.randrange(1, len(frame))]

    # The kinds

    def _odd_field(self) -> Input:
        """One field or a few have another type, value or name."""
        sample = self._sample()
        for _ in range(self._chance.choice([1, 1, 1, 2, 5])):
            if sample.inner is not None and self._chance.random() < 0.7:
                sample = sample._replace(inner=self._spoiled(sample.inner))
            else:
                sample = sample._replace(outer=self._spoiled(sample.outer))
        return Input("odd field", sample.type, self._render(sample))

    def _hostile_ids(self) -> Input:
        """All is of the right type, and what is named is not what it should be."""
        sample = self._sample()
        name = self._chance.choice([*ODD_TEXTS, "a" * 300, NULL_ID, GUID, "-", ".", "c" * 64 + "/.."])
        changed = {"ContainerId": name, "ProcessId": self._chance.choice([0, 1, 2**32 - 1])}
        return Input("hostile ids", sample.type, self._render(sample._replace(outer=sample.outer | changed)))

    def _mangled(self) -> Input:
        sample = self._sample()
        body = bytearray(self._render(sample))
        for _ in range(self._chance.choice([1, 1, 3, 20])):
            at = self._chance.randrange(len(body) + 1)
            action = self._chance.randrange(3)
            if action == 0 and at < len(body):
                body[at] = self._chance.randrange(256)
            elif action == 1:
                del body[at : at + self._chance.choice([1, 5, 100])]
            else:
                body[at:at] = self._chance.choice(PIECES)
        return Input("mangled", sample.type, bytes(body))

    def _truncated(self) -> Input:
        """The frame is whole and its JSON is not."""
        sample = self._sample()
        body = self._render(sample)
        return self._unreadable("truncated", sample.type, body[: self._chance.randrange(len(body))])

    def _doubled(self) -> Input:
        """A key is there twice, the second time with another value or in other letters."""
        sample = self._sample()
        key = self._chance.choice(list(sample.outer))
        spelled = self._chance.choice([key, key.lower(), key.upper()])
        value = self._chance.choice(ODD_VALUES + ODD_TEXTS[:20])
        text = self._render(sample)[:-1] + b"," + json.dumps({spelled: value})[1:].encode()
        return Input("key twice", sample.type, text)

    def _bad_utf8(self) -> Input:
        sample = self._sample()
        body = bytearray(self._render(sample))
        for _ in range(self._chance.choice([1, 1, 4])):
            at = self._chance.randrange(len(body) + 1)
            body[at:at] = self._chance.choice(BAD_UTF8)
        return Input("not UTF-8", sample.type, bytes(body))

    def _noise(self) -> Input:
        body = b"\xfe" + self._chance.randbytes(self._chance.choice([0, 1, 15, 300]))
        return self._unreadable("noise", self._type(), body)

    def _deep(self) -> Input:
        depth = self._chance.choice([10, 200, 1000, 1000, 20_000])
        open_, close = self._chance.choice(
            [(b"[", b"]"), (b'{"a":', b"}"), (b'{"Request":{"Settings":', b"}}")]
        )
        whole = self._chance.random() < 0.5
        text = open_ * depth + (b"1" + close * depth if whole else b"")
        type_ = self._type()
        if not whole:
            return self._unreadable("deep", type_, text)
        return Input("deep", type_, text)

    def _unknown_type(self) -> Input:
        type_ = self._chance.choice([*UNKNOWN_TYPES, self._chance.getrandbits(32)])
        codes = None if type_ in REQUESTS else NOT_IMPLEMENTED
        return Input("unknown type", type_, self._render(self._sample()), codes)

    def _huge(self, size: int) -> Input:
        fill = self._chance.choice(
            [b'"' + b"x" * size + b'"', b"[" + b"1," * (size // 2) + b"1]", b"9" * size]
        )
        sample = self._sample()
        return Input("huge", sample.type, self._render(sample)[:-1] + b',"Padding":' + fill + b"}")

    def _unreadable(self, kind: str, type_: int, body: bytes) -> Input:
        codes = INVALID
        if type_ == DUMP_STACKS:
            codes = frozenset({"S_OK"})  # its body is never read
        elif type_ == NEGOTIATE:
            codes = NOT_IMPLEMENTED  # it has been answered
        return Input(kind, type_, body, codes)

    # Spoiling

    def _spoiled(self, value: dict[str, Any]) -> dict[str, Any]:
        """Copy with one change somewhere inside."""
        changed = dict(value)
        if not changed:
            return {self._chance.choice(ODD_TEXTS[:30]): self._odd("")}
        key = self._chance.choice(list(changed))
        inner = changed[key]
        action = self._chance.random()
        if action < 0.08:
            del changed[key]
        elif action < 0.16:
            changed[self._chance.choice([key.lower(), key.upper(), key + "x", " " + key])] = changed.pop(key)
        else:
            changed[key] = self._spoiled_value(inner)
        return changed

    def _spoiled_value(self, value: Any) -> Any:
        if self._chance.random() < 0.8:
            if isinstance(value, dict) and value:
                return self._spoiled(value)
            if isinstance(value, list) and value:
                changed = list(value)
                at = self._chance.randrange(len(changed))
                changed[at] = self._spoiled_value(changed[at])
                return changed * (self._chance.choice([1, 1, 1, 2, 50]) if len(changed) < 50 else 1)
        return self._odd(value)

    def _odd(self, value: Any) -> Any:
        if isinstance(value, str) and self._chance.random() < 0.6:
            return self._chance.choice(ODD_TEXTS)
        if isinstance(value, int) and self._chance.random() < 0.6:
            return self._chance.choice(ODD_NUMBERS)
        return self._chance.choice(ODD_VALUES + ODD_TEXTS)

    def _render(self, sample: Sample) -> bytes:
        outer = sample.outer
        if sample.inner is not None:
            outer = _with(outer, sample.place, json.dumps(sample.inner))
        ascii_ = self._chance.random() < 0.5
        return json.dumps(outer, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")

    # Valid requests

    def _type(self) -> int:
        return self._chance.choice(REQUESTS)

    def _id(self) -> str:
        victims = self._victims()
        if victims and self._chance.random() < 0.03:
            return self._chance.choice(victims)
        return self._chance.choice([HEX_ID, "no-such", NULL_ID, "cd" * 32])

    def _sample(self) -> Sample:
        # Modify has as many forms as all others have kinds.
        if self._chance.random() < 0.4:
            name, settings = self._chance.choice(self._modify)
            request = {
                "RequestType": self._chance.choice(["Add", "Remove", "Update", ""]),
                "ResourceType": name,
            }
            container = self._id() if name == "ContainerConstraints" else NULL_ID
            outer = {"ContainerId": container, "ActivityId": ZERO_GUID}
            return Sample(MODIFY, outer | {"Request": request | {"Settings": settings}})
        return self._sample_of(self._type())

    def _sample_of(self, type_: int) -> Sample:
        outer: dict[str, Any] = {
            "ContainerId": self._id(),
            "ActivityId": self._chance.choice([ZERO_GUID, GUID]),
        }
        if self._chance.random() < 0.1:
            outer["otsc"] = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", "tracestate": "a=b"}
        if type_ == CREATE:
            outer["ContainerId"] = self._chance.choice([HEX_ID, "no-such", "ef" * 32])
            return Sample(
                type_, outer | {"ContainerConfig": ""}, ("ContainerConfig",), self._container(outer)
            )
        if type_ == EXECUTE:
            ports = {"StdIn": 3, "StdOut": 4, "StdErr": 5}
            settings = {"ProcessParameters": "", "VsockStdioRelaySettings": ports}
            place = ("Settings", "ProcessParameters")
            return Sample(type_, outer | {"Settings": settings}, place, self._process(outer))
        if type_ == GET_PROPERTIES:
            names = ["ProcessList", "Statistics", "uvmd.ps", "uvmd.usage", "uvmd.mounts", "x"]
            query = {"PropertyTypes": self._chance.sample(names, self._chance.randrange(4))}
            return Sample(type_, outer | {"Query": ""}, ("Query",), query)
        if type_ == WAIT:
            outer |= {"ProcessId": 1, "TimeoutInMs": self._chance.choice([0, 1, 50, 2**32 - 1])}
        elif type_ == SIGNAL:
            outer |= {"ProcessId": 1, "Options": {"Signal": self._chance.choice([0, 1, 9, 15, 28, 64])}}
        elif type_ == RESIZE:
            outer |= {"ProcessId": 1, "Height": 24, "Width": 80}
        elif type_ == NEGOTIATE:
            outer |= {"MinimumVersion": 4, "MaximumVersion": 4, "UvmdEvents": False}
        return Sample(type_, outer)

    def _container(self, outer: Mapping[str, Any]) -> dict[str, Any]:
        """Nearly always of a pod that is not there: a runtime's call is dear."""
        annotations = {}
        if self._chance.random() < 0.98:
            kind = self._chance.choice(["container", "sandbox", "container"])
            annotations = {
                "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.sandbox-id": HEX_ID if kind == "container" else outer["ContainerId"],
            }
        spec = specs.container("/bin/true", annotations=annotations)
        spec["windows"] = {"network": {"networkNamespace": GUID}, "devices": []}
        bundle = f"{self._places['bundles']}/c/{outer['ContainerId']}"
        return {
            "SchemaVersion": {"Major": 2, "Minor": 1},
            "OciBundlePath": bundle,
            "OciSpecification": spec,
            "ScratchDirPath": f"{bundle}/scratch",
        }

    def _process(self, outer: Mapping[str, Any]) -> dict[str, Any]:
        streams = dict.fromkeys(("CreateStdInPipe", "CreateStdOutPipe"), self._chance.random() < 0.3)
        if outer["ContainerId"] == NULL_ID and self._chance.random() < 0.5:
            # Few that really run.
            program = "/bin/true" if self._chance.random() < 0.05 else "/no/such"
            command = {"CommandArgs": [program], "WorkingDirectory": "/", "Environment": {"A": "b"}}
            return {**command, "EmulateConsole": self._chance.random() < 0.3, **streams}
        return {"OciProcess": specs.process("/bin/true"), **streams}

    def _settings(self) -> dict[str, Any]:
        """Settings of every resource type. No device that they name is there."""
        folder = self._places["folder"]
        policy = base64.b64encode(b'{"allow_all": true}').decode()
        disk = {"MountPath": f"{folder}/m0", "Controller": 3, "Lun": 60, "Partition": 1, "ReadOnly": True}
        address = {"IPAddress": "10.1.2.3", "PrefixLength": 24}
        route = {"NextHop": "10.1.2.1", "DestinationPrefix": "0.0.0.0/0", "Metric": 1}
        adapter = {
            "NamespaceID": GUID, "ID": GUID, "MacAddress": "00-15-5D-00-00-01", "DNSSuffix": "a.b",
            "DNSServerList": "10.0.0.1,10.0.0.2", "EncapOverhead": 50, "IPConfigs": [address],
            "Routes": [route], "PolicyBasedRouting": True, "EnableLowMetric": True,
        }  # fmt: skip
        layers = [{"Id": GUID, "Path": f"{folder}/l{n}"} for n in range(3)]
        root = f"{self._places['bundles']}/c/{HEX_ID}/rootfs"
        return {
            "MappedVirtualDisk": {**disk, "Encrypted": False, "Options": ["ro"], "EnsureFilesystem": True,
                                  "Filesystem": "ext4", "BlockDev": False},
            "MappedDirectory": {"MountPath": f"{folder}/share", "Port": 7, "ShareName": "s",
                                "ReadOnly": True},
            "VPMemDevice": {"DeviceNumber": 90, "MountPath": f"{folder}/p",
                            "MappingInfo": {"DeviceOffsetInBytes": 4096, "DeviceSizeInBytes": 1 << 20}},
            "CombinedLayers": {"ContainerID": HEX_ID, "ContainerRootPath": root, "Layers": layers,
                               "ScratchPath": f"{folder}/scratch"},
            "Network": adapter,
            "VPCIDevice": {"VMBusGUID": GUID},
            "SCSIDevice": {"Controller": 3, "Lun": 61},
            "ContainerConstraints": {"Linux": {"memory": {"limit": 64 << 20}, "cpu": {"shares": 512},
                                               "pids": {"limit": 100}}},
            "SecurityPolicy": {"EnforcerType": "rego", "EncodedSecurityPolicy": policy,
                               "EncodedUVMReference": "", "EncodedUVMHashEnvelopeReference": ""},
            "SecurityPolicyFragment": {"Fragment": base64.b64encode(b"\xd2\x84\x43").decode(),
                                       "MediaType": "application/cose-x509+rego"},
            "PodCgroupMemoryLimit": {},
            "example.com/Ramdisk": {"MountPath": f"{folder}/ram", "SizeMiB": 1},
            "NoSuchType": {"a": 1},
        }  # fmt: skip


def _with(value: dict[str, Any], place: tuple[str, ...], leaf: str) -> dict[str, Any]:
    """Copy with a leaf put in, as far as spoiling has left the way to it."""
    first, *rest = place
    inner = value.get(first)
    if rest:
        return {**value, first: _with(inner, tuple(rest), leaf)} if isinstance(inner, dict) else value
    return {**value, first: leaf} if inner == "" else value
