"""What is in the image: packages, kernel modules, and what is thrown away again.

Everything here is data. A change of this file builds the image anew, as does a new ISO
week: Debian's security updates come in without anybody thinking of them.
"""

from __future__ import annotations

SUITE = "bookworm"
#: The guest's own Python; wheels are chosen for it.
PYTHON = "3.11"
MIRRORS = (
    f"deb http://deb.debian.org/debian {SUITE} main",
    f"deb http://deb.debian.org/debian {SUITE}-updates main",
    f"deb http://deb.debian.org/debian-security {SUITE}-security main",
)

#: The generic flavour: the cloud kernel is built without 9p.
KERNEL_PACKAGE = "linux-image-amd64"

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "udev",
    "kmod",
    "util-linux",
    "mount",
    "procps",
    "iproute2",
    "nftables",
    "python3",
    "crun",
    "runc",
    "cryptsetup-bin",
    "dmsetup",
    "e2fsprogs",
    "xfsprogs",
    "erofs-utils",
    # Keeps the clock with the hypervisor's; uvmd starts it, its own unit is not part of the boot.
    "chrony",
    # The DHCP client, for adapters to which the host gives no address.
    "busybox",
    # A 9p server, for tests of plan9 inside the guest; nothing starts it.
    "diod",
)

#: Never unpacked: documentation and translations.
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")

#: Removed once everything is installed. The root is read-only and replaced, never upgraded, so what
#: only maintainer scripts need (perl, apt) may go; xfs_scrub alone needs the 34 MB of ICU;
#: the hardware database names devices for people.
REMOVED = (
    "usr/lib/udev/hwdb.bin",
    "usr/lib/udev/hwdb.d",
    "usr/lib/x86_64-linux-gnu/libicu*",
    "usr/sbin/xfs_scrub",
    "usr/lib/x86_64-linux-gnu/libperl.so*",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/share/perl",
    "usr/share/perl5",
    "usr/bin/perl5.36.0",
    "usr/lib/apt",
    "usr/bin/apt*",
    "usr/lib/x86_64-linux-gnu/libapt-p*",
    "usr/share/zoneinfo",
    "usr/share/zsh",
    "usr/share/bash-completion",
    "usr/lib/python3.11/test",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/idlelib",
    "usr/lib/python3.11/tkinter",
    "usr/lib/python3.11/pydoc_data",
    "var/cache/*/*",
    "var/lib/apt/lists/*",
    "var/log/*.log",
    "var/log/apt/*",
    "dev/*",
)

#: Loaded by the initramfs, in this order of names, each after what it depends on.
#: crc32c_generic comes first: erofs, ext4 and xfs want it and no table of dependencies says so.
BOOT_MODULES = (
    "crc32c_generic",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "erofs",
    "overlay",
)

#: What the root image holds; what these depend on comes along.
MODULES = (
    *BOOT_MODULES,
    # buses and devices of a virtual machine
    "virtio_scsi",
    "virtio_net",
    "virtio_pmem",
    "virtio_mmio",
    "sd_mod",
    "sg",
    "nfit",
    "nd_pmem",
    "nd_e820",
    "nvme",
    # Hyper-V
    "hv_vmbus",
    "hv_storvsc",
    "hv_netvsc",
    "hv_utils",
    "hv_sock",
    "pci-hyperv",
    # sockets to the host, and to ourselves in tests
    "vsock",
    "vmw_vsock_virtio_transport",
    "vsock_loopback",
    # systemd asks for it at every boot
    "autofs4",
    # storage
    "dm-mod",
    "dm-verity",
    "dm-crypt",
    "dm-integrity",
    "loop",
    "ext4",
    "xfs",
    "squashfs",
    "isofs",
    "fuse",
    "nls_utf8",
    # their algorithms
    "aesni-intel",
    "xts",
    "hmac",
    "sha256_generic",
    "sha256-ssse3",
    "crc32c-intel",
    "essiv",
    "authenc",
    "algif_skcipher",
    "algif_hash",
    # shares
    "9p",
    "9pnet_fd",
    "9pnet_virtio",
    # networks
    "veth",
    "dummy",
    "bridge",
    "tun",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_ct",
    "nft_compat",
    # confidential hardware
    "sev-guest",
    "tdx-guest",
    # the clock of KVM
    "ptp_kvm",
    # devices without hardware, for tests: SCSI, and what a program in user space serves
    "scsi_debug",
    "cuse",
)

#: Not every kernel has these; without them the image is still whole.
OPTIONAL_MODULES = frozenset(
    {"sev-guest", "tdx-guest", "hv_sock", "sha256-ssse3", "virtio_pmem", "nd_e820", "ptp_kvm"}
)
