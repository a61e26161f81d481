"""The annotations that the guest reads (spec containers.md 5.2), with Go's idea of their values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

log = logging.getLogger(__name__)

CONTAINER_TYPE: Final = "io.kubernetes.cri.container-type"
SANDBOX_ID: Final = "io.kubernetes.cri.sandbox-id"
SKIP_POD_NETWORKING: Final = "io.microsoft.cri.skip-pod-networking"
VIRTUAL_POD_ID: Final = "io.microsoft.cri.virtual-pod-id"
CORE_RLIMIT: Final = "io.microsoft.lcow.rlimitcore"
SHM_SIZE_KB: Final = "io.microsoft.lcow.shm.size-kb"
PRIVILEGED: Final = "io.microsoft.virtualmachine.lcow.privileged"
HOST_NETWORK: Final = "io.microsoft.virtualmachine.lcow.hostnetwork"
TEE_LOG_PATH: Final = "io.microsoft.container.lcow.tee-log-path"
TEE_LOG_DIR_MOUNT: Final = "io.microsoft.container.lcow.tee-log-dir-mount"
GPU_CAPABILITIES: Final = "io.microsoft.container.gpu.capabilities"
SECURITY_CONTEXT: Final = "io.microsoft.virtualmachine.lcow.securitypolicy.env"
# The reference reads the first, which hosts use for Windows containers; the second is what
# its own host documents for Linux ones (spec containers.md 16.42).
AMD_CERTIFICATES: Final = (
    "io.microsoft.virtualmachine.wcow.amd-certificate",
    "io.microsoft.virtualmachine.lcow.amd-certificate",
)

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def annotations_of(spec: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the specification's annotations, empty if it has none."""
    found: Mapping[str, str] = spec.get("annotations", {})
    return found


def read_flag(annotations: Mapping[str, str], key: str, default: bool = False) -> bool:
    """Return a boolean annotation; text that is none is logged and the default used."""
    value = annotations.get(key)
    if value is None:
        return default
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    log.warning("annotation is not a boolean, ignoring", extra={"annotation": key})
    return default


def parse_u64(text: str) -> int | None:
    """Return a decimal unsigned 64-bit number, None for any other text."""
    if not (text.isascii() and text.isdigit()) or len(text) > 40:
        return None
    number = int(text)
    return number if number < 1 << 64 else None
