"""A container's OCI specification at the door: read, required parts checked, questions answered."""

from __future__ import annotations

import re
from typing import Any, Final

from uvmd.errors import InvalidMessage, Refused
from uvmd.oci.fields import PROCESS, SPEC, read_object
from uvmd.oci.unasked import drop_unasked, raise_oom_score

Spec = dict[str, Any]

SPEC_FIELD: Final = "ContainerConfig.OciSpecification"
PROCESS_FIELD: Final = "ProcessParameters.OciProcess"

_HOSTNAME: Final = re.compile(r"[a-zA-Z0-9_\-.]{0,255}")

# Runtimes act on these (crun's handlers, hooks and kinds of programs, systemd's properties, the
# configuration of CRIU), and no policy sees annotations.
_RUNTIME_ANNOTATIONS: Final = ("run.oci.", "org.systemd.", "module.wasm.", "krun.", "org.criu.")


def read_spec(value: Any, *, strict: bool) -> Spec:
    """Return the specification with the parts that every container needs.

    ``process``, ``root`` and ``linux`` must be there; ``process.user`` and ``linux.resources``
    are added empty where they are missing.

    Raises:
        InvalidMessage: naming the field and the reason.
    """
    if value is None:
        raise InvalidMessage(f"{SPEC_FIELD} is missing")
    spec = read_object(value, SPEC, what=SPEC_FIELD, strict=strict)
    for part in ("process", "root", "linux"):
        if part not in spec:
            raise InvalidMessage(f"{SPEC_FIELD}.{part} is missing")
    if not spec["root"].get("path"):
        raise InvalidMessage(f"{SPEC_FIELD}.root.path is missing")
    spec["process"].setdefault("user", {})
    spec["linux"].setdefault("resources", {})
    if strict:
        spec = drop_unasked(spec)
    if strict and "annotations" in spec:
        spec["annotations"] = {
            key: text for key, text in spec["annotations"].items() if not key.startswith(_RUNTIME_ANNOTATIONS)
        }
    return spec


def read_process(value: Any, *, strict: bool) -> dict[str, Any]:
    """Return the process of an exec, its ``user`` added empty where it is missing.

    Raises:
        InvalidMessage: naming the field and the reason.
    """
    process = read_object(value, PROCESS, what=PROCESS_FIELD, strict=strict)
    process.setdefault("user", {})
    return raise_oom_score(process) if strict else process


def check_hostname(spec: Spec) -> None:
    """Refuse a host name that would do more in ``/etc/hosts`` than name the host.

    Raises:
        Refused: other characters than letters, digits, ``_``, ``-`` and ``.``, or too long.
    """
    if not _HOSTNAME.fullmatch(spec.get("hostname", "")):
        raise Refused(f"{SPEC_FIELD}.hostname is no host name")


def check_mount_namespace(spec: Spec) -> None:
    """Refuse a container that would mount in the VM's namespace, or in another container's.

    crun does so where there is none in the specification, and what it has mounted stays when
    the container goes; runc refuses. No policy sees the namespaces.

    Raises:
        Refused: it has no mount namespace of its own.
    """
    mounts = [entry for entry in spec["linux"].get("namespaces", ()) if entry.get("type") == "mount"]
    if not mounts or any(entry.get("path") for entry in mounts):
        raise Refused(f"{SPEC_FIELD}.linux.namespaces: a container needs a mount namespace of its own")


def owns_pid_namespace(spec: Spec) -> bool:
    """Tell whether the container gets a pid namespace of its own.

    Only then do its other processes die with init.
    """
    namespaces = spec["linux"].get("namespaces", ())
    return any(entry.get("type") == "pid" and not entry.get("path") for entry in namespaces)


def has_hooks(spec: Spec) -> bool:
    """Tell whether the specification asks for any hook."""
    return "hooks" in spec
