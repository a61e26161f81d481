"""Help, errors and statuses of the program as a whole."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from typing import Any

import click
import pytest

from unit.cli_ctl.conftest import Invoke
from unit.client.fakes import FakeDaemon, refusal
from uvmd.bridge.identifiers import Message
from uvmd.cli import ctl, uvmctl
from uvmd.cli.ctl.app import VERBS
from uvmd.client import ConnectTimeout, connector


def test_the_help_lists_every_verb_without_importing_any(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, _ in VERBS.values():
        monkeypatch.delitem(sys.modules, f"uvmd.cli.ctl.{module}", raising=False)
    result = invoke("--help")
    assert result.exit_code == 0
    for verb, (module, line) in VERBS.items():
        assert f"  {verb} " in result.output
        assert line in result.output
        assert f"uvmd.cli.ctl.{module}" not in sys.modules


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_teaches_with_an_example(invoke: Invoke, verb: str) -> None:
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    assert f"uvmctl {verb}" in result.output.split("Options:")[0].split("\n\n", 2)[2]
    assert "--json" in result.output


def test_the_table_leads_to_every_verb() -> None:
    found: dict[str | None, str] = {}
    for module in pkgutil.iter_modules(ctl.__path__):
        things = vars(importlib.import_module(f"{ctl.__name__}.{module.name}"))
        groups = [thing for thing in things.values() if isinstance(thing, click.Group)]
        below = {id(command) for group in groups for command in group.commands.values()}
        for name, thing in things.items():
            if name.endswith("_verb") and isinstance(thing, click.Command) and id(thing) not in below:
                assert name == f"{thing.name}_verb"
                found[thing.name] = module.name
    assert found == {verb: module for verb, (module, _) in VERBS.items()}


def test_the_program_hands_its_arguments_on(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["uvmctl", "--version"])
    with pytest.raises(SystemExit) as ended:
        uvmctl.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("uvmctl, version ")


def test_a_verb_that_does_not_exist_is_a_wrong_usage(invoke: Invoke) -> None:
    result = invoke("rnu")
    assert result.exit_code == 2
    assert "rnu" in result.stderr


def test_a_refusal_is_one_line_with_name_and_code(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.DELETE] = lambda _: refusal(0xC037010E, "container c1 is not known")
    result = invoke("rm", "c1")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "uvmctl: SYSTEM_NOT_FOUND (0xC037010E): container c1 is not known\n"


def test_with_json_a_refusal_is_json_too(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.DELETE] = lambda _: refusal(0xC037010E, "gone")
    result = invoke("rm", "c1", "--json")
    assert json.loads(result.stderr) == {
        "error": "RemoteError",
        "message": "gone",
        "hresult": "0xC037010E",
        "name": "SYSTEM_NOT_FOUND",
        "request": "DELETE",
    }


def test_shared_options_stand_before_or_after_the_verb(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float]] = []

    def refuse(address: object, *, timeout_s: float, **_: object) -> None:
        seen.append((str(address), timeout_s))
        raise ConnectTimeout("no")

    monkeypatch.setattr("uvmd.client.connect", refuse)
    monkeypatch.setenv("UVMD_HOST", "unix:/e")
    for args in (
        ["--host", "unix:/a", "--timeout", "3", "ps"],
        ["ps", "--host", "unix:/a", "--timeout", "3"],
        ["--host", "unix:/b", "ps", "--host", "unix:/a", "--timeout", "3"],
        ["ps"],
    ):
        result = invoke(*args)
        assert (result.exit_code, result.stderr) == (1, "uvmctl: no\n")
    assert seen == [("unix:/a", 3.0)] * 3 + [("unix:/e", 60.0)]


def test_a_bad_address_is_a_plain_error(invoke: Invoke) -> None:
    result = invoke("--host", "tcp:1", "ps")
    assert result.exit_code == 1
    assert "expected unix:PATH" in result.stderr


def test_nobody_connecting_is_said_with_the_command_that_helps(
    invoke: Invoke, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("b") / "b.sock"
    result = invoke("--host", f"unix:{path}", "--timeout", "0", "ps")
    assert result.exit_code == 1
    assert f"uvmd serve --transport unix:{path}" in result.stderr
    assert not list(path.parent.iterdir())


def test_an_interrupt_ends_with_the_status_of_a_signal(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(connector, "connect", interrupt)
    monkeypatch.setattr("uvmd.client.connect", interrupt)
    assert invoke("ps").exit_code == 130
