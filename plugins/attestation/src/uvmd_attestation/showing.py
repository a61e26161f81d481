"""What ``uvmctl policy report`` shows: where the evidence comes from, and the whole of it."""

from __future__ import annotations

import binascii
import hashlib
from typing import IO, Any

import click

from uvmd.errors import Failed
from uvmd_attestation import devices, evidence, words

#: The places of this machine; tests put others here.
ROOTS = evidence.Roots()


def find(file: IO[bytes] | None, report_data: str) -> evidence.Evidence:
    """Return the evidence in a file, or have some made that carries ``report_data`` (hex).

    Raises:
        NotFound, Failed: there is none, with the reason.
        click.UsageError: the data are no hex or too many, or both were asked for.
    """
    if file is not None:
        if report_data:
            raise click.UsageError("--report-data is for evidence that is made now, not for a file")
        return words.recognise(file.read(evidence.MAX_BYTES + 1), file.name)
    try:
        data = bytes.fromhex(report_data)
    except ValueError:
        raise click.UsageError("--report-data is hex") from None
    if len(data) > devices.REPORT_DATA_BYTES:
        raise click.UsageError(f"--report-data: {len(data)} bytes, at most {devices.REPORT_DATA_BYTES}")
    try:
        return evidence.read_here(ROOTS, data.ljust(devices.REPORT_DATA_BYTES, b"\0"))
    except OSError as error:
        raise Failed(f"{error.filename or 'the kernel'}: {error.strerror}") from error


def policy_bytes(content: bytes) -> bytes:
    """Return the policy whose digest counts: base64, as hosts send it, stands for its text.

    Rego has spaces between its words, which base64 has not; so there is no doubt.
    """
    joined = content.strip().replace(b"\n", b"").replace(b"\r", b"")
    try:
        return binascii.a2b_base64(joined, strict_mode=True)
    except binascii.Error:
        return content


class Shown:
    """Evidence, parsed, and compared with a policy if there is one.

    Raises:
        Failed: it is no evidence.
    """

    def __init__(self, found: evidence.Evidence, policy: bytes | None) -> None:
        self._found = found
        self._parsed = words.parse(found)
        self._digest = None if policy is None else hashlib.sha256(policy_bytes(policy)).digest()
        #: Whether the VM was launched for the policy; None without one.
        self.fits = None if self._digest is None else words.matches(self._parsed, self._digest)

    def document(self) -> dict[str, Any]:
        """Everything as JSON."""
        document = words.document_of(self._found, self._parsed)
        if self._digest is not None:
            document |= {"policy_digest": self._digest.hex(), "policy_matches": self.fits}
        return document

    def text(self) -> str:
        """A table, and what to know about it."""
        rows = words.rows_of(self._parsed)
        width = max(len(name) for name, _ in rows)
        lines = [words.title_of(self._found, self._parsed), ""]
        lines += [f"  {name:<{width}}  {value}" for name, value in rows]
        if self._digest is not None:
            which = "this policy" if self.fits else "ANOTHER policy than this"
            lines += ["", f"The VM was launched for {which}; its SHA-256 is {self._digest.hex()}."]
        return "\n".join([*lines, "", *words.notes_of(self._found, self._parsed)])
