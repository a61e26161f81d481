"""What the verbs about signed artefacts share: reading files, and one way to say that something is wrong."""

from __future__ import annotations

import binascii
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import click

_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(9), *range(11, 32), *range(127, 160))}
#: These turn the direction of what follows: a text would read other than it is.
_CONTROLS |= {n: f"\\u{n:04x}" for n in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)
OUTPUT = click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Where to write it; - is the standard output.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def read(path: str) -> bytes:
    """Return a file's bytes; ``-`` is the standard input."""
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def write(path: str, data: bytes) -> None:
    """Write a file whole or not at all; ``-`` is the standard output."""
    if path == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    unfinished = f"{path}.unfinished"
    with open(unfinished, "wb") as file:
        file.write(data)
    os.replace(unfinished, path)


def read_envelope(path: str) -> bytes:
    """Return an envelope's bytes from a file that holds them, or the base64 of them as hosts send it."""
    data = read(path)
    text = b"".join(data.split())
    if text.startswith(b"0oR"):  # d2 84 in base64
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            return data
    return data


def refuse(error: object, as_json: bool, **more: Any) -> NoReturn:
    """End with status 1: in JSON as an object on the output, else as a line on the error output."""
    if as_json:
        click.echo(json.dumps({"ok": False, "error": str(error), **more}, ensure_ascii=False))
    else:
        click.echo(f"refused: {error}".translate(_CONTROLS), err=True)
    raise SystemExit(1)


def show(found: Mapping[str, Any], as_json: bool, lines: Iterator[str]) -> None:
    """Print what was found, for programs or for people."""
    if as_json:
        click.echo(json.dumps({"ok": True, **found}, ensure_ascii=False))
        return
    echo(lines)


def echo(lines: Iterable[str]) -> None:
    """Print lines that a stranger may have written: nothing in them moves the cursor or turns a line."""
    for line in lines:
        click.echo(line.translate(_CONTROLS))


@contextmanager
def refusing(as_json: bool) -> Iterator[None]:
    """Turn what is wrong with an artefact, a key or a file into a refusal."""
    from uvmd.errors import UvmdError
    from uvmd_policy_rego.envelopes.errors import EnvelopeError

    try:
        yield
    except (EnvelopeError, UvmdError, OSError) as error:
        refuse(error, as_json)
