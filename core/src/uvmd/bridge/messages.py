"""The bodies of the thirteen requests and their answers as models (spec bridge.md 3 and 6).

Imported when the first request after Negotiate comes, or by the warm-up thread before:
models bring pydantic, and Negotiate must not wait for it. The wire's spelling is each
field's alias. Fields that the protocol has and this guest ignores are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from uvmd import codec
from uvmd.api.wire import I32, U16, U32, Field, Items, WireModel
from uvmd.bridge.frames import Frame
from uvmd.bridge.identifiers import ZERO_GUID, Message

__all__ = [
    "NESTED_REQUESTS",
    "REQUESTS",
    "RESPONSES",
    "ZERO_GUID",
    "ContainerDocument",
    "CreateRequest",
    "DumpStacksResponse",
    "ErrorRecord",
    "ExecuteRequest",
    "ExecuteResponse",
    "ExecuteSettings",
    "GetPropertiesRequest",
    "Message",
    "Modification",
    "ModifyRequest",
    "NegotiateRequest",
    "NegotiateResponse",
    "Notification",
    "ProcessParameters",
    "PropertiesResponse",
    "PropertyQuery",
    "Request",
    "ResizeRequest",
    "Response",
    "SchemaVersion",
    "SignalOptions",
    "SignalRequest",
    "StdioPorts",
    "WaitRequest",
    "WaitResponse",
    "decode_response",
    "encode_request",
    "nested",
]


class Request(WireModel):
    """What every request has; the whole of Start, both Shutdowns, DumpStacks and Delete."""

    container_id: str = Field(default="", alias="ContainerId")
    activity_id: str = Field(default="", alias="ActivityId")
    #: W3C trace context of the caller.
    trace: dict[str, str] = Field(default_factory=dict, alias="otsc")


class NegotiateRequest(Request):
    minimum_version: U32 = Field(default=0, alias="MinimumVersion")
    maximum_version: U32 = Field(default=0, alias="MaximumVersion")
    #: uvmd's own: send event frames on this connection.
    uvmd_events: bool = Field(default=False, alias="UvmdEvents")


class CreateRequest(Request):
    #: JSON of a ContainerDocument.
    container_config: str = Field(default="", alias="ContainerConfig", repr=False)


class SchemaVersion(WireModel):
    major: U32 = Field(default=0, alias="Major")
    minor: U32 = Field(default=0, alias="Minor")


class ContainerDocument(WireModel):
    """``ContainerConfig``, decoded. The OCI specification is for ``oci`` to read."""

    schema_version: SchemaVersion = Field(default_factory=SchemaVersion, alias="SchemaVersion")
    bundle: str = Field(default="", alias="OciBundlePath")
    spec: dict[str, Any] | None = Field(default=None, alias="OciSpecification", repr=False)
    scratch: str = Field(default="", alias="ScratchDirPath")


class StdioPorts(WireModel):
    """vsock ports on which the host listens, one a stream; 0 is a port like any other."""

    stdin: U32 = Field(default=0, alias="StdIn")
    stdout: U32 = Field(default=0, alias="StdOut")
    stderr: U32 = Field(default=0, alias="StdErr")


class ExecuteSettings(WireModel):
    #: JSON of ProcessParameters.
    process_parameters: str = Field(default="", alias="ProcessParameters", repr=False)
    ports: StdioPorts = Field(default_factory=StdioPorts, alias="VsockStdioRelaySettings")


class ExecuteRequest(Request):
    settings: ExecuteSettings = Field(default_factory=ExecuteSettings, alias="Settings")


class ProcessParameters(WireModel):
    """Three kinds of process in one object; which one is decided by spec bridge.md 6.5."""

    command_line: str = Field(default="", alias="CommandLine", repr=False)
    command_args: Items[str] = Field(default=(), alias="CommandArgs", repr=False)
    working_directory: str = Field(default="", alias="WorkingDirectory")
    environment: dict[str, str] = Field(default_factory=dict, alias="Environment", repr=False)
    emulate_console: bool = Field(default=False, alias="EmulateConsole")
    create_stdin: bool = Field(default=False, alias="CreateStdInPipe")
    create_stdout: bool = Field(default=False, alias="CreateStdOutPipe")
    create_stderr: bool = Field(default=False, alias="CreateStdErrPipe")
    in_vm: bool = Field(default=False, alias="CreateInUtilityVM")
    oci_process: dict[str, Any] | None = Field(default=None, alias="OciProcess", repr=False)


class WaitRequest(Request):
    process_id: U32 = Field(default=0, alias="ProcessId")
    #: Milliseconds; 0xFFFFFFFF waits for ever.
    timeout_ms: U32 = Field(default=0, alias="TimeoutInMs")


class SignalOptions(WireModel):
    signal: I32 = Field(default=0, alias="Signal")


class SignalRequest(Request):
    process_id: U32 = Field(default=0, alias="ProcessId")
    options: SignalOptions = Field(default_factory=SignalOptions, alias="Options")


class ResizeRequest(Request):
    process_id: U32 = Field(default=0, alias="ProcessId")
    height: U16 = Field(default=0, alias="Height")
    width: U16 = Field(default=0, alias="Width")


class GetPropertiesRequest(Request):
    #: JSON of a PropertyQuery, or empty.
    query: str = Field(default="", alias="Query")


class PropertyQuery(WireModel):
    types: Items[str] = Field(default=(), alias="PropertyTypes")


class ModifyRequest(Request):
    #: Kept raw: it is decoded in a second step, as Modification.
    request: Any = Field(default=None, alias="Request", repr=False)


class Modification(WireModel):
    """``Request`` of a Modify. The settings are decoded by who serves the resource type."""

    request_type: str = Field(default="", alias="RequestType")
    resource_type: str = Field(default="", alias="ResourceType")
    settings: Any = Field(default=None, alias="Settings", repr=False)


class ErrorRecord(WireModel):
    result: I32 = Field(default=0, alias="Result")
    message: str = Field(default="", alias="Message")
    stack_trace: str = Field(default="", alias="StackTrace")
    module: str = Field(default="", alias="ModuleName")
    file: str = Field(default="", alias="FileName")
    line: U32 = Field(default=0, alias="Line")
    function: str = Field(default="", alias="FunctionName")


class Response(WireModel):
    """What every answer has; the whole of most."""

    result: I32 = Field(default=0, alias="Result")
    activity_id: str = Field(default="", alias="ActivityId")
    error_message: str = Field(default="", alias="ErrorMessage")
    error_records: Items[ErrorRecord] = Field(default=(), alias="ErrorRecords")


class NegotiateResponse(Response):
    version: U32 = Field(default=0, alias="Version")
    capabilities: dict[str, Any] = Field(default_factory=dict, alias="Capabilities")


class ExecuteResponse(Response):
    process_id: U32 = Field(default=0, alias="ProcessId")


class WaitResponse(Response):
    exit_code: U32 = Field(default=0, alias="ExitCode")


class PropertiesResponse(Response):
    #: JSON of an object.
    properties: str = Field(default="", alias="Properties")


class DumpStacksResponse(Response):
    stacks: str = Field(default="", alias="GuestStacks")


class Notification(WireModel):
    """A container's exit; the only message that a guest begins."""

    container_id: str = Field(default="", alias="ContainerId")
    activity_id: str = Field(default="", alias="ActivityId")
    type: str = Field(default="", alias="Type")
    operation: str = Field(default="", alias="Operation")
    result: I32 = Field(default=0, alias="Result")


