"""The JSON schema of the runtime specification, which is not this repository's to carry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "runtime-spec"


def check_against_schema(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], None]:
    """Return a check of a document; without the schema it says so on the terminal and passes."""
    if not FOLDER.is_dir():
        reporter = request.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(
                f"\n{request.node.nodeid}: NOT checked against the runtime specification's schema, "
                f"{FOLDER} is missing",
                yellow=True,
            )
        return lambda document: None
    import jsonschema
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT4

    files = {path.name: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    registry = Registry().with_resources(
        (name, Resource(contents, DRAFT4)) for name, contents in files.items()
    )
    main = {key: value for key, value in files["config-schema.json"].items() if key != "id"}
    validator = jsonschema.Draft4Validator(main, registry=registry)
    return lambda document: validator.validate(document)
