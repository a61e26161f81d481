"""Verbs that plugins add."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import click
import pytest

from unit.cli_ctl.conftest import Invoke
from unit.client.fakes import FakeDaemon
from uvmd import plugin_manager
from uvmd.bridge.identifiers import Message
from uvmd.cli.ctl import app, plugins
from uvmd.client import Client
from uvmd.errors import ConfigError

HERE = "unit.cli_ctl.test_plugins"


@click.command("poke", short_help="Start something.")
@click.argument("container_id")
@click.pass_obj
def poke(client: Client, container_id: str) -> int:
    client.start(container_id)
    return 4


no_command = 5


def provide(monkeypatch: pytest.MonkeyPatch, **references: str) -> None:
    loaded = SimpleNamespace(commands=lambda: references)
    monkeypatch.setattr(plugin_manager, "load_plugins", lambda: loaded)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    app._plugin_verbs.cache_clear()
    yield
    app._plugin_verbs.cache_clear()


def test_a_plugins_verb_gets_a_client_and_sets_the_status(
    invoke: Invoke, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(monkeypatch, poke=f"{HERE}:poke")
    assert invoke("poke", "c1").exit_code == 4
    assert daemon.bodies(Message.START)[0]["ContainerId"] == "c1"


def test_its_help_needs_no_daemon_and_it_is_listed(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(monkeypatch, poke=f"{HERE}:poke")
    assert "Added by plugins:\n  poke" in invoke("--help").output
    assert invoke("--timeout", "0", "poke", "--help").exit_code == 0


def test_a_plugin_cannot_hide_one_of_our_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    provide(monkeypatch, ps=f"{HERE}:poke")
    assert plugins.plugin_verbs(taken=app.VERBS) == {}


@pytest.mark.parametrize("reference", ["nowhere.at.all:x", f"{HERE}:missing", f"{HERE}:no_command"])
def test_a_broken_verb_is_said_and_left_out(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    provide(monkeypatch, broken=reference)
    result = invoke("--help")
    assert result.exit_code == 0
    assert "verb broken" in result.stderr


def test_plugins_that_contradict_each_other_do_not_take_the_help_away(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise ConfigError("two plugins add disk")

    monkeypatch.setattr(plugin_manager, "load_plugins", refuse)
    result = invoke("nonsense")
    assert result.exit_code == 2
    assert "two plugins add disk, ignoring" in result.stderr


def test_our_own_verbs_do_not_ask_for_plugins(
    invoke: Invoke, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise ConfigError("asked")

    monkeypatch.setattr(plugin_manager, "load_plugins", refuse)
    assert invoke("ping").stderr == ""


# Names with a space: verbs below a group


@click.group("shelf", short_help="A group.")
def shelf() -> None:
    """A group that needs nobody."""


shelf.needs_client = False  # type: ignore[attr-defined]


@click.group("desk", short_help="A group with a client.")
def desk() -> None:
    """A group whose verbs all talk to the daemon."""


@shelf.command("look")
def look() -> None:
    click.echo("looked")


@click.command("read", short_help="Read.")
def read() -> None:
    click.echo("read")


read.needs_client = False  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """What a test hangs below the groups of this module is taken off again."""
    yield
    for group, own in ((shelf, {"look"}), (desk, set())):
        for name in set(group.commands) - own:
            del group.commands[name]


def with_names(monkeypatch: pytest.MonkeyPatch, references: dict[str, str]) -> None:
    loaded = SimpleNamespace(commands=lambda: references)
    monkeypatch.setattr(plugin_manager, "load_plugins", lambda: loaded)


def test_a_name_with_a_space_hangs_below_another_plugins_group(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_names(monkeypatch, {"shelf read": f"{HERE}:read", "shelf": f"{HERE}:shelf"})
    assert invoke("shelf", "read").output == "read\n"
    assert invoke("shelf", "look").output == "looked\n"
    assert invoke("shelf", "read").stderr == "", "a verb that hangs there already is no clash"
    listed = invoke("shelf", "--help").output.splitlines()[-2:]
    assert [line.split()[0] for line in listed] == ["look", "read"]
    assert "shelf read" not in invoke("--help").output


def test_without_the_other_plugin_there_is_a_group_all_the_same(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_names(monkeypatch, {"policy report": f"{HERE}:read"})
    assert invoke("policy", "report").output == "read\n"
    assert "More about policy." in invoke("--help").output


@pytest.mark.parametrize("group", ["shelf", "desk"])
def test_a_verb_below_a_group_gets_one_client(
    invoke: Invoke, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    with_names(monkeypatch, {group: f"{HERE}:{group}", f"{group} poke": f"{HERE}:poke"})
    assert invoke(group, "poke", "c1").exit_code == 4
    assert daemon.bodies(Message.START)[0]["ContainerId"] == "c1"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ({"shelf look": "read"}, "shelf takes no verb 'look'"),
        ({"shelf a b": "read"}, "shelf takes no verb 'a b'"),
        ({"shelf ": "read"}, "shelf takes no verb ''"),
        ({"read": "read", "read more": "read"}, "read is no group"),
    ],
)
def test_a_verb_that_cannot_hang_there_is_said_and_left_out(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, names: dict[str, str], text: str
) -> None:
    references = {name: f"{HERE}:{attribute}" for name, attribute in {"shelf": "shelf", **names}.items()}
    with_names(monkeypatch, references)
    result = invoke("shelf", "look")
    assert text in result.stderr
    assert result.stdout == "looked\n"


def test_nothing_hangs_below_a_verb_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with_names(monkeypatch, {"image burn": f"{HERE}:read"})
    assert plugins.plugin_verbs(taken=app.VERBS) == {}


def test_a_plugin_s_own_command_stays_as_it_was_made(
    invoke: Invoke, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = click.Group("things")
    before, made = poke.invoke, dict(group.commands)
    monkeypatch.setattr(f"{HERE}.things", group, raising=False)
    places = {"poke": "poke", "things": "things", "things poke": "poke"}
    provide(monkeypatch, **{name: f"{HERE}:{where}" for name, where in places.items()})
    assert invoke("things", "poke", "c1").exit_code == 4
    assert (poke.invoke, group.commands) == (before, made)
