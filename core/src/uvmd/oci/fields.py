"""The fields of the OCI runtime specification 1.3.0, and reading a host's JSON by them.

1.3.0 is what the reference guest knows. Reading folds keys to the specification's spelling
(a host may differ in case), checks the type of every value that has a name here, and leaves
null out, as the reference's decoder does (spec bridge.md 3). Unknown keys stay for the
runtime, except in a strict VM: there nothing reaches the runtime that no policy could see.
Sections of other operating systems are unknown keys here, but for the two of ``windows``
that a Linux guest reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from uvmd.errors import InvalidMessage

# A runtime reads up to a NUL, where a policy reads on; no file holds half of a surrogate pair.
_UNUSABLE: Final = re.compile("[\0\ud800-\udfff]")

#: Checks one value and returns it cleaned; the flag says strict.
Reader = Callable[[Any, bool], Any]


class _Wrong(Exception):
    """A value is not what it must be; ``path`` grows as the error travels outwards."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path = ""


class Object:
    """An object with known keys."""

    __slots__ = ("_readers", "_spelling")

    def __init__(self, **readers: Reader) -> None:
        self._readers = readers
        self._spelling = {key.lower(): key for key in readers}

    def _spelled(self, key: str) -> str:
        # Go folds two letters beyond ASCII to ASCII ones.
        folded = key if key.isascii() else key.translate({0x17F: "s", 0x212A: "k"})
        return self._spelling.get(folded.lower(), key)

    def __call__(self, value: Any, strict: bool) -> dict[str, Any]:
        if type(value) is not dict:
            raise _Wrong("is not an object")
        readers, result = self._readers, {}
        if strict:
            self._require_once(value)
        for key, item in value.items():
            reader = readers.get(key)
            if reader is None:
                key = self._spelled(key)
                reader = readers.get(key)
            if reader is None:
                if not strict:
                    result[key] = item
                continue
            if item is None:
                continue
            try:
                result[key] = reader(item, strict)
            except _Wrong as wrong:
                wrong.path = f".{key}{wrong.path}"
                raise
        return result

    def _require_once(self, value: dict[str, Any]) -> None:
        """Host, policy and guest must not read different values from one object."""
        seen: set[str] = set()
        for key in map(self._spelled, value):
            if key in seen and key in self._readers:
                raise _Wrong(f"has the key {key} twice")
            seen.add(key)


def text(value: Any, strict: bool) -> Any:
    if type(value) is not str:
        raise _Wrong("is not a string")
    if (found := _UNUSABLE.search(value)) is not None:
        raise _Wrong("has a NUL" if found[0] == "\0" else "has half of a surrogate pair")
    return value


def flag(value: Any, strict: bool) -> Any:
    if type(value) is not bool:
        raise _Wrong("is not a boolean")
    return value


def integer(low: int, high: int) -> Reader:
    def read(value: Any, strict: bool) -> Any:
        if type(value) is not int:
            raise _Wrong("is not an integer")
        if not low <= value <= high:
            raise _Wrong("is out of range")
        return value

    return read


def each(reader: Reader, null: Callable[[], Any] = dict) -> Reader:
    """A list; ``null`` makes what a null in it stands for."""

    def read(value: Any, strict: bool) -> Any:
        if type(value) is not list:
            raise _Wrong("is not a list")
        result = []
        for index, item in enumerate(value):
            try:
                result.append(reader(null() if item is None else item, strict))
            except _Wrong as wrong:
                wrong.path = f"[{index}]{wrong.path}"
                raise
        return result

    return read


def mapping(reader: Reader, null: Callable[[], Any] = dict) -> Reader:
    """An object whose keys are data: they are kept as they are."""

    def read(value: Any, strict: bool) -> Any:
        if type(value) is not dict:
            raise _Wrong("is not an object")
        result = {}
        for key, item in value.items():
            try:
                text(key, strict)
                result[key] = reader(null() if item is None else item, strict)
            except _Wrong as wrong:
                wrong.path = f"[*]{wrong.path}"  # a key is the host's text, so it is not quoted
                raise
        return result

    return read


u16, u32, u64 = integer(0, 2**16 - 1), integer(0, 2**32 - 1), integer(0, 2**64 - 1)
i32, i64 = integer(-(2**31), 2**31 - 1), integer(-(2**63), 2**63 - 1)
texts, text_map = each(text, str), mapping(text, str)

PROCESS: Final = Object(
    terminal=flag,
    consoleSize=Object(height=u64, width=u64),
    user=Object(uid=u32, gid=u32, umask=u32, additionalGids=each(u32, int), username=text),
    args=texts,
    commandLine=text,
    env=texts,
    cwd=text,
    capabilities=Object(bounding=texts, effective=texts, inheritable=texts, permitted=texts, ambient=texts),
    rlimits=each(Object(type=text, hard=u64, soft=u64)),
    noNewPrivileges=flag,
    apparmorProfile=text,
    oomScoreAdj=i64,
    scheduler=Object(policy=text, nice=i32, priority=i32, flags=texts, runtime=u64, deadline=u64, period=u64),
    selinuxLabel=text,
    ioPriority=Object(**{"class": text, "priority": i64}),
    execCPUAffinity=Object(initial=text, final=text),
)

