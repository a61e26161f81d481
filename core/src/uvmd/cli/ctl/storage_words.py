"""How devices are written on the command line."""

from __future__ import annotations

import re

import click


class ScsiAddress(click.ParamType[tuple[int, int]]):
    """``LUN`` or ``CONTROLLER:LUN``, in decimal."""

    name = "address"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return controller and LUN."""
        match = re.fullmatch(r"(?:([0-9]+):)?([0-9]+)", str(value), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is no LUN and no CONTROLLER:LUN", param, ctx)
        controller, lun = int(match[1] or 0), int(match[2])
        if controller > 255 or lun > 255:
            self.fail(f"{value!r}: both are numbers up to 255", param, ctx)
        return controller, lun


SCSI_ADDRESS = ScsiAddress()
