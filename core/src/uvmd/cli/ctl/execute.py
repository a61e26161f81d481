"""``uvmctl exec``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from uvmd.cli.ctl.foreground import require_terminal, run_in_foreground, window_size
from uvmd.cli.ctl.run import environment
from uvmd.cli.ctl.settings import Settings, common, pass_settings
from uvmd.client import Client, Process
from uvmd.client.spec import default_env, merge_env, usual_capabilities

SIGKILL = 9
SIGPIPE = 13


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Connect our stdin.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Start it, print its pid and leave.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable (repeatable).")
@click.option("-w", "--workdir", default="/", metavar="DIR", help="Working directory.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as this user, by name or number.")
@click.option(
    "--usual-capabilities",
    is_flag=True,
    help="Name the capabilities that `run` gives; a security policy wants them named.",
)
@click.option("--vm", is_flag=True, help="Run in the VM itself, outside every container; takes no ID.")
@common()
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[ID] COMMAND...")
@pass_settings
def exec_verb(
    settings: Settings,
    /,
    words: tuple[str, ...],
    interactive: bool,
    tty: bool,
    detach: bool,
    vm: bool,
    **how: Any,
) -> int:
    """Run COMMAND in the running container ID, or with --vm in the VM.

    The exit status is the command's own. The container's environment is not inherited:
    the command gets a PATH, and what -e sets. Without -u it is the container's user if
    one was set by `run -u`, else root.

    \b
      uvmctl exec web ps                        what runs in it
      uvmctl exec -it web sh                    a shell beside it
      uvmctl exec -u nobody -w /tmp web id
      uvmctl exec --vm dmesg                    in the VM
      uvmctl exec --vm -it sh
    """
    if not vm and len(words) < 2:
        raise click.UsageError("expected: uvmctl exec ID COMMAND...")
    if vm and how["usual_capabilities"]:
        raise click.UsageError("a process in the VM has all capabilities; leave --usual-capabilities out")
    if vm and how["user"]:
        raise click.UsageError("a process in the VM is always root; leave -u out")
    if detach and interactive:
        raise click.UsageError("-i needs somebody who stays; leave -d or -i out")
    if not detach:
        require_terminal(tty)
    with settings.connect() as client:
        with settings.step("start"):
            start = _in_vm if vm else _in_container
            process = start(
                client,
                words,
                tty,
                how,
                {"stdin": interactive, "stdout": not detach, "stderr": not detach and not tty},
            )
        if detach:
            settings.show({"pid": process.pid}, str(process.pid))
            return 0
        with process:
            with settings.step("exit"):
                return run_in_foreground(
                    process, interactive=interactive, terminal=tty, kill=_killer(process)
                )


def _in_container(
    client: Client, words: tuple[str, ...], tty: bool, how: dict[str, Any], streams: dict[str, bool]
) -> Process:
    user: dict[str, Any] = {"uid": 0, "gid": 0}
    if how["user"]:
        # Names are looked up in the container's root file system, by the daemon.
        user["username"] = how["user"]
    oci: dict[str, Any] = {
        "terminal": tty,
        "user": user,
        "args": list(words[1:]),
        "env": merge_env(default_env(tty), environment(how["env"])),
        "cwd": how["workdir"],
    }
    if how["usual_capabilities"]:
        oci["capabilities"] = usual_capabilities()
    if tty:
        rows, columns = window_size()
        oci["consoleSize"] = {"height": rows, "width": columns}
    return client.exec(words[0], oci, **streams)


def _in_vm(
    client: Client, words: tuple[str, ...], tty: bool, how: dict[str, Any], streams: dict[str, bool]
) -> Process:
    entries = merge_env(default_env(tty), environment(how["env"]))
    env = dict(entry.split("=", 1) for entry in entries)
    return client.run_external(list(words), env=env, cwd=how["workdir"], terminal=tty, **streams)


def _killer(process: Process) -> Callable[[], None]:
    return lambda: process.signal(SIGKILL)
