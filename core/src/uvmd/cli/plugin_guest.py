"""``uvmd plugin guest``: a virtual machine with a plugin in its uvmd, to try things by hand.

It uses the guest of the plugins' tests; nothing else of the programs does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

from uvmd.api.testing.guest.errors import GuestError
from uvmd.api.testing.guest.guest import Guest
from uvmd.api.testing.guest.image import find_image
from uvmd.errors import ConfigError

#: One command in the guest.
LIMIT_S = 600
PROMPT = "guest# "


def talk(image: str, distributions: Sequence[str], lines: Iterable[str], say: Callable[[str], None]) -> None:
    """Boot a guest, say where its host is, run each line as a shell command in it, and end it.

    Raises:
        ConfigError: there is no image, no QEMU, no such distribution, or the guest does not do.
    """
    try:
        with closing(Guest(find_image(image), distributions=distributions)) as guest:
            say(f"Its host, from another terminal: uvmctl --host {guest.address} ping\n")
            say("What you type here runs in the guest, as root; Ctrl-D ends it.\n" + PROMPT)
            for line in lines:
                say(guest.sh(f"exec 2>&1; {line}", timeout_s=LIMIT_S, check=False) + PROMPT)
    except GuestError as error:
        raise ConfigError(str(error)) from error
