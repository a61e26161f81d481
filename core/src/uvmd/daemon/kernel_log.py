"""Forwards the kernel's log to ours (spec containers.md 4): why a process died is often only there."""

from __future__ import annotations

import logging
import sys
import threading

from uvmd.linux import kmsg

log = logging.getLogger(__name__)


def start(level: int, *, first: bool) -> None:
    """Forward records of this priority and more urgent ones, on a thread of its own.

    ``first``: no daemon of this VM was there before, so the log is read from its beginning;
    a later one would tell everything again. A log that cannot be read is no reason to fail.
    """
    if sys.stderr is not None and kmsg.is_the_log(sys.stderr.fileno()):
        log.warning("the kernel's log is where our own lines go, it is not forwarded, ignoring")
        return
    try:
        source = kmsg.KernelLog(from_start=first)
    except OSError as error:
        log.warning("the kernel's log cannot be opened, ignoring", extra={"error": error.strerror})
        return
    threading.Thread(target=forward, args=(source, level), name="kernel-log", daemon=True).start()


def forward(source: kmsg.KernelLog, level: int) -> None:
    """Log each record of ``source`` that is urgent enough, until it cannot be read any more."""
    while True:
        try:
            data = source.next_record()
        except kmsg.Overwritten:
            log.warning("the kernel's log was faster than we are, records are missing, ignoring")
            continue
        except OSError as error:
            log.error("the kernel's log cannot be read any more", extra={"error": error.strerror})
            break
        if not data:
            break
        try:
            record = kmsg.parse_record(data)
        except ValueError as error:
            log.error("a record cannot be understood, ignoring", extra={"error": str(error)})
            continue
        if record.priority <= level:
            log.info("kernel", extra=_facts(record))
    source.close()


def _facts(record: kmsg.Record) -> dict[str, object]:
    return {
        "priority": record.priority_name,
        "facility": record.facility,
        "seq": record.sequence,
        "boot_us": record.boot_us,
        "flags": record.flags,
        "text": record.text,
    }
