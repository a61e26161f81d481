"""Connections and questions, one after the other."""

from __future__ import annotations

import socket

from uvmd_policy_rego.desk import Desk
from uvmd_policy_rego.protocol import Broken, receive_question, send_answer


def serve(listener: socket.socket, desk: Desk | None = None) -> None:
    """Answer one daemon after the other, until the listening socket is gone.

    Raises:
        whatever a question raises: nobody knows then what the policy remembers.
    """
    desk = desk or Desk()
    try:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                _converse(connection, desk)
    finally:
        desk.close()


def _converse(connection: socket.socket, desk: Desk) -> None:
    while True:
        try:
            question = receive_question(connection)
            if question is None:
                return
        except (OSError, Broken):
            return
        answer = desk.handle(*question)
        try:
            send_answer(connection, answer)
        except OSError:
            # The daemon is gone. What was decided is on neither side's record but ours;
            # the next one sees that the digests differ.
            return
