"""``uvmctl run``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click

from uvmd.cli.ctl.foreground import require_terminal, run_in_foreground, window_size
from uvmd.cli.ctl.settings import Settings, common, note, pass_settings
from uvmd.cli.ctl.tables import table
from uvmd.client import Client, ClientError, ContainerOptions, build_spec, bundle_path
from uvmd.client.lifecycle import remove
from uvmd.client.spec_text import parse_annotation, parse_size, parse_volume
from uvmd.client.status import container_status


def new_id() -> str:
    """Return an id for a container that nobody named."""
    return os.urandom(6).hex()


def environment(entries: Sequence[str]) -> list[str]:
    """Return NAME=VALUE entries; a bare NAME takes our own value and is left out without one."""
    full = []
    for entry in entries:
        if "=" in entry:
            full.append(entry)
        elif entry in os.environ:
            full.append(f"{entry}={os.environ[entry]}")
    return full


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("--rm", "remove_after", is_flag=True, help="Delete the container when it ends.")
@click.option("-i", "--interactive", is_flag=True, help="Connect our stdin.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Start it, print its id and leave.")
@click.option("--name", "--id", "name", metavar="ID", help="The container's id [default: made up].")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable (repeatable).")
@click.option("-v", "--volume", multiple=True, metavar="SRC:DST[:ro]", help="Bind a path of the VM.")
@click.option("-w", "--workdir", default="/", metavar="DIR", help="Working directory.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as this user, by name or number.")
@click.option("--hostname", default="", metavar="NAME", help="Host name [default: the id].")
@click.option("-m", "--memory", metavar="SIZE", help="Memory limit, like 64m.")
@click.option("--cpus", type=float, default=0.0, metavar="N", help="CPU limit, like 1.5.")
@click.option("--pids-limit", type=int, default=0, metavar="N", help="Limit of processes.")
@click.option("--privileged", is_flag=True, help="All capabilities, all devices, nothing masked.")
@click.option("--cap-add", multiple=True, metavar="NAME", help="Add a capability (repeatable).")
@click.option("--cap-drop", multiple=True, metavar="NAME", help="Take one away (repeatable).")
@click.option("--read-only", is_flag=True, help="Mount the root file system read-only.")
@click.option(
    "--network", default="none", metavar="none|host|ID", help="No network, the VM's, or a namespace's id."
)
@click.option(
    "--pod", default="", metavar="ID", help="Join this pod; with --name ID as well, become its sandbox."
)
@click.option("--tee", default="", metavar="PATH", help="Also write the output below the bundle's logs/.")
@click.option("--annotation", multiple=True, metavar="KEY=VALUE", help="Add an annotation (repeatable).")
@click.option("--print-spec", is_flag=True, help="Print the OCI spec and do nothing.")
@click.option("--bundle", metavar="DIR", help="Bundle directory in the VM [default: /run/gcs/c/ID].")
@click.option("--timing", is_flag=True, help="Print how long each step took.")
@common()
@click.argument("rootfs")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_settings
def run_verb(
    settings: Settings,
    /,
    rootfs: str,
    command: tuple[str, ...],
    name: str | None,
    remove_after: bool,
    detach: bool,
    print_spec: bool,
    bundle: str | None,
    timing: bool,
    **wishes: Any,
) -> int:
    """Run COMMAND in a new container whose root file system is ROOTFS.

    ROOTFS is a directory in the VM. The exit status is the command's own. All options
    stand before ROOTFS, everything after it belongs to the command.

    \b
      uvmctl run --rm /srv/rootfs echo hello
      uvmctl run --rm -it -e DEBUG=1 -v /srv/data:/data:ro /srv/rootfs sh
      uvmctl run -d --name web --memory 256m --cpus 1.5 /srv/rootfs httpd -f
      uvmctl run --rm --timing /srv/rootfs true         where the time goes
      tar c . | uvmctl run --rm -i /srv/rootfs tar t    pipes work as usual
      uvmctl run -d --name shop --pod shop /srv/rootfs sleep 9999     the pod's sandbox
      uvmctl run -d --name web --pod shop /srv/rootfs httpd -f        in its network
    """
    if detach and remove_after:
        raise click.UsageError("--rm needs somebody who waits; use `uvmctl rm -f` later, or leave -d out")
    if detach and wishes["interactive"]:
        raise click.UsageError("-i needs somebody who stays; leave -d or -i out")
    container_id = name or new_id()
    options = _options(rootfs, command, wishes)
    joins = bool(options.pod) and options.pod != container_id
    if print_spec:
        if joins:
            raise click.UsageError("--print-spec cannot know the processes of the pod that --pod joins")
        click.echo(json.dumps(build_spec(container_id, options), indent=2))
        return 0
    if not detach:
        require_terminal(options.terminal)
    with settings.connect() as client:
        if joins:
            options = replace(options, sandbox_pid=_sandbox_pid(client, options.pod))
        spec = build_spec(container_id, options)
        with settings.step("create"):
            client.create(container_id, bundle=bundle or bundle_path(container_id), spec=spec)
        try:
            status = _start(settings, client, container_id, options, wishes["interactive"], detach)
        except BaseException:
            if remove_after:
                _remove_quietly(client, container_id)
            else:
                note(f"container {container_id} stays; remove it with: uvmctl rm -f {container_id}")
            raise
        if remove_after:
            with settings.step("delete"):
                client.delete(container_id)
    if timing:
        _print_timing(settings)
    return status


def _sandbox_pid(client: Client, pod: str) -> int:
    found = container_status(client, pod)
    if found is None or not found.pid or found.exit_code is not None:
        raise click.ClickException(
            f"pod {pod} has no running sandbox; start it with: uvmctl run -d --name {pod} --pod {pod} ..."
        )
    return found.pid


def _options(rootfs: str, command: Sequence[str], wishes: dict[str, Any]) -> ContainerOptions:
    return ContainerOptions(
        rootfs=rootfs,
        args=command,
        env=environment(wishes["env"]),
        cwd=wishes["workdir"],
        user=wishes["user"],
        terminal=wishes["tty"],
        console_size=window_size() if wishes["tty"] else None,
        hostname=wishes["hostname"],
        memory_bytes=parse_size(wishes["memory"]) if wishes["memory"] else 0,
        cpus=wishes["cpus"],
        pids_limit=wishes["pids_limit"],
        mounts=[parse_volume(volume) for volume in wishes["volume"]],
        read_only=wishes["read_only"],
        privileged=wishes["privileged"],
        cap_add=wishes["cap_add"],
        cap_drop=wishes["cap_drop"],
        network=wishes["network"],
        pod=wishes["pod"],
        tee=wishes["tee"],
        annotations=dict(parse_annotation(entry) for entry in wishes["annotation"]),
    )


def _start(
    settings: Settings,
    client: Client,
    container_id: str,
    options: ContainerOptions,
    interactive: bool,
    detach: bool,
) -> int:
    with settings.step("start"):
        client.start(container_id)
        process = client.run_init(
            container_id,
            stdin=interactive,
            stdout=not detach,
            stderr=not detach and not options.terminal,
        )
        started = time.monotonic()
    if detach:
        settings.show({"id": container_id, "pid": process.pid}, container_id)
        return 0
    with process:
        status = run_in_foreground(
            process,
            interactive=interactive,
            terminal=options.terminal,
            kill=_killer(client, container_id),
        )
    if process.streams.first_output:
        settings.add_step("first output", process.streams.first_output - started)
    settings.add_step("exit", process.ended - started)
    return status


def _killer(client: Client, container_id: str) -> Callable[[], None]:
    return lambda: client.terminate(container_id)


def _remove_quietly(client: Client, container_id: str) -> None:
    try:
        remove(client, container_id, force=True)
    except ClientError as error:
        note(f"removing {container_id}: {error}, ignoring")


def _print_timing(settings: Settings) -> None:
    times = {name: round(seconds * 1000, 3) for name, seconds in settings.steps}
    if settings.json:
        click.echo(json.dumps({"ms": times}), err=True)
        return
    rows = [(name, f"{milliseconds:.2f}") for name, milliseconds in times.items()]
    click.echo(table(("STEP", "MS"), rows, right=("MS",)), err=True)