_DEVICE_RULE: Final = Object(allow=flag, type=text, major=i64, minor=i64, access=text)
_THROTTLE: Final = each(Object(major=i64, minor=i64, rate=u64))

RESOURCES: Final = Object(
    devices=each(_DEVICE_RULE),
    memory=Object(
        limit=i64,
        reservation=i64,
        swap=i64,
        kernel=i64,
        kernelTCP=i64,
        swappiness=u64,
        disableOOMKiller=flag,
        useHierarchy=flag,
        checkBeforeUpdate=flag,
    ),
    cpu=Object(
        shares=u64,
        quota=i64,
        burst=u64,
        period=u64,
        realtimeRuntime=i64,
        realtimePeriod=u64,
        cpus=text,
        mems=text,
        idle=i64,
    ),
    pids=Object(limit=i64),
    blockIO=Object(
        weight=u16,
        leafWeight=u16,
        weightDevice=each(Object(major=i64, minor=i64, weight=u16, leafWeight=u16)),
        throttleReadBpsDevice=_THROTTLE,
        throttleWriteBpsDevice=_THROTTLE,
        throttleReadIOPSDevice=_THROTTLE,
        throttleWriteIOPSDevice=_THROTTLE,
    ),
    hugepageLimits=each(Object(pageSize=text, limit=u64)),
    network=Object(classID=u32, priorities=each(Object(name=text, priority=u32))),
    rdma=mapping(Object(hcaHandles=u32, hcaObjects=u32)),
    unified=text_map,
)

_ID_MAPPINGS: Final = each(Object(containerID=u32, hostID=u32, size=u32))
_HOOKS: Final = each(Object(path=text, args=texts, env=texts, timeout=i64))

SECCOMP: Final = Object(
    defaultAction=text,
    defaultErrnoRet=u64,
    architectures=texts,
    flags=texts,
    listenerPath=text,
    listenerMetadata=text,
    syscalls=each(
        Object(
            names=texts,
            action=text,
            errnoRet=u64,
            args=each(Object(index=u64, value=u64, valueTwo=u64, op=text)),
        )
    ),
)

DEVICE: Final = Object(path=text, type=text, major=i64, minor=i64, fileMode=u32, uid=u32, gid=u32)

MOUNT: Final = Object(
    destination=text,
    type=text,
    source=text,
    options=texts,
    uidMappings=_ID_MAPPINGS,
    gidMappings=_ID_MAPPINGS,
)

_LINUX: Final = Object(
    uidMappings=_ID_MAPPINGS,
    gidMappings=_ID_MAPPINGS,
    sysctl=text_map,
    resources=RESOURCES,
    cgroupsPath=text,
    namespaces=each(Object(type=text, path=text)),
    devices=each(DEVICE),
    netDevices=mapping(Object(name=text)),
    seccomp=SECCOMP,
    rootfsPropagation=text,
    maskedPaths=texts,
    readonlyPaths=texts,
    mountLabel=text,
    intelRdt=Object(closID=text, schemata=texts, l3CacheSchema=text, memBwSchema=text, enableMonitoring=flag),
    memoryPolicy=Object(mode=text, nodes=text, flags=texts),
    personality=Object(domain=text, flags=texts),
    timeOffsets=mapping(Object(secs=i64, nanosecs=u32)),
)

SPEC: Final = Object(
    ociVersion=text,
    process=PROCESS,
    root=Object(path=text, readonly=flag),
    hostname=text,
    domainname=text,
    mounts=each(MOUNT),
    hooks=Object(
        prestart=_HOOKS,
        createRuntime=_HOOKS,
        createContainer=_HOOKS,
        startContainer=_HOOKS,
        poststart=_HOOKS,
        poststop=_HOOKS,
    ),
    annotations=text_map,
    linux=_LINUX,
    windows=Object(network=Object(networkNamespace=text), devices=each(Object(id=text, idType=text))),
)


def read_object(value: Any, fields: Object, *, what: str, strict: bool) -> dict[str, Any]:
    """Return ``value`` with its known keys in the specification's spelling and its types checked.

    Raises:
        InvalidMessage: naming the field (``what`` and the dotted path) and the reason.
    """
    with _named(what):
        return fields(value, strict)


def check_texts(value: Any, reader: Reader, *, what: str) -> None:
    """Refuse texts that no program can be given as they are; ``reader`` says where they are.

    Raises:
        InvalidMessage: as :func:`read_object`.
    """
    with _named(what):
        reader(value, False)


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except _Wrong as wrong:
        raise InvalidMessage(f"{what}{wrong.path} {wrong.reason}") from None
