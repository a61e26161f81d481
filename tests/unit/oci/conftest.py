from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unit.oci.schema import check_against_schema


@pytest.fixture
def valid(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], None]:
    """Check a document against the runtime specification's schema, where that is at hand."""
    return check_against_schema(request)
