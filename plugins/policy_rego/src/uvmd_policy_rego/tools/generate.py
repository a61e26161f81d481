"""From a configuration to a policy, its encoding, and what the hardware will say of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from uvmd.image.progress import Progress, silent
from uvmd_policy_rego.fragments import RESERVED
from uvmd_policy_rego.modules import is_identifier
from uvmd_policy_rego.tools.config import Config, read_config
from uvmd_policy_rego.tools.errors import PolicyToolError
from uvmd_policy_rego.tools.writing import fragment_text, policy_text
from uvmd_policy_rego.values import parse_version, to_number

_MRCONFIGID_BYTES: Final = 48


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of the encoded policy something on its way takes."""

    bytes: int
    what: str
    source: str


#: Where an encoded policy usually passes through; of each, the whole is the policy's only in
#: part (other annotations, the rest of a message), so a policy should stay well below.
LIMITS: Final = (
    Limit(128 << 10, "one argument or environment variable of a program", "Linux, MAX_ARG_STRLEN"),
    Limit(256 << 10, "all annotations of a Kubernetes object", "apimachinery, TotalAnnotationSizeLimitB"),
    Limit(16 << 20, "one gRPC message of containerd", "containerd, its default max_recv_message_size"),
    Limit(16 << 20, "one message to uvmd", "uvmd, [bridge] max_inbound_bytes as shipped"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A policy's text as hosts and hardware see it."""

    text: str
    encoded: str
    #: Of the text, in hexadecimal.
    sha256: str

    @property
    def snp_host_data(self) -> str:
        """What HOST_DATA of an SEV-SNP report must be: the digest."""
        return self.sha256

    @property
    def tdx_mrconfigid(self) -> str:
        """What MRCONFIGID of a TD must be: the digest and zeros up to 48 bytes (a rule of uvmd)."""
        return self.sha256.ljust(2 * _MRCONFIGID_BYTES, "0")

    def sizes(self) -> list[dict[str, Any]]:
        """Return the share of each limit that the encoded policy takes."""
        count = len(self.encoded)
        return [
            {
                "what": limit.what,
                "limit_bytes": limit.bytes,
                "share": round(count / limit.bytes, 4),
                "fits": count < limit.bytes,
                "source": limit.source,
            }
            for limit in LIMITS
        ]


@dataclass(frozen=True, slots=True)
class Generated:
    """A policy, or a fragment, that was generated."""

    measured: Measured
    config: Config


def measure(text: str) -> Measured:
    """Measure a policy's text; every byte of it counts."""
    content = text.encode()
    return Measured(text, base64.b64encode(content).decode(), hashlib.sha256(content).hexdigest())


def generate(
    path: Path, *, pause: bool = True, check_layers: bool = False, progress: Progress = silent
) -> Generated:
    """Generate the policy of a configuration file.

    Args:
        pause: add the pause container, as the reference's tool does.
        check_layers: hold every block of layer images against their hash tree.

    Raises:
        PolicyToolError, ImageError: the configuration, or a layer that it names, cannot be used.
    """
    config = read_config(path, pause=pause, check_layers=check_layers, progress=progress)
    return Generated(measure(policy_text(config.parts)), config)


def generate_fragment(
    path: Path,
    namespace: str,
    svn: str,
    *,
    pause: bool = True,
    check_layers: bool = False,
    progress: Progress = silent,
) -> Generated:
    """Generate a fragment, to be signed, from the same kind of file.

    Raises:
        PolicyToolError, ImageError: as ``generate``, or the namespace or SVN cannot be one.
    """
    if not is_identifier(namespace) or namespace in RESERVED:
        raise PolicyToolError(f"{namespace!r} cannot be a fragment's namespace")
    if to_number(svn or "?") is None and parse_version(svn) is None:
        raise PolicyToolError(f"{svn!r} is no SVN: give a number, or a version such as 1.0.0")
    config = read_config(path, pause=pause, check_layers=check_layers, progress=progress)
    parts = config.parts
    unused = [name for name, value in parts.flags.items() if value]
    if parts.allow_all or unused:
        names = ", ".join(["allow_all"] if parts.allow_all else unused)
        raise PolicyToolError(f"a fragment has no switches, and the configuration sets {names}")
    return Generated(measure(fragment_text(parts, namespace, svn)), config)


def meter(measured: Measured) -> Sequence[str]:
    """Return the size and its share of each limit, as lines for people."""
    count = len(measured.encoded)
    lines = [f"{len(measured.text.encode())} bytes of text, {count} encoded"]
    for one in measured.sizes():
        filled = min(20, round(20 * one["share"]))
        bar = "#" * filled + "." * (20 - filled)
        warning = "" if one["fits"] else "  TOO LARGE"
        lines.append(f"  [{bar}] {100 * one['share']:5.1f}% of {one['what']} ({one['source']}){warning}")
    return lines
