"""The measurement of a seccomp profile's file, by the code with which the guest measures."""

from __future__ import annotations

import json
from pathlib import Path

from uvmd.errors import InvalidMessage
from uvmd.oci.fields import SECCOMP, read_object
from uvmd.oci.seccomp import seccomp_hash
from uvmd_policy_rego.tools.errors import PolicyToolError


def measured_profile(path: Path) -> str:
    """Return what a policy compares a container's profile with.

    Raises:
        PolicyToolError: the file is no seccomp section of an OCI specification.
    """
    try:
        document = json.loads(path.read_bytes())
        return seccomp_hash(read_object(document, SECCOMP, what=str(path), strict=True))
    except OSError as error:
        raise PolicyToolError(f"cannot read the seccomp profile {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PolicyToolError(f"the seccomp profile {path} is not JSON: {error}") from error
    except InvalidMessage as error:
        raise PolicyToolError(f"the seccomp profile {path}: {error}") from error
