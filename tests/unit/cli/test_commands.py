"""uvmd's verbs for people: look without starting anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from uvmd.cli.commands import uvmd
from uvmd.cli.schemas import config_schema


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("UVMD_")]:
        monkeypatch.delenv(name)


def run(*words: str) -> Result:
    return CliRunner().invoke(uvmd, list(words))


def test_config_shows_each_value_and_who_set_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "uvmd.toml"
    file.write_text("[log]\nlevel = 'error'\n[plugin.x]\na = 1\n")
    monkeypatch.setenv("UVMD_TRANSPORT", "unix:/x")
    seen = json.loads(run("config", "--json", "--config", str(file)).output)
    assert seen["log.level"] == {"value": "error", "source": str(file)}
    assert seen["transport"] == {"value": "unix:/x", "source": "UVMD_TRANSPORT"}
    assert seen["log.format"]["source"] == "default"
    assert "plugin.x: a" in run("config", "--config", str(file)).output


def test_a_mistake_is_one_line_and_the_status_of_a_configuration_error(tmp_path: Path) -> None:
    file = tmp_path / "uvmd.toml"
    file.write_text("transprt = 1")
    for verb in ("config", "plugins", "check", "schema"):
        result = run(verb, "--config", str(file))
        assert result.exit_code == os.EX_CONFIG
        assert "did you mean transport" in result.output


def test_check_refuses_a_transport_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVMD_TRANSPORT", "carrier-pigeon")
    result = run("check")
    assert result.exit_code == os.EX_CONFIG
    assert "carrier-pigeon" in result.output


def test_plugins_can_be_read_by_a_script() -> None:
    assert isinstance(json.loads(run("plugins", "--json").output), list)


def test_schema_covers_messages_core_resources_and_the_configuration() -> None:
    schemas = json.loads(run("schema").output)
    assert {"message.create", "response.wait", "resource.SecurityPolicy", "config"} <= set(schemas)
    assert schemas["config"] == json.loads(json.dumps(config_schema()))
    log = schemas["config"]["properties"]["log"]
    assert log["additionalProperties"] is False
    assert log["properties"]["format"]["enum"] == ["json", "text"]


def test_an_unknown_schema_is_answered_with_the_names_that_there_are() -> None:
    result = run("schema", "message.nope")
    assert result.exit_code == os.EX_CONFIG
    assert "message.create" in result.output


def test_help_names_every_verb() -> None:
    text = run("--help").output
    assert all(verb in text for verb in ("serve", "config", "plugins", "check", "schema"))
