"""What each message asks of the host: decode, call, and name the fields of the answer.

The order of decoding is the reference's (spec bridge.md 5.3): the outer body, the JSON
inside its strings, and only then anything that could say whether a container exists.
Start, Wait and Negotiate are in ``dispatch``, they must not wait for the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uvmd.bridge import messages as wire
from uvmd.bridge.call import SILENCE, Call
from uvmd.bridge.facade import HostFacade
from uvmd.bridge.identifiers import SCHEMA_VERSION, Message
from uvmd.codec import decode_value, dumps
from uvmd.errors import InvalidMessage, Refused
from uvmd.host.requests import NULL_ID, ExecuteRequest

#: Property types of ours, for the VM itself; a host of another make never asks for them.
OWN_PROPERTIES = "uvmd."


def create(host: HostFacade, call: Call) -> object:
    request = call.decode(wire.CreateRequest)
    document = call.decode_nested(request.container_config, wire.ContainerDocument, "ContainerConfig")
    schema = document.schema_version
    if (schema.major, schema.minor) < SCHEMA_VERSION:
        raise InvalidMessage(
            f"body.ContainerConfig.SchemaVersion: {schema.major}.{schema.minor} is older than 2.1"
        )
    host.create_container(
        request.container_id,
        bundle=document.bundle,
        scratch=document.scratch,
        spec=document.spec,
        activity_id=call.activity_id,
    )
    return {"SelectedProtocolVersion": 0}


def execute(host: HostFacade, call: Call) -> object:
    request = call.decode(wire.ExecuteRequest)
    ports = request.settings.ports
    process = call.decode_nested(
        request.settings.process_parameters, wire.ProcessParameters, "Settings.ProcessParameters"
    )
    pid = host.execute(
        request.container_id,
        ExecuteRequest(
            in_vm=process.in_vm or request.container_id == NULL_ID,
            stdin=ports.stdin if process.create_stdin else None,
            stdout=ports.stdout if process.create_stdout else None,
            stderr=ports.stderr if process.create_stderr else None,
            oci_process=process.oci_process,
            args=tuple(process.command_args),
            command_line=process.command_line,
            cwd=process.working_directory,
            env=process.environment,
            terminal=process.emulate_console,
        ),
    )
    return {"ProcessId": pid}


def signal(host: HostFacade, call: Call) -> object:
    request = call.decode(wire.SignalRequest)
    host.signal(request.container_id, request.process_id, request.options.signal)
    return None


def resize(host: HostFacade, call: Call) -> object:
    request = call.decode(wire.ResizeRequest)
    host.resize(request.container_id, request.process_id, width=request.width, height=request.height)
    return None


def shutdown(host: HostFacade, call: Call) -> object:
    request = call.decode(wire.Request)
    if request.container_id != NULL_ID:
        host.shutdown(request.container_id, forced=call.type == Message.SHUTDOWN_FORCED)
        return None
    if not host.power_off():
        raise Refused("power-off of the VM is not permitted by the configuration ([vm] agent)")
    return SILENCE


def get_properties(host: HostFacade, call: Call) -> object:
    request = call.decode(wire.GetPropertiesRequest)
    types: tuple[str, ...] = ()
    if request.query:
        types = tuple(call.decode_nested(request.query, wire.PropertyQuery, "Query").types)
    ours = bool(types) and all(name.startswith(OWN_PROPERTIES) for name in types)
    if request.container_id == NULL_ID and not ours:
        raise Refused("the VM has no properties of a container")
    properties: Mapping[str, Any] = host.properties(request.container_id, types)
    return {"Properties": dumps(properties).decode()}


def modify(host: HostFacade, call: Call) -> object:
    request = call.decode(wire.ModifyRequest)
    if request.request is None:
        raise InvalidMessage("body.Request: is missing")
    change = decode_value(request.request, wire.Modification, what="body.Request", strict=call.strict)
    host.modify(
        request.container_id,
        change.request_type or "Add",
        change.resource_type,
        change.settings,
        change.settings is not None,
    )
    return None


def dump_stacks(host: HostFacade, call: Call) -> object:
    # The body is never decoded: whoever debugs a confused host gets an answer.
    return {"GuestStacks": host.dump_stacks()}


def delete(host: HostFacade, call: Call) -> object:
    request = call.decode(wire.Request)
    host.delete_container(request.container_id)
    return None
