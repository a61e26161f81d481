"""``uvmctl host``."""

from __future__ import annotations

import signal

import click

from uvmd.cli.ctl.settings import Settings, common, note, pass_settings
from uvmd.client import Listener, default_address, parse_address


@click.command("host")
@common()
@pass_settings
def host_verb(settings: Settings) -> None:
    """Hold the daemon's connection and let other commands share it, until Ctrl-C.

    Without it commands take turns: a `run -it` in one terminal keeps an `exec` in another
    waiting. Commands find it by themselves, through a socket beside the address (PATH.ctl)
    that only its owner can use. When the daemon goes away and comes back, it goes on.

    \b
      uvmctl host &
      uvmctl run -it /srv/rootfs sh          in one terminal
      uvmctl ps                              in another
    """
    from uvmd.client.share import Sharer

    address = parse_address(settings.host) if settings.host else default_address()
    with Listener(address, timeout_s=settings.timeout_s, on_wait=note) as listener:
        sharer = Sharer(listener, note if settings.verbose else _quiet)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sharer.stop())
        note(f"sharing {address}; its daemon: uvmd serve --transport {address.serve_hint}")
        sharer.run()


def _quiet(text: str) -> None:
    """Requests are shown with -v only; what happens to the connection always."""
    if not text.startswith("client "):
        note(text)
