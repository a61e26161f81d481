"""CDI files: their shape, and finding a device in a directory of them.

The shape is that of the specification's JSON schema, version 1.0: unknown keys are refused,
because an edit that is not carried out leaves a container that half works.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from uvmd.api import ConfigModel
from uvmd.errors import Failed, Refused

_MAX_BYTES = 4 << 20
_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?"
_CLASS = r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?"
_VENDOR = r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?"

U32 = Annotated[int, Field(ge=0, le=0xFFFF_FFFF)]


class _Part(ConfigModel):
    """Strict types, no unknown keys."""


class DeviceNode(_Part):
    """A device node; what is left out is looked up at ``hostPath``."""

    path: str = Field(min_length=1)
    host_path: str = Field("", alias="hostPath")
    type: Literal["", "b", "c", "u", "p"] = ""
    major: int = 0
    minor: int = 0
    file_mode: U32 | None = Field(None, alias="fileMode")
    permissions: str = Field("rwm", pattern=r"\A[rwm]{0,3}\z")
    uid: U32 | None = None
    gid: U32 | None = None


class Mount(_Part):
    """A mount, a bind unless a type is given."""

    host_path: str = Field(alias="hostPath", min_length=1)
    container_path: str = Field(alias="containerPath", min_length=1)
    options: list[str] = []
    type: str = "bind"


class Edits(_Part):
    """What is added to a container. Of the last three it is only known whether they are there."""

    env: list[Annotated[str, Field(pattern=r"\A[^=\x00]+=[^\x00]*\z")]] = []
    device_nodes: list[DeviceNode] = Field([], alias="deviceNodes")
    mounts: list[Mount] = []
    additional_gids: list[U32] = Field([], alias="additionalGids")
    hooks: list[dict[str, Any]] = []
    net_devices: list[dict[str, Any]] = Field([], alias="netDevices")
    intel_rdt: dict[str, Any] | None = Field(None, alias="intelRdt")


class Device(_Part):
    """One device of a kind."""

    name: str = Field(pattern=rf"\A{_NAME}\z")
    annotations: dict[str, str] = {}
    edits: Edits = Field(alias="containerEdits")


class Document(_Part):
    """One file: the devices of one kind, and what every one of them needs."""

    version: str = Field(alias="cdiVersion", pattern=r"\A[01]\.[0-9]+\.[0-9]+\z")
    kind: str = Field(pattern=rf"\A{_VENDOR}/{_CLASS}\z")
    annotations: dict[str, str] = {}
    devices: list[Device] = Field(min_length=1)
    edits: Edits = Field(Edits.model_validate({}), alias="containerEdits")


class Found(NamedTuple):
    """A device, and the file that describes it."""

    path: str
    document: Document
    device: Device


def find_device(directories: Sequence[str], qualified: str) -> Found:
    """Return the device ``vendor.com/class=name``.

    Raises:
        Refused: no file has it, or two files of one directory do.
        Failed: a file cannot be read.
    """
    kind, equals, name = qualified.partition("=")
    if not equals or not kind or not name:
        raise Refused(f"CDI device {qualified!r:.200}: must be vendor.com/class=name")
    for directory in reversed(directories):
        found = [
            Found(path, document, device)
            for path, document in _documents(directory)
            if document.kind == kind
            for device in document.devices
            if device.name == name
        ]
        if len(found) > 1:
            raise Refused(f"CDI device {qualified:.200}: both {found[0].path} and {found[1].path} have it")
        if found:
            return found[0]
    raise Refused(f"CDI device {qualified:.200}: no file in {', '.join(directories)} has it")


def _documents(directory: str) -> Iterator[tuple[str, Document]]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    except OSError as error:
        raise Failed(f"CDI files in {directory}: {error.strerror}") from error
    for name in names:
        if name.endswith(".json"):
            yield f"{directory}/{name}", read_document(f"{directory}/{name}")


def read_document(path: str) -> Document:
    """Read one file.

    Raises:
        Failed: naming the file, the field and the reason.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Failed(f"CDI file {path}: {error.strerror}") from error
    if len(text) > _MAX_BYTES:
        raise Failed(f"CDI file {path}: larger than {_MAX_BYTES} bytes")
    try:
        return Document.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Failed(f"CDI file {path}: {where or 'text'}: {first['msg']}") from None