REQUESTS: Mapping[Message, type[Request]] = {
    Message.CREATE: CreateRequest,
    Message.START: Request,
    Message.SHUTDOWN_GRACEFUL: Request,
    Message.SHUTDOWN_FORCED: Request,
    Message.EXECUTE: ExecuteRequest,
    Message.WAIT: WaitRequest,
    Message.SIGNAL: SignalRequest,
    Message.RESIZE: ResizeRequest,
    Message.GET_PROPERTIES: GetPropertiesRequest,
    Message.MODIFY: ModifyRequest,
    Message.NEGOTIATE: NegotiateRequest,
    Message.DUMP_STACKS: Request,
    Message.DELETE: Request,
}

#: Fields whose text is JSON again, by message and dotted field.
NESTED_REQUESTS: Mapping[tuple[Message, str], type[WireModel]] = {
    (Message.CREATE, "ContainerConfig"): ContainerDocument,
    (Message.EXECUTE, "Settings.ProcessParameters"): ProcessParameters,
    (Message.GET_PROPERTIES, "Query"): PropertyQuery,
    (Message.MODIFY, "Request"): Modification,
}

RESPONSES: Mapping[Message, type[Response]] = {
    Message.NEGOTIATE: NegotiateResponse,
    Message.EXECUTE: ExecuteResponse,
    Message.WAIT: WaitResponse,
    Message.GET_PROPERTIES: PropertiesResponse,
    Message.DUMP_STACKS: DumpStacksResponse,
}

R = TypeVar("R", bound=Response)


def encode_request(message: Message, id_: int, request: Request) -> bytes:
    """Return the whole frame of a request: the fields that were given, nothing else."""
    body = codec.dumps(request.model_dump(by_alias=True, exclude_unset=True))
    return Frame(message, id_, body).encode()


def nested(model: WireModel) -> str:
    """Return ``model`` as JSON text for a field that carries JSON inside a string."""
    return codec.dumps(model.model_dump(by_alias=True, exclude_unset=True)).decode()


def decode_response(body: bytes, model: type[R]) -> R:
    """Return the answer that ``body`` is.

    Raises:
        InvalidMessage: it does not decode; a real host drops the bridge then.
    """
    return codec.decode(body, model, what="response")
