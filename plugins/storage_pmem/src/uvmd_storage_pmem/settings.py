"""What a host sends. Absent, null and zero are the same."""

from __future__ import annotations

from uvmd.api import U32, U64, Field, WireModel


class Mapping(WireModel):
    """A part of the device; without it the layer is the whole device."""

    offset: U64 = Field(0, alias="DeviceOffsetInBytes")
    size: U64 = Field(0, alias="DeviceSizeInBytes")


class VPMemSettings(WireModel):
    """VPMemDevice."""

    number: U32 = Field(0, alias="DeviceNumber")
    mount_path: str = Field("", alias="MountPath")
    mapping: Mapping | None = Field(None, alias="MappingInfo")
