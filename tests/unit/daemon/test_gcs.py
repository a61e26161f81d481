"""The reference agent's command line starts uvmd unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvmd.cli import gcs as command
from uvmd.daemon import gcs
from uvmd.daemon.config import Config
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


def test_every_flag_reaches_an_option() -> None:
    words = ["-kmsgLogLevel", "6", "-gcs-mem-limit-bytes", "1", "-root-mem-reserve-bytes", "2"]
    seen = config(*words)
    assert (seen.log.kernel_level, seen.cgroups.warn_bytes, seen.cgroups.reserve_bytes) == (6, 1, 2)
    assert (seen.vm.time_sync, config("-disable-time-sync").vm.time_sync) == ("auto", "off")


def test_without_flags_the_sizes_are_our_own_and_the_kernel_is_heard_from_warnings_on() -> None:
    seen, ours = config(), Config()
    assert seen.cgroups.warn_bytes == ours.cgroups.warn_bytes
    assert seen.cgroups.reserve_bytes == ours.cgroups.reserve_bytes
    assert seen.log.kernel_level == 4


def test_numbers_that_are_larger_than_the_kernels_are_its_largest() -> None:
    seen = config("-kmsgLogLevel", "4294967295", "-gcs-mem-limit-bytes", str((1 << 64) - 1))
    assert (seen.log.kernel_level, seen.cgroups.warn_bytes) == (7, (1 << 63) - 1)


def test_a_size_below_ours_is_obeyed_with_a_warning() -> None:
    assert gcs.notes({"gcs-mem-limit-bytes": "52428800"})[0].startswith(
        "-gcs-mem-limit-bytes=52428800 is below"
    )
    assert gcs.notes({"gcs-mem-limit-bytes": str(1 << 40), "v4": "true"}) == []


def test_the_cgroup_is_the_references_unless_the_environment_names_another() -> None:
    assert config().cgroups.own == "/gcs"
    assert config(UVMD_CGROUPS_OWN="/x").cgroups.own == "/x"


def test_the_oom_score_is_lowered_where_that_is_permitted_and_never_raised(tmp_path: Path) -> None:
    score = tmp_path / "oom_score_adj"
    for before, after in (("0\n", "-999"), ("-1000\n", "-1000\n")):
        score.write_text(before)
        command._survive_lack_of_memory(str(score))
        assert score.read_text() == after
    command._survive_lack_of_memory(str(tmp_path / "none"))
