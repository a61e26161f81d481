"""What of the VM's security context a container is shown (spec containers.md 7.12, policy.md 3.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from uvmd.oci.annotations import AMD_CERTIFICATES, SECURITY_CONTEXT, annotations_of, read_flag

VARIABLE: Final = "UVM_SECURITY_CONTEXT_DIR"
CERTIFICATE: Final = "host-amd-cert-base64"


def context_files(spec: dict[str, Any], of_vm: Mapping[str, str]) -> dict[str, str]:
    """Return the files of the directory by name, ``of_vm`` and the certificate; empty: none is made."""
    found = annotations_of(spec)
    if not read_flag(found, SECURITY_CONTEXT, default=True):
        return {}
    files = dict(of_vm)
    certificate = next((found[key] for key in AMD_CERTIFICATES if found.get(key)), "")
    if certificate:
        files[CERTIFICATE] = certificate
    return files


def apply_variable(process: dict[str, Any], directory: str) -> dict[str, Any]:
    """Return the process with the variable that says where the directory is."""
    return {**process, "env": [*process.get("env", ()), f"{VARIABLE}={directory}"]}
