"""Negotiation, the first exchange of every connection (spec bridge.md 6.1)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.daemon import Daemon, running
from support.host import NEGOTIATE, START, ZERO_GUID, Connection, code
from support.matrix import row

BASE = {"ContainerId": "", "ActivityId": ZERO_GUID}


@pytest.fixture(scope="module")
def one_daemon() -> Iterator[Daemon]:
    with running() as started:
        yield started


@pytest.fixture
def fresh(one_daemon: Daemon) -> Iterator[Connection]:
    connection = one_daemon.connect(negotiate=False)
    yield connection
    connection.close()


@row("negotiate.ok")
def test_the_exact_answer_of_the_specification(fresh: Connection) -> None:
    assert fresh.negotiate() == {
        "Result": 0,
        "ActivityId": ZERO_GUID,
        "Version": 4,
        "Capabilities": {
            "SupportedSchemaVersions": [{"Major": 2, "Minor": 1}],
            "RuntimeOsType": "Linux",
            "GuestDefinedCapabilities": {
                "NamespaceAddRequestSupported": True,
                "SignalProcessSupported": True,
                "DumpStacksSupported": True,
                "DeleteContainerStateSupported": True,
            },
        },
    }


@row("negotiate.range")
@pytest.mark.parametrize(("minimum", "maximum"), [(5, 9), (1, 3), (0, 0), (5, 4)])
def test_ranges_without_version_four_are_refused(fresh: Connection, minimum: int, maximum: int) -> None:
    answer = fresh.ask(NEGOTIATE, {**BASE, "MinimumVersion": minimum, "MaximumVersion": maximum})
    assert code(answer) == "UNSUPPORTED_PROTOCOL_VERSION"
    # The host may try again on the same connection.
    assert fresh.negotiate()["Version"] == 4


@row("negotiate.bad-json")
def test_bodies_that_cannot_be_decoded_are_refused(fresh: Connection) -> None:
    answer = fresh.ask(NEGOTIATE, {**BASE, "MinimumVersion": "4", "MaximumVersion": 4})
    assert code(answer) == "INVALID_JSON"
    assert answer["ActivityId"] == ZERO_GUID
    assert "MinimumVersion" in answer["ErrorMessage"]
    for text in (b"", json.dumps(BASE).encode()[:40]):
        answer = fresh.ask(NEGOTIATE, text)
        assert code(answer) == "INVALID_JSON"
        assert "ActivityId" not in answer


@row("negotiate.letter-case")
def test_a_body_of_another_letter_case_is_taken(fresh: Connection) -> None:
    text = (
        b'{"containerid":"","ActivityID":"%s","minimumversion":3,"MAXIMUMVERSION":7,"x":[]}\n\n'
        % ZERO_GUID.encode()
    )
    answer = fresh.ask(NEGOTIATE, text)
    assert (code(answer), answer["Version"]) == ("S_OK", 4)


@row("negotiate.twice")
def test_a_second_negotiation_is_not_implemented(fresh: Connection) -> None:
    fresh.negotiate()
    answer = fresh.ask(NEGOTIATE, {**BASE, "MinimumVersion": 4, "MaximumVersion": 4})
    assert code(answer) == "E_NOTIMPL"


def test_the_version_counts_from_the_answer_on(fresh: Connection) -> None:
    first = fresh.send(NEGOTIATE, {**BASE, "MinimumVersion": 4, "MaximumVersion": 4})
    second = fresh.send(START, BASE)
    assert code(fresh.answer(first)) == "S_OK"
    # Either is right: it was read before or after the version was set (spec bridge.md 12.11).
    assert code(fresh.answer(second)) in ("E_NOTIMPL", "S_OK")


@row("any.version-off")
def test_without_version_four_everything_is_not_implemented() -> None:
    with running(options={"bridge-v4": "false"}) as daemon:
        connection = daemon.connect(negotiate=False)
        assert (
            code(connection.ask(NEGOTIATE, {**BASE, "MinimumVersion": 4, "MaximumVersion": 4})) == "E_NOTIMPL"
        )
        connection.close()
