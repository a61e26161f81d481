"""What all verbs share: the options of every verb, the connection, notes of progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from uvmd.client import Client

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Settings:
    """The shared options as given, and the steps that were timed."""

    host: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    json: bool = False
    verbose: bool = False
    #: (step, seconds) in the order in which they ended.
    steps: list[tuple[str, float]] = field(default_factory=list)

    def connect(self, *, events: bool = False) -> Client:
        """Return a negotiated client; says on stderr what it waits for."""
        from uvmd.client import connect, default_address, parse_address

        address = parse_address(self.host) if self.host else default_address()
        with self.step("connect"):
            return connect(address, timeout_s=self.timeout_s, on_wait=note, events=events)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; with ``-v`` show it on stderr."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add_step(name, time.monotonic() - began)

    def add_step(self, name: str, seconds: float) -> None:
        """Record a step that was timed elsewhere; with ``-v`` show it on stderr."""
        self.steps.append((name, seconds))
        if self.verbose:
            note(f"{name:<12} {seconds * 1000:9.2f} ms")

    def show(self, value: object, text: str | Callable[[], str]) -> None:
        """Print *value* as JSON with ``--json``, else *text*."""
        if self.json:
            click.echo(json.dumps(value, indent=2, ensure_ascii=False))
            return
        text = text() if callable(text) else text
        if text:
            click.echo(text)


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def note(text: str) -> None:
    """Say something on stderr; stdout carries results only."""
    click.echo(f"uvmctl: {text}", err=True)


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, _: click.Parameter, value: Any) -> None:
        # Not given here: what was given before the verb's name stays.
        if value is not None and value is not False:
            setattr(context.ensure_object(Settings), name, value)

    return callback


def common(*verbose_names: str, hidden: bool = True) -> Callable[[F], F]:
    """Add the options of every verb. They may stand before or after the verb's name.

    Args:
        verbose_names: further names of ``--verbose``; ``run`` needs -v for volumes.
        hidden: keep all but ``--json`` out of the verb's own help.
    """

    def decorate(verb: F) -> F:
        options = (
            click.option(
                "--host",
                metavar="ADDRESS",
                callback=_store("host"),
                expose_value=False,
                hidden=hidden,
                help="unix:PATH or vsock[:PORT] [default: $UVMD_HOST, else unix:/run/uvmd/host.sock].",
            ),
            click.option(
                "--timeout",
                metavar="SECONDS",
                type=click.FloatRange(min=0),
                callback=_store("timeout_s"),
                expose_value=False,
                hidden=hidden,
                help=f"How long to wait for the daemon to connect [default: {DEFAULT_TIMEOUT_S:g}].",
            ),
            click.option(
                *verbose_names,
                "--verbose",
                is_flag=True,
                callback=_store("verbose"),
                expose_value=False,
                hidden=hidden,
                help="Show each step and its time on stderr.",
            ),
            click.option(
                "--json",
                is_flag=True,
                callback=_store("json"),
                expose_value=False,
                help="Print JSON for scripts.",
            ),
        )
        for option in options:
            verb = option(verb)
        return verb

    return decorate


def read_document(path: str) -> bytes:
    """Return the bytes of a file, or of stdin for ``-``."""
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def read_json(path: str) -> Any:
    """Return the JSON value in a file, or on stdin for ``-``.

    Raises:
        click.ClickException: it is not JSON, or the file cannot be read.
    """
    try:
        return json.loads(read_document(path))
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise click.ClickException(f"{path} is not JSON: {error}") from error
