"""The base of a plugin's own section of the configuration.

Not on the start's path unless an operator has written such a section: it imports pydantic.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ConfigModel(BaseModel):
    """A plugin's section ``[plugin.NAME]``.

    Unknown keys are refused: a typo must not pass for a wish. Every field has a default,
    because a plugin works as installed.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
