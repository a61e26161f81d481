"""Configuration: three doors, the later wins, and every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvmd.daemon.config import Config, build, options
from uvmd.daemon.options import help_text, load
from uvmd.errors import ConfigError


def write(folder: Path, text: str) -> str:
    file = folder / "uvmd.toml"
    file.write_text(text)
    return str(file)


def test_nothing_given_is_the_default_configuration() -> None:
    assert load([], {}).config == Config() == build({})


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'transport = "unix:/file"\n[log]\nlevel = "error"\nformat = "text"\n')
    environment = {"UVMD_CONFIG": file, "UVMD_LOG_LEVEL": "warning", "UVMD_TRANSPORT": "unix:/environment"}
    loaded = load(["--transport", "unix:/flag"], environment)
    assert (loaded.config.transport, loaded.config.log.level, loaded.config.log.format) == (
        "unix:/flag",
        "warning",
        "text",
    )
    assert loaded.sources == {"transport": "--transport", "log.level": "UVMD_LOG_LEVEL", "log.format": file}


def test_a_flag_takes_its_value_after_a_space_or_an_equals_sign_and_a_switch_stands_alone() -> None:
    config = load(
        ["--log-level=debug", "--runtime-name", "runc", "--vm-agent", "--log-scrub=false"], {}
    ).config
    assert (config.log.level, config.runtime.name, config.vm.agent, config.log.scrub) == (
        "debug",
        "runc",
        True,
        False,
    )


def test_lists_and_numbers_are_read_from_text() -> None:
    config = load(["--plugins-deny=a, b", "--runtime-timeout-s=2", "--cgroups-reserve-bytes=7"], {}).config
    assert (config.plugins.deny, config.runtime.timeout_s, config.cgroups.reserve_bytes) == (
        ("a", "b"),
        2.0,
        7,
    )


def test_relative_paths_mean_where_uvmd_was_started_not_where_its_monitor_works(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('[log]\nfile = "log"\n[runtime]\nname = "bin/crun"\n')
    flags = ["--config", "my.toml", "--transport", "stdio:unix:host.sock", "--paths-bundle-roots", "a,/b"]
    config = load(flags, {"UVMD_STARTED_IN": str(tmp_path), "UVMD_PATHS_RUN_DIR": "../run"}).config
    assert config.transport == f"stdio:unix:{tmp_path}/host.sock"
    assert (config.log.file, config.runtime.name) == (f"{tmp_path}/log", f"{tmp_path}/bin/crun")
    assert config.paths.run_dir == f"{tmp_path.parent}/run"
    assert config.paths.bundle_roots == (f"{tmp_path}/a", "/b")
    plain = load(["--transport", "vsock:2", "--runtime-name", "crun"], {}).config
    assert (plain.transport, plain.runtime.name, plain.log.file) == ("vsock:2", "crun", "")


def test_a_plugins_section_is_kept_for_the_plugin_to_judge(tmp_path: Path) -> None:
    file = write(tmp_path, "[plugin.storage_scsi]\ndevice_timeout_s = 10\n")
    assert load(["--config", file], {}).config.plugin == {"storage_scsi": {"device_timeout_s": 10}}


@pytest.mark.parametrize(
    ("flags", "environment", "toml", "said"),
    [
        (["--transprt", "x"], {}, "", "did you mean --transport"),
        (["--transport"], {}, "", "wants a value"),
        (["--log-level=loud"], {}, "", "one of debug"),
        (["--runtime-timeout-s=soon"], {}, "", "wants a number"),
        (["--runtime-timeout-s=0"], {}, "", "at least 0.1"),
        (["--vm-agent=maybe"], {}, "", "true or false"),
        ([], {"UVMD_LOG_LEVLE": "info"}, "", "did you mean UVMD_LOG_LEVEL"),
        ([], {}, "transprt = 1", "did you mean transport"),
        ([], {}, "[log]\nlevl = 'info'", "unknown key log.levl"),
        ([], {}, "log = 3", "is a section"),
        ([], {}, "[vm]\nagent = 'true'", "wants true or false, not a text"),
        ([], {}, "[cgroups]\npods = 'pods'", "cgroups.pods is a cgroup's path from the root of all"),
        (["--cgroups-pods=/a/../b"], {}, "", "like /pods"),
        (["--cgroups-pods=/"], {}, "", "like /pods"),
        (["--cgroups-pods="], {}, "", "cannot be empty"),
        ([], {"UVMD_CGROUPS_OWN": "uvmd"}, "", "cgroups.own is a cgroup's path"),
        ([], {}, "[plugins]\nallow = [1]", "wants a list of texts"),
        ([], {}, "plugin = 1", "one table a plugin"),
        ([], {}, "=", "uvmd.toml"),
        (["--config", "/does/not/exist"], {}, "", "cannot read"),
    ],
)
def test_a_mistake_is_refused_and_named(
    tmp_path: Path, flags: list[str], environment: dict[str, str], toml: str, said: str
) -> None:
    if toml:
        flags = ["--config", write(tmp_path, toml)]
    with pytest.raises(ConfigError, match=said):
        load(flags, environment)


def test_help_names_every_option_with_flag_variable_and_default() -> None:
    text = help_text()
    for option in options().values():
        assert option.flag in text
        assert option.variable in text
