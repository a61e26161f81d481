"""CDI files: their shape, and which of several counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import Failed, Refused
from uvmd_example_cdi.documents import Document, find_device, read_document


def lamp(name: str = "left", **edits: Any) -> dict[str, Any]:
    return {
        "cdiVersion": "0.6.0",
        "kind": "example.com/lamp",
        "devices": [{"name": name, "containerEdits": edits}],
    }


def write(folder: Path, name: str, document: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return folder / name


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    edits = {
        "env": ["LAMP=left"],
        "deviceNodes": [
            {"path": "/dev/lamp", "hostPath": "/dev/ttyS0", "type": "c", "major": 4, "minor": 64,
             "fileMode": 438, "permissions": "rw", "uid": 0, "gid": 5},
        ],
        "mounts": [{"hostPath": "/opt/lamp", "containerPath": "/usr/lib/lamp", "options": ["ro", "bind"]}],
        "additionalGids": [5],
        "hooks": [{"hookName": "createContainer", "path": "/bin/true"}],
    }  # fmt: skip
    path = write(tmp_path, "lamp.json", {**lamp(**edits), "containerEdits": {"env": ["ALL=1"]}})
    document = read_document(str(path))
    assert document.devices[0].edits.device_nodes[0].major == 4
    assert document.edits.env == ["ALL=1"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cdiVersion": "2.0.0"}, "cdiVersion"),
        ({"cdiVersion": None}, "cdiVersion"),
        ({"kind": "lamp"}, "kind"),
        ({"kind": "example.com/lamp=left"}, "kind"),
        ({"devices": []}, "devices"),
        ({"devices": [{"name": "-", "containerEdits": {}}]}, "devices.0.name"),
        ({"devices": [{"name": "a"}]}, "devices.0.containerEdits"),
        ({"surprise": 1}, "surprise"),
        ({"containerEdits": {"env": ["novalue"]}}, "containerEdits.env.0"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/a", "permissions": "x"}]}}, "permissions"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/a", "major": "4"}]}}, "major"),
        ({"containerEdits": {"mounts": [{"hostPath": "/a"}]}}, "containerPath"),
        ({"containerEdits": {"additionalGids": [-1]}}, "additionalGids.0"),
    ],
)
def test_what_is_no_cdi_file_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    path = write(tmp_path, "lamp.json", {**lamp(), **change})
    with pytest.raises(Failed, match=field) as caught:
        read_document(str(path))
    assert str(path) in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    from pydantic import ValidationError

    try:
        Document.model_validate_json(data)
    except ValidationError:
        pass


def test_the_later_directory_counts(tmp_path: Path) -> None:
    write(tmp_path / "a", "lamp.json", lamp(env=["FROM=a"]))
    write(tmp_path / "b", "lamp.json", lamp(env=["FROM=b"]))
    directories = [str(tmp_path / name) for name in ("a", "b", "none")]
    found = find_device(directories, "example.com/lamp=left")
    assert found.device.edits.env == ["FROM=b"]


def test_one_directory_has_a_device_once(tmp_path: Path) -> None:
    write(tmp_path, "one.json", lamp())
    write(tmp_path, "two.json", lamp())
    write(tmp_path, "three.json", lamp("right"))
    assert find_device([str(tmp_path)], "example.com/lamp=right").path.endswith("three.json")
    with pytest.raises(Refused, match=r"one\.json and .*two\.json"):
        find_device([str(tmp_path)], "example.com/lamp=left")


@pytest.mark.parametrize("name", ["example.com/lamp", "=left", "example.com/lamp=", "a.b/lamp=left", ""])
def test_a_device_that_no_file_has_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, "lamp.json", lamp())
    write(tmp_path, "notes.txt", "no JSON at all")
    with pytest.raises(Refused, match="CDI device"):
        find_device([str(tmp_path)], name)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "dir.json").mkdir()
    with pytest.raises(Failed, match=r"dir\.json"):
        find_device([str(tmp_path)], "example.com/lamp=left")
