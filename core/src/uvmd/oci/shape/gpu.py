"""The hook that sets a GPU up in a container (spec containers.md 7.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from uvmd.oci.annotations import GPU_CAPABILITIES, annotations_of

#: Found in the PATH; fills ``{{pid}}`` in from the container's state and runs the rest.
PROGRAM: Final = "generichook"


def apply_gpu_hook(
    spec: dict[str, Any],
    *,
    program: str,
    bundle: str,
    root: str,
    locations: Sequence[str],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """Return the specification with the hook and a rule for all character devices.

    Args:
        program: path of the hook's program.
        locations: PCI addresses of the GPUs.
        environment: what the hook's own environment is made of.
    """
    log = f"{bundle}/nvidia-container.log"
    capabilities = annotations_of(spec).get(GPU_CAPABILITIES, "")
    arguments = [
        program,
        "nvidia-container-cli",
        f"--debug={log}",
        "--no-pivot",
        "configure",
        "--ldconfig=@/sbin/ldconfig",
        *(f"--{name.strip()}" for name in capabilities.split(",") if name.strip()),
        *(f"--device={location}" for location in locations),
        "--pid={{pid}}",
        root,
    ]
    variables = {**environment, "NVC_INSECURE_MODE": "1", "GENERIC_HOOK_LOG_DEBUG_FILE": log}
    hook = {
        "path": program,
        "args": arguments,
        "env": [f"{name}={value}" for name, value in variables.items()],
    }
    hooks = spec.get("hooks", {})
    hooks = {**hooks, "createRuntime": [*hooks.get("createRuntime", ()), hook]}
    linux = spec["linux"]
    rules = linux.get("resources", {}).get("devices", ())
    rule = {"allow": True, "type": "c", "access": "rwm"}
    resources = {**linux.get("resources", {}), "devices": [*rules, rule]}
    return {**spec, "hooks": hooks, "linux": {**linux, "resources": resources}}
