"""``uvmctl stop``, ``kill``, ``signal``, ``wait`` and ``rm``."""

from __future__ import annotations

import signal
from collections.abc import Callable

import click

from uvmd.cli.ctl.settings import Settings, common, note, pass_settings
from uvmd.client import NULL_ID, Client, ClientError
from uvmd.client.lifecycle import init_pid, remove, stop
from uvmd.client.process import INFINITE_MS

_IDS = click.argument("container_ids", metavar="ID...", nargs=-1, required=True)
#: The host's signals (spec bridge.md 11.6): no real-time ones.
_MAX_SIGNAL = 31


def signal_number(text: str) -> int:
    """Return the number of a signal given by name (``TERM``, ``SIGTERM``) or number.

    Raises:
        click.BadParameter: there is no such signal, or the host may not send it.
    """
    name = text.upper()
    if name.isdigit():
        if 1 <= int(name) <= _MAX_SIGNAL:
            return int(name)
        raise click.BadParameter(f"signal {text} is not in 1..{_MAX_SIGNAL}")
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].value
    except KeyError:
        raise click.BadParameter(f"no signal {text!r}; try TERM, KILL, HUP or a number") from None


def _parse_signal(_: click.Context, __: click.Parameter, value: str) -> int:
    return signal_number(value)


@click.command("stop")
@click.option(
    "-t",
    "--time",
    "grace_s",
    type=click.FloatRange(min=0),
    default=10.0,
    metavar="SECONDS",
    help="Patience before the kill [default: 10].",
)
@common()
@_IDS
@pass_settings
def stop_verb(settings: Settings, container_ids: tuple[str, ...], grace_s: float) -> int:
    """Ask containers to end (SIGTERM), and kill those that have not after a while.

    They stay, stopped, until `uvmctl rm`.

    \b
      uvmctl stop web
      uvmctl stop --time 2 web db
    """

    def one(client: Client, container_id: str) -> None:
        with settings.step("stop"):
            if stop(client, container_id, grace_s) is None:
                raise ClientError(f"container {container_id} was killed and is still not gone")

    return _each(settings, container_ids, one)


@click.command("kill")
@click.option(
    "-s", "--signal", "number", callback=_parse_signal, default="KILL", help="Name or number [default: KILL]."
)
@common()
@_IDS
@pass_settings
def kill_verb(settings: Settings, container_ids: tuple[str, ...], number: int) -> int:
    """Send a signal to the init process of containers.

    \b
      uvmctl kill web
      uvmctl kill -s HUP web
    """

    def one(client: Client, container_id: str) -> None:
        if number == signal.SIGKILL:
            client.terminate(container_id)
        elif number == signal.SIGTERM:
            client.shutdown(container_id)
        else:
            client.signal(container_id, init_pid(client, container_id), number)

    return _each(settings, container_ids, one)


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="Kill a running container first.")
@common()
@_IDS
@pass_settings
def rm_verb(settings: Settings, container_ids: tuple[str, ...], force: bool) -> int:
    """Delete containers, with their bundle and scratch directory.

    The root file system that `run` was given is not touched.

    \b
      uvmctl rm job
      uvmctl rm -f web db
    """

    def one(client: Client, container_id: str) -> None:
        with settings.step("delete"):
            remove(client, container_id, force=force)

    return _each(settings, container_ids, one)


@click.command("signal")
@click.option("--vm", is_flag=True, help="A process in the VM itself; takes no ID.")
@common()
@click.argument("words", nargs=-1, required=True, metavar="[ID] PID SIGNAL")
@pass_settings
def signal_verb(settings: Settings, words: tuple[str, ...], vm: bool) -> None:
    """Send SIGNAL to the process PID (a pid of the VM) of container ID.

    \b
      uvmctl signal web 812 USR1
      uvmctl signal --vm 431 TERM
    """
    if len(words) != (2 if vm else 3):
        raise click.UsageError("expected: uvmctl signal ID PID SIGNAL, or uvmctl signal --vm PID SIGNAL")
    pid = _pid(words[-2])
    number = signal_number(words[-1])
    with settings.connect() as client:
        client.signal(NULL_ID if vm else words[0], pid, number)


@click.command("wait")
@click.option("--vm", is_flag=True, help="A process in the VM itself; takes PID, no ID.")
@click.option(
    "--time", "limit_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after this."
)
@common()
@click.argument("words", nargs=-1, required=True, metavar="[ID] [PID]")
@pass_settings
def wait_verb(settings: Settings, words: tuple[str, ...], vm: bool, limit_s: float | None) -> int:
    """Wait for the init process of container ID, or for the process PID in it.

    Exits with the process's own status; 1 and a message when the time is up.

    \b
      uvmctl wait job && echo it worked
      uvmctl wait --time 30 job
      uvmctl wait web 812
    """
    if len(words) > (1 if vm else 2):
        raise click.UsageError("expected: uvmctl wait ID [PID], or uvmctl wait --vm PID")
    timeout_ms = INFINITE_MS if limit_s is None else min(round(limit_s * 1000), INFINITE_MS - 1)
    with settings.connect() as client:
        container_id = NULL_ID if vm else words[0]
        pid = init_pid(client, container_id) if len(words) == 1 and not vm else _pid(words[-1])
        status = client.wait(container_id, pid, timeout_ms)
    settings.show({"pid": pid, "status": status}, "")
    return status & 0xFF


def _each(settings: Settings, container_ids: tuple[str, ...], work: Callable[[Client, str], None]) -> int:
    """Do one thing to each container and print its id; go on after a failure, which makes the status 1."""
    failed = 0
    done = []
    with settings.connect() as client:
        for container_id in container_ids:
            try:
                work(client, container_id)
            except ClientError as error:
                if len(container_ids) == 1:
                    raise
                note(f"{container_id}: {error}")
                failed = 1
                continue
            done.append(container_id)
            if not settings.json:
                click.echo(container_id)
    if settings.json:
        settings.show(done, "")
    return failed


def _pid(text: str) -> int:
    if not text.isdigit():
        raise click.UsageError(f"{text!r} is no pid")
    return int(text)
