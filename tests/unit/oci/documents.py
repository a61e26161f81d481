"""Specifications as hosts send them."""

from __future__ import annotations

from typing import Any


def host_spec() -> dict[str, Any]:
    """What a host sends for an ordinary container, much of it filled in."""
    capabilities = ["CAP_CHOWN", "CAP_KILL"]
    return {
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [10], "username": "bob"},
            "args": ["/bin/sh", "-c", "true"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/home",
            "capabilities": {name: list(capabilities) for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "/run/gcs/c/c1/rootfs", "readonly": True},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "size=65536k"],
            },
        ],
        "annotations": {
            "io.microsoft.lcow.rlimitcore": "1024;2048",
            "io.microsoft.lcow.shm.size-kb": "4096",
            "io.microsoft.virtualmachine.lcow.privileged": "true",
            "io.microsoft.container.lcow.tee-log-dir-mount": "/logs",
        },
        "linux": {
            "resources": {
                "memory": {"limit": 67108864},
                "cpu": {"shares": 512, "quota": -1, "period": 100000},
                "devices": [{"allow": False, "access": "rwm"}],
            },
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}],
            "devices": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438}],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [
                    {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                    {
                        "names": ["personality"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
                    },
                ],
            },
        },
        "windows": {"network": {"networkNamespace": "0c5bb8b5-6c32-4e6a-a1d5-8f5b7f1d9b55"}},
    }
