"""Whose request is whose when several clients share one connection. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from uvmd.bridge.identifiers import Message


@dataclass(slots=True, eq=False)
class Request:
    """A client's request that has no answer yet.

    It has one id on the shared connection for each time that it was sent there; the first
    answer to any of them is the answer.
    """

    client: int
    #: The client's own id for it.
    id: int
    type: int
    body: bytes = field(repr=False)
    upstream: list[int] = field(default_factory=list)


class Remap:
    """Gives each client's request an id of its own on the shared connection.

    Args:
        first_id: the first id that is given out.
    """

    def __init__(self, first_id: int) -> None:
        self._next = first_id
        self._by_upstream: dict[int, Request] = {}
        self._of_client: dict[int, set[Request]] = {}

    def forward(self, client: int, id_: int, type_word: int = 0, body: bytes = b"") -> int:
        """Enter a request; return its id on the shared connection."""
        request = Request(client, id_, type_word, body)
        self._of_client.setdefault(client, set()).add(request)
        return self.again(request)

    def again(self, request: Request) -> int:
        """Return one more id for an open request that is sent once more."""
        upstream = self._next
        self._next += 1
        self._by_upstream[upstream] = request
        request.upstream.append(upstream)
        return upstream

    def answer(self, upstream: int) -> Request | None:
        """Close and return the request that a response answers; None if nobody waits for it."""
        request = self._by_upstream.get(upstream)
        if request is not None:
            self.close(request)
        return request

    def close(self, request: Request) -> None:
        """Forget an open request: later responses to it are nobody's."""
        for upstream in request.upstream:
            del self._by_upstream[upstream]
        requests = self._of_client[request.client]
        requests.discard(request)
        if not requests:
            del self._of_client[request.client]

    def open_requests(self) -> list[Request]:
        """Return what is not answered, in the order in which it was sent first."""
        return list(dict.fromkeys(self._by_upstream.values()))

    def lose(self, unsent: Collection[int]) -> list[Request]:
        """The connection broke: close and return what the daemon has got and may have done.

        Stay open: waits, which change nothing and can be repeated, and requests with an id
        in *unsent*, which the daemon never saw.
        """
        lost = [
            request
            for request in self.open_requests()
            if request.type != Message.WAIT and not _has(request, unsent)
        ]
        for request in lost:
            self.close(request)
        return lost

    def repeat(self, unsent: Collection[int]) -> list[tuple[int, Request]]:
        """The connection is back: return each sent wait with a further id to send it under.

        The daemon may have died and know nothing of a wait, or be the same one and answer
        it under its old id; the first answer counts.
        """
        waits = [
            request
            for request in self.open_requests()
            if request.type == Message.WAIT and not _has(request, unsent)
        ]
        return [(self.again(request), request) for request in waits]

    def has_open(self, client: int) -> bool:
        """Whether a client waits for an answer."""
        return client in self._of_client

    def drop(self, client: int) -> int:
        """Forget a client that left; return how many of its requests were open."""
        requests = list(self._of_client.get(client, ()))
        for request in requests:
            self.close(request)
        return len(requests)

    def __len__(self) -> int:
        return sum(map(len, self._of_client.values()))


def _has(request: Request, ids: Collection[int]) -> bool:
    return any(upstream in ids for upstream in request.upstream)
