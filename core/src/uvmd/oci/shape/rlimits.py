"""The core dump limit that an annotation asks for (spec containers.md 7.3)."""

from __future__ import annotations

from typing import Any

from uvmd.errors import Refused
from uvmd.oci.annotations import CORE_RLIMIT, annotations_of, parse_u64


def apply_core_rlimit(spec: dict[str, Any]) -> dict[str, Any]:
    """Append RLIMIT_CORE to the process's limits; same specification without the annotation.

    Raises:
        Refused: the value is not ``soft;hard`` in decimal.
    """
    value = annotations_of(spec).get(CORE_RLIMIT)
    if not value:
        return spec
    soft, _, hard = value.partition(";")
    limits = parse_u64(soft), parse_u64(hard)
    if limits[0] is None or limits[1] is None:
        raise Refused(f"annotation {CORE_RLIMIT}: must be soft;hard, two unsigned numbers")
    entry = {"type": "RLIMIT_CORE", "soft": limits[0], "hard": limits[1]}
    process = spec["process"]
    return {**spec, "process": {**process, "rlimits": [*process.get("rlimits", ()), entry]}}
