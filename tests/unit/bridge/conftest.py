from __future__ import annotations

import pytest

from support.fake_host import FakeHost
from support.peer import Peer


@pytest.fixture
def host() -> Peer:
    """A negotiated connection to a bridge over a fake host."""
    return Peer(FakeHost()).connect()


@pytest.fixture
def sequential() -> Peer:
    """The same in a VM with confidential hardware; pools wait until told to run."""
    host = Peer(FakeHost(sequential=True)).connect()
    pools = host.fake.pools
    pools.work.held = pools.control.held = pools.find.held = True
    return host
