"""`make demo-policy`: a confidential pod, from the policy that describes it to what it refuses.

A policy is generated for a container from its layers, and the VM is given it. The container
is allowed; a changed command is denied, and the tool says why; a signed fragment adds a
second container; a fragment with another signature is refused. The VM is a guest with its
own kernel, because layers are disks with hash trees that dm-verity checks.

The host is outside: every line that begins with `$` is a command that you could type there.
What must be so is checked; the demo fails where it is not.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from guest.demo import Demo, say
from guest.harness import snapshots
from support import machine, rootfs
from support.daemon import ENVIRONMENT
from uvmd.api.testing.guest.profiles import PROFILES

POD, WEB, TOOL = "00" * 31 + "90", "00" * 31 + "e1", "00" * 31 + "70"
NAMES = {POD: "$POD", WEB: "$WEB", TOOL: "$TOOL"}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCRATCH_MIB = 512  # xfs takes no less than 300, encryption some for itself
FEED = "example.com/tools"
POLICY = """
allow_properties_access = true
allow_runtime_logging   = true

[[container]]                       # the pod's sandbox
name        = "sandbox"
layers      = ["base.img"]
command     = ["sleep", "86400"]
env_rule    = [{ strategy = "string", rule = "@PATH" }]
signals     = [9, 15]
allow_stdio_access         = true
allow_privilege_escalation = true

[[container]]
name        = "web"
layers      = ["base.img", "web.img"]
command     = ["sh", "-c", "cat /srv/page; exec sleep 600"]
env_rule    = [{ strategy = "string", rule = "@PATH" }]
signals     = [9, 15]
allow_stdio_access         = true
allow_privilege_escalation = true
exec_process = [{ command = ["cat", "/srv/page"], signals = [9] }]

[[fragment]]                        # who may add containers
issuer      = "ISSUER"
feed        = "example.com/tools"
minimum_svn = "1"
include     = ["containers"]
"""
FRAGMENT = """
[[container]]
name        = "tool"
layers      = ["base.img", "tool.img"]
command     = ["cat", "/srv/tool"]
env_rule    = [{ strategy = "string", rule = "@PATH" }]
signals     = [9]
allow_stdio_access         = true
allow_privilege_escalation = true
"""


class PolicyDemo(Demo):
    """The host's hand tool in a folder of its own, its long texts cut on the screen alone."""

    def type(self, *words: str, expect: int = 0, into: str = "") -> str:
        """Run `uvmctl WORDS`, showing it; return what it printed, errors included."""
        shown = f"$ uvmctl {' '.join(_quoted(word) for word in words)}{f' > {into}' if into else ''}"
        print(_named(shown), flush=True)
        began = time.monotonic()
        done = subprocess.run(
            [str(machine.BIN / "uvmctl"), *words],
            env={**ENVIRONMENT, "UVMD_HOST": f"unix:{self.guest.host.path}"},
            cwd=self.guest.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        text = done.stdout + done.stderr
        if into:
            (self.guest.folder / into).write_text(done.stdout or done.stderr)
        for line in (done.stderr if into else text).splitlines():
            print(f"  {_shown(_named(line))}", flush=True)
        taken = time.monotonic() - began
        self.steps.append((f"uvmctl {' '.join(map(_named, words[:2]))}", taken))
        if (done.returncode != 0) is not bool(expect):
            raise SystemExit(f"exit code {done.returncode}:\n{text}\nuvmd says:\n{self.guest.daemon.log()}")
        return text

    def refused(self, *words: str, why: str, into: str = "refused.txt") -> str:
        """Run a command that must fail, and say so."""
        text = self.type(*words, expect=1)
        (self.guest.folder / into).write_text(text)
        assert why in text, f"{why!r} is not in: {text}"
        print("  -> refused, as it must be", flush=True)
        return text

    def request(self, name: str, type_: str, **settings: object) -> str:
        """Write a request for `uvmctl modify -f`."""
        text = json.dumps({"ResourceType": type_, "Settings": settings})
        (self.guest.folder / name).write_text(text)
        return name


def _quoted(word: str) -> str:
    return f"'{word}'" if any(letter in word for letter in ' ;$*"') else word


def _shown(line: str) -> str:
    """A line for the screen: without the document of a denial, which is for `why`."""
    line = re.sub(r"policyDecision< \S+ >policyDecision", "policyDecision< … >policyDecision", line)
    return line if len(line) <= 400 else f"{line[:399]}…"


def _named(text: str) -> str:
    for id, name in NAMES.items():
        text = text.replace(id, name)
    return text


# Keys: what a publisher of images has


def make_signer(folder: Path, name: str) -> None:
    """Write a key and the certificates of who holds it: NAME.key, NAME.chain."""
    ca_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    root = _certificate(f"{name} root", f"{name} root", ca_key, ca_key, ca=True)
    leaf = _certificate(name, f"{name} root", key, ca_key, ca=False)
    pem = serialization.Encoding.PEM
    (folder / f"{name}.chain").write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem))
    none = serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))


