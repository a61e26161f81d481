"""The reference agent's command line starts uvmd unchanged."""

from __future__ import annotations

import pytest

from uvmd.daemon import gcs
from uvmd.daemon.options import load
from uvmd.errors import ConfigError


def config(*words: str, owns_machine: bool = False, **environment: str) -> object:
    return load(gcs.translate(gcs.parse(words), environment, owns_machine=owns_machine), environment).config


def test_a_real_hosts_command_line_is_understood() -> None:
    words = ["-v4", "-log-format", "json", "-loglevel", "warning", "-disable-time-sync", "-scrub-logs=false"]
    seen = config(*words, "-core-dump-location", "/core", "free", "-text")
    assert (seen.bridge.v4, seen.log.format, seen.log.level, seen.log.scrub, seen.vm.core_pattern) == (
        True,
        "json",
        "warning",
        False,
        "/core",
    )


def test_without_v4_no_message_is_registered_and_the_log_is_text_at_debug() -> None:
    seen = config()
    assert (seen.bridge.v4, seen.log.format, seen.log.level, seen.vm.stance) == (
        False,
        "text",
        "debug",
        "allow",
    )


def test_use_inouterr_is_the_stdio_transport_and_otherwise_the_environment_decides() -> None:
    assert config("--use-inouterr").transport == "stdio"
    assert config(UVMD_TRANSPORT="unix:/x").transport == "unix:/x"


def test_only_as_init_or_its_child_may_the_machine_be_powered_off_and_the_environment_can_forbid_it() -> None:
    assert config(owns_machine=True).vm.agent is True
    assert config().vm.agent is False
    assert config(owns_machine=True, UVMD_VM_AGENT="false").vm.agent is False


@pytest.mark.parametrize(
    "words",
    [["-nonsense"], ["---v4"], ["-loglevel"], ["-loglevel", "loud"], ["-v4=maybe"], ["-kmsgLogLevel", "-1"],
     ["-initial-policy-stance", "ajar"], ["-log-format", "xml"]],
)  # fmt: skip
def test_a_flag_that_the_reference_refuses_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        config(*words)


def test_help_names_every_flag() -> None:
    assert all(f"-{name}" in gcs.help_text() for name in gcs.FLAGS)
