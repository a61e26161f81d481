"""``uvmctl events``."""

from __future__ import annotations

import json
from datetime import datetime

import click

from uvmd.bridge.identifiers import CONTAINER_NOTIFICATION, EVENT
from uvmd.cli.ctl.settings import Settings, common, pass_settings
from uvmd.client import Notification


@click.command("events")
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after N events.")
@common()
@pass_settings
def events_verb(settings: Settings, count: int | None) -> None:
    """Print what happens to containers as it happens, until Ctrl-C.

    Created, Started, Exited, Deleted; OutOfMemory when the kernel has killed in a container.
    A container's end is told a second time in the protocol's own words: UnexpectedExit (it
    ended by itself), GracefulExit (after a SIGTERM from us) or ForcedExit (after a SIGKILL).
    Run it beside `uvmctl host`, or no other command can work meanwhile.

    \b
      uvmctl events
      uvmctl events --json | jq .ContainerId
    """
    with settings.connect(events=True) as client:
        seen = 0
        while count is None or seen < count:
            notification = client.notification()
            if notification is not None:
                click.echo(_line(notification, settings.json))
                seen += 1


def _line(notification: Notification, as_json: bool) -> str:
    if as_json:
        return json.dumps(dict(notification.body), ensure_ascii=False)
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    if notification.type == CONTAINER_NOTIFICATION:
        return f"{now}  {notification.event:<15}  {notification.container_id}"
    if notification.type == EVENT:
        told = {"ContainerId", "Type", "Time"}
        # A pod of one container says nothing by its name.
        if notification.body.get("PodId") == notification.container_id:
            told.add("PodId")
        facts = " ".join(f"{key}={value}" for key, value in notification.body.items() if key not in told)
        return f"{now}  {notification.event:<15}  {notification.container_id}  {facts}".rstrip()
    return f"{now}  {json.dumps(dict(notification.body), ensure_ascii=False)}"