def _certificate(
    name: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_common(name))
        .issuer_name(_common(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2 if ca else 1))
        .not_valid_after(now + timedelta(days=60 if ca else 30))  # a chain ends with its leaf
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
    )
    if not ca:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
        )
    return builder.sign(signer, hashes.SHA384())


def _common(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


# The acts


def make_images(demo: PolicyDemo) -> None:
    folder = demo.guest.folder
    for name, path, text in (("web", "srv/page", "a page"), ("tool", "srv/tool", "a tool")):
        target = folder / name / path
        target.parent.mkdir(parents=True)
        target.write_text(f"{text} from a layer that the policy knows\n")
    for source, image in ((str(rootfs.shared()), "base.img"), ("web", "web.img"), ("tool", "tool.img")):
        demo.type("image", "build", source, "-o", image)


def generate(demo: PolicyDemo) -> None:
    folder = demo.guest.folder
    issuer = demo.type("policy", "did", "make", "--chain", "publisher.chain").strip().splitlines()[-1]
    text = POLICY.replace("@PATH", PATH).replace("ISSUER", issuer)
    (folder / "policy.toml").write_text(text)
    print("$ cat policy.toml", flush=True)
    for line in text.strip().splitlines():
        print(f"  {line}")
    demo.type(
        "policy", "generate", "--no-pause", "policy.toml", "-o", "policy.rego", "--base64", "policy.b64"
    )
    demo.type("policy", "explain", "policy.rego")
    policy = (folder / "policy.b64").read_text().strip()
    request = demo.request("policy.json", "SecurityPolicy", EncodedSecurityPolicy=policy)
    demo.type("modify", "-f", request)


def attach(demo: PolicyDemo) -> None:
    guest = demo.guest
    for lun, image in ((0, "base.img"), (1, "web.img")):
        guest.add_disk(guest.folder / image, lun=lun, read_only=True)
        demo.type("attach", "scsi", "--read-only", f"0:{lun}", f"/run/mounts/scsi/m{lun}")
    guest.add_disk(guest.image("scratch", SCRATCH_MIB), lun=2)
    demo.type("attach", "scsi", "--encrypted", "--format", "xfs", "0:2", f"/run/gcs/c/{POD}")


def put_together(demo: PolicyDemo, id: str, *luns: int) -> str:
    root = f"/run/gcs/c/{id}/rootfs"
    layers = [f"/run/mounts/scsi/m{lun}" for lun in luns]
    demo.type("layers", "--scratch", _scratch(id), root, *layers)
    return root


def _scratch(id: str) -> str:
    return f"/run/gcs/c/{POD}/scratch/{id}"


def specify(demo: PolicyDemo, id: str, *command: str) -> str:
    """Write the specification of a container of the pod, as containerd's shim makes one."""
    file, kri = f"{NAMES[id][1:].lower()}.json", "io.kubernetes.cri"
    kind = "sandbox" if id == POD else "container"
    words = (f"{kri}.container-type={kind}", f"{kri}.sandbox-id={POD}")
    annotations = [part for word in words for part in ("--annotation", word)]
    demo.type("run", "--print-spec", *annotations, f"/run/gcs/c/{id}/rootfs", *command, into=file)
    path = demo.guest.folder / file
    # A workload has its pod's name; with it, on a line of its own: jq 'del(.hostname)'.
    spec = {key: value for key, value in json.loads(path.read_text()).items() if key != "hostname"}
    path.write_text(json.dumps({**spec, "hostname": "shop"} if id == POD else spec))
    return file


def start(demo: PolicyDemo, id: str, file: str) -> None:
    demo.type("create", "-f", file, "--scratch", _scratch(id), id)
    demo.type("start", id)


def show(demo: PolicyDemo) -> None:
    folder = demo.guest.folder
    say("2. Images of three layers, each with its dm-verity hash tree, and a publisher with a key.")
    print("".join(f"{name[1:]}={id}\n" for id, name in NAMES.items()), end="")
    make_images(demo)
    for name in ("publisher", "stranger"):
        make_signer(folder, name)

    say("3. A policy for a pod: generated from a file, explained in plain words, given to the VM. Once.")
    generate(demo)
    demo.refused("modify", "-f", "policy.json", why="security policy has already been set")

    say("4. What the policy describes is allowed: its layers, an encrypted scratch disk, the containers.")
    attach(demo)
    put_together(demo, POD, 0)
    start(demo, POD, specify(demo, POD, "sleep", "86400"))
    put_together(demo, WEB, 1, 0)
    page = "cat /srv/page; exec sleep 600"
    file = specify(demo, WEB, "sh", "-c", page)

    say("5. A changed command is denied, with the reason; `why` says what differed.")
    changed = specify(demo, WEB, "sh", "-c", page.replace("600", "900"))
    create = ("create", "-f", changed, "--scratch", _scratch(WEB), WEB)
    demo.refused(*create, why="invalid command", into="denied.txt")
    text = demo.type("policy", "why", "--policy", "policy.rego", "--spec", changed, "denied.txt")
    assert "argument 2 is" in text, text

    say("6. As the policy has it, it runs; a process in it too, if it is one that is listed.")
    file = specify(demo, WEB, "sh", "-c", page)
    start(demo, WEB, file)
    assert "a page" in demo.type("exec", "--usual-capabilities", WEB, "cat", "/srv/page")
    demo.refused("exec", "--usual-capabilities", WEB, "sh", "-c", "id", why="invalid command")

    fragments(demo)

    say("9. What the host holds of it, and what the VM's daemon holds.")
    demo.type("ps")
    demo.type("mounts")


def fragments(demo: PolicyDemo) -> None:
    guest, folder = demo.guest, demo.guest.folder
    say("7. A second container, which the policy does not know: its layer is denied.")
    guest.add_disk(folder / "tool.img", lun=3, read_only=True)
    disk = ("attach", "scsi", "--read-only", "0:3", "/run/mounts/scsi/m3")
    demo.refused(*disk, why="deviceHash not found")
    (folder / "tool.toml").write_text(FRAGMENT.replace("@PATH", PATH))
    generated = ("policy", "generate", "--no-pause", "--fragment", "tools", "--svn", "1", "tool.toml")
    demo.type(*generated, "-o", "tool.rego")
    for name in ("stranger", "publisher"):
        signed = ("--key", f"{name}.key", "--chain", f"{name}.chain", "--feed", FEED)
        demo.type("policy", "fragment", "sign", "tool.rego", *signed, "-o", f"{name}.cose")

    say("8. A fragment adds it if the publisher signed it; another's signature, or a changed one, does not.")
    envelope = (folder / "publisher.cose").read_bytes()
    forged = bytearray(envelope)
    forged[-1] ^= 1
    for name, content, why in (
        ("stranger", (folder / "stranger.cose").read_bytes(), "invalid fragment issuer"),
        ("forged", bytes(forged), "COSE validation: verification error"),
    ):
        demo.refused("modify", "-f", _fragment(demo, name, content), why=why)
    demo.refused(*disk, why="deviceHash not found")
    demo.type("modify", "-f", _fragment(demo, "publisher", envelope))
    demo.type(*disk)
    put_together(demo, TOOL, 3, 0)
    file = specify(demo, TOOL, "cat", "/srv/tool")
    demo.type("create", "-f", file, "--scratch", _scratch(TOOL), TOOL)
    demo.type("start", TOOL)
    demo.type("wait", TOOL)


def _fragment(demo: PolicyDemo, name: str, content: bytes) -> str:
    blob = base64.b64encode(content).decode()
    return demo.request(f"{name}.json", "SecurityPolicyFragment", Fragment=blob)


def main() -> int:
    if os.geteuid() != 0:
        print("the demo runs a virtual machine as root: sudo make demo-policy", file=sys.stderr)
        return 1
    say("1. A virtual machine with uvmd as its service (saved when it is first made, restored from then on).")
    guest = snapshots.ready(PROFILES["v2"]).restore()
    try:
        demo = PolicyDemo(guest)
        guest.hang_up()
        guest.host.refuse()
        show(demo)
        guest.assert_kernel_is_calm()
    finally:
        guest.close()
    say("Each step, as the host saw it (emulated: about ten times slower than a real machine):")
    for name, taken in demo.steps:
        print(f"  {name:<34}{taken:6.1f} s")
    print("\nThe VM is gone, and with it everything. Next: docs/policy-authors.md, docs/policy-reviewers.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
