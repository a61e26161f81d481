"""Whose request is whose when several clients share one connection. Pure bookkeeping."""

from __future__ import annotations


class Remap:
    """Gives each client's request an id of its own on the shared connection.

    Args:
        first_id: the first id that is given out.
    """

    def __init__(self, first_id: int) -> None:
        self._next = first_id
        self._origin: dict[int, tuple[int, int]] = {}
        self._of_client: dict[int, set[int]] = {}

    def forward(self, client: int, id_: int) -> int:
        """Return the shared connection's id for a client's request."""
        upstream = self._next
        self._next += 1
        self._origin[upstream] = (client, id_)
        self._of_client.setdefault(client, set()).add(upstream)
        return upstream

    def answer(self, upstream: int) -> tuple[int, int] | None:
        """Return the client and its own id for a response, once; None if nobody waits for it."""
        origin = self._origin.pop(upstream, None)
        if origin is None:
            return None
        ids = self._of_client[origin[0]]
        ids.discard(upstream)
        if not ids:
            del self._of_client[origin[0]]
        return origin

    def has_open(self, client: int) -> bool:
        """Whether a client waits for an answer."""
        return client in self._of_client

    def drop(self, client: int) -> int:
        """Forget a client that left; return how many of its requests were open."""
        ids = self._of_client.pop(client, set())
        for upstream in ids:
            del self._origin[upstream]
        return len(ids)

    def __len__(self) -> int:
        return len(self._origin)
