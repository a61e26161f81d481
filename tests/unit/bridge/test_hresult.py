from __future__ import annotations

import pytest

from uvmd import errors
from uvmd.bridge.hresult import HResult, name_of, of_error, text_of, to_signed, to_unsigned

SIGNED = {
    "S_OK": 0,
    "E_NOTIMPL": -2147467263,
    "E_FAIL": -2147467259,
    "E_INVALIDARG": -2147024809,
    "NOT_FOUND": -2147023728,
    "TIMEOUT": -1070137079,
    "UNKNOWN_MESSAGE": -1070137077,
    "UNSUPPORTED_PROTOCOL_VERSION": -1070137076,
    "INVALID_JSON": -1070137075,
    "SYSTEM_NOT_FOUND": -1070137074,
    "SYSTEM_ALREADY_EXISTS": -1070137073,
    "SYSTEM_ALREADY_STOPPED": -1070137072,
    "INVALID_STATE": -2143878907,
}


def test_the_codes_are_the_signed_numbers_of_the_specification() -> None:
    assert {code.name: code.signed for code in HResult} == SIGNED
    assert all(to_unsigned(to_signed(code)) == code for code in HResult)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (errors.InvalidMessage("x"), "INVALID_JSON"),
        (errors.UnsupportedProtocol("x"), "UNSUPPORTED_PROTOCOL_VERSION"),
        (errors.UnknownMessage("x"), "E_NOTIMPL"),
        (errors.ContainerNotFound("x"), "SYSTEM_NOT_FOUND"),
        (errors.ContainerExists("x"), "SYSTEM_ALREADY_EXISTS"),
        (errors.ContainerStopped("x"), "SYSTEM_ALREADY_STOPPED"),
        (errors.InvalidContainerId("x"), "E_INVALIDARG"),
        (errors.InvalidState("x"), "INVALID_STATE"),
        (errors.NotFound("x"), "NOT_FOUND"),
        (errors.ProcessNotFound("x"), "NOT_FOUND"),
        (errors.NamespaceNotFound("x"), "NOT_FOUND"),
        (errors.WaitTimeout("x"), "TIMEOUT"),
        (errors.Refused("x"), "E_FAIL"),
        (errors.PolicyDenied("x"), "E_FAIL"),
        (errors.Inconsistent("x"), "E_FAIL"),
        (errors.InUse("x"), "E_FAIL"),
        (errors.Failed("x"), "E_FAIL"),
        (errors.RuntimeFailed("x"), "E_FAIL"),
        (errors.DeadlineExceeded("x"), "E_FAIL"),
        (OSError(2, "x"), "E_FAIL"),
        (KeyError("x"), "E_FAIL"),
    ],
)
def test_every_error_has_its_code(error: BaseException, name: str) -> None:
    assert of_error(error).name == name


def caused(error: BaseException, *causes: BaseException) -> BaseException:
    for outer, inner in zip((error, *causes), causes, strict=False):
        outer.__cause__ = inner
    return error


def test_wrapping_does_not_lose_a_code() -> None:
    error = caused(errors.Failed("create"), RuntimeError("step"), errors.ContainerStopped("c"))
    assert of_error(error) is HResult.SYSTEM_ALREADY_STOPPED


def test_the_outermost_code_decides() -> None:
    assert of_error(caused(errors.NotFound("x"), errors.ContainerStopped("c"))) is HResult.NOT_FOUND
    assert of_error(caused(errors.PolicyDenied("no"), errors.InvalidMessage("x"))) is HResult.E_FAIL


def test_an_error_that_was_only_being_handled_does_not_count() -> None:
    error = errors.Failed("x")
    error.__context__ = errors.ContainerNotFound("y")
    assert of_error(error) is HResult.E_FAIL


def test_a_ring_of_causes_comes_to_an_end() -> None:
    one, two = RuntimeError("1"), RuntimeError("2")
    one.__cause__, two.__cause__ = two, one
    assert of_error(one) is HResult.E_FAIL


def test_codes_have_names_for_people() -> None:
    assert name_of(-1070137074) == name_of(0xC037010E) == "SYSTEM_NOT_FOUND"
    assert name_of(-1) == "0xFFFFFFFF"
    assert text_of(HResult.E_FAIL) == "HRESULT: 0x80004005"
