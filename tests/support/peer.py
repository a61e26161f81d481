"""A host's end of the bridge without a socket: a real bridge in front of a fake host."""

from __future__ import annotations

import json
from typing import Any

from support.fake_host import FakeHost
from uvmd.bridge.frames import MAX_OUTBOUND_BYTES, Frame, split
from uvmd.bridge.hresult import name_of
from uvmd.bridge.identifiers import ZERO_GUID, Message
from uvmd.bridge.server import Bridge


class Peer:
    """Sends requests as a host does and keeps what comes back."""

    def __init__(self, fake: FakeHost, **options: Any) -> None:
        self.fake = fake
        self.sent: list[tuple[int, Frame]] = []
        #: Frames that the monitor keeps, and requests that it need not keep.
        self.held: list[tuple[int, int, bytes]] = []
        self.forgotten: list[int] = []
        #: What went with each frame that was sent: request, slot, state.
        self.facts: list[tuple[int, int, int]] = []
        self.bridge = Bridge(fake, self, **options)
        self.generation = 0
        self.next_id = 0

    def send_frame(
        self, generation: int, frame: bytes, request: int = 0, slot: int = 0, state: int = -1
    ) -> None:
        assert len(frame) <= MAX_OUTBOUND_BYTES
        if generation:
            self.sent.append((generation, split(frame)))
            self.facts.append((request, slot, state))
        else:
            self.held.append((request, slot, frame))

    def forget_request(self, request: int) -> None:
        self.forgotten.append(request)

    def connect(self, *, negotiate: bool = True) -> Peer:
        self.generation += 1
        self.bridge.bridge_up(self.generation)
        if negotiate:
            fields = {"MinimumVersion": 4, "MaximumVersion": 4}
            assert self.ask(Message.NEGOTIATE, container_id="", **fields)["Result"] == 0
        return self

    def disconnect(self) -> None:
        self.bridge.bridge_down(self.generation, "a test")

    def post(self, type_: int, body: bytes) -> int:
        """Send a request and return its id."""
        self.next_id += 1
        frame = Frame(type_, self.next_id, body).encode()
        self.bridge.bridge_frame(self.generation, self.next_id + 1000, frame)
        return self.next_id

    def post_fields(self, type_: int, *, container_id: str = "c", **fields: Any) -> int:
        body = {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}
        return self.post(type_, json.dumps(body).encode())

    def answers(self, id_: int) -> list[dict[str, Any]]:
        return [json.loads(frame.body) for _, frame in self.sent if frame.id == id_ and frame.type >> 28 == 2]

    def ask_raw(self, type_: int, body: bytes) -> dict[str, Any]:
        id_ = self.post(type_, body)
        (answer,) = self.answers(id_)
        return answer

    def ask(self, type_: int, **fields: Any) -> dict[str, Any]:
        id_ = self.post_fields(type_, **fields)
        (answer,) = self.answers(id_)
        return answer

    def code(self, type_: int, **fields: Any) -> str:
        return name_of(self.ask(type_, **fields)["Result"])

    def notifications(self) -> list[dict[str, Any]]:
        return [json.loads(frame.body) for _, frame in self.sent if frame.type == 0x30100101]

    def create(self, container_id: str = "c") -> int:
        """Create a container and return its init's pid."""
        config = {"SchemaVersion": {"Major": 2, "Minor": 1}, "OciSpecification": {}, "OciBundlePath": "/b"}
        answer = self.ask(Message.CREATE, container_id=container_id, ContainerConfig=json.dumps(config))
        assert answer == {"Result": 0, "ActivityId": ZERO_GUID, "SelectedProtocolVersion": 0}
        return self.fake.containers[container_id].init.pid
