"""CombinedLayers' settings by their texts: what is refused, in which words, and the bundle's rule."""

from __future__ import annotations

import posixpath
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.codec import decode_value
from uvmd.errors import InvalidMessage, Refused
from uvmd_storage_overlay.settings import (
    MAX_LAYERS,
    CombinedLayersSettings,
    needs_bind,
    owner_of,
    quoted,
    require_addable,
    require_strict_places,
)

ID = "0aF1" * 16
ROOT = f"/run/gcs/c/{ID}/rootfs"


def settings(**changes: Any) -> CombinedLayersSettings:
    value = {
        "ContainerID": ID,
        "ContainerRootPath": ROOT,
        "Layers": [{"Id": "x", "Path": "/run/mounts/scsi/m1", "PathType": "AbsolutePath", "Cache": ""}],
        "ScratchPath": f"/run/gcs/c/{ID}/scratch/{ID}",
        **changes,
    }
    found: CombinedLayersSettings = decode_value(value, CombinedLayersSettings, what="Settings")
    return found


def test_what_a_host_sends_is_taken() -> None:
    sent = settings()
    require_addable(sent)
    require_strict_places(sent)
    require_strict_places(settings(ScratchPath=""))
    require_strict_places(settings(ScratchPath=f"/run/gcs/c/{'b' * 64}/scratch/{ID}"))


def test_keys_fold_and_what_is_left_out_is_empty() -> None:
    found = decode_value({"containerrootpath": "/a/b", "Layers": None}, CombinedLayersSettings, what="S")
    assert (found.container_root_path, found.layers, found.scratch_path) == ("/a/b", (), "")
    assert owner_of(found) == "a", "a bundle is named after its container"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"Layers": "x"}, "Layers: should be"),
        ({"Layers": [{"Path": 1}]}, r"Layers\[0\].Path: should be a string"),
        ({"Layers": [7]}, r"Layers\[0\]"),
        ({"ContainerID": []}, "ContainerID: should be a string"),
        ({"ScratchPath": {}}, "ScratchPath: should be a string"),
    ],
)
def test_wrong_types_name_the_field(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        settings(**changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ContainerRootPath": ""}, "cannot have empty target"),
        ({"ContainerRootPath": "rootfs"}, "ContainerRootPath is not an absolute, clean path"),
        ({"ContainerRootPath": "/run/a/../b"}, "ContainerRootPath is not"),
        ({"ContainerRootPath": "/run/a/"}, "ContainerRootPath is not"),
        ({"ContainerRootPath": "/run/a\0b"}, "ContainerRootPath is not"),
        ({"ContainerRootPath": "/"}, "ContainerRootPath is not"),
        ({"ContainerRootPath": "/rootfs"}, "ContainerRootPath lies in no bundle"),
        ({"Layers": []}, "0 Layers, there must be 1 to 500"),
        ({"Layers": [{"Path": "/l"}] * (MAX_LAYERS + 1)}, "501 Layers"),
        ({"Layers": [{"Path": "/a"}, {}]}, r"Layers\[1\].Path is not"),
        ({"Layers": [None]}, r"Layers\[0\].Path is not"),
        ({"Layers": [{"Path": "/a/./b"}]}, r"Layers\[0\].Path is not"),
        ({"ScratchPath": ""}, "without ScratchPath there must be two Layers or more"),
        ({"ScratchPath": "scratch"}, "ScratchPath is not"),
        ({"ScratchPath": "//scratch"}, "ScratchPath is not"),
    ],
)
def test_what_no_overlay_can_be_made_of_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused, match=text):
        require_addable(settings(**changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ContainerID": "c1"}, "invalid container id: c1 (must match ^[0-9a-fA-F]{64}$)"),
        ({"ContainerID": ID + "\n"}, f"invalid container id: {ID}\n (must match ^[0-9a-fA-F]{{64}}$)"),
        ({"ContainerID": ""}, "invalid container id:  (must match ^[0-9a-fA-F]{64}$)"),
        (
            {"ContainerRootPath": '/run/gcs/c/"x'},
            f'combined layers target "/run/gcs/c/\\"x" does not match expected path "{ROOT}"',
        ),
        (
            {"ContainerRootPath": ""},
            f'combined layers target "" does not match expected path "{ROOT}"',
        ),
        (
            {"ContainerRootPath": f"/run/gcs/pods/p/{ID}/rootfs"},
            f'combined layers target "/run/gcs/pods/p/{ID}/rootfs" does not match expected path "{ROOT}"',
        ),
        (
            {"ScratchPath": f"/run/mounts/scsi/m0/scratch/{ID}"},
            f'scratch path "/run/mounts/scsi/m0/scratch/{ID}" must match regex '
            f'"^/run/gcs/c/[0-9a-fA-F]{{64}}/scratch/{ID}$"',
        ),
    ],
)
def test_a_strict_vm_refuses_other_places_in_the_references_words(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused) as refusal:
        require_strict_places(settings(**changes))
    assert str(refusal.value) == text


@pytest.mark.parametrize(
    "scratch",
    [
        f"/run/gcs/c/{ID}/scratch/{ID}\n",
        f"/run/gcs/c/{ID[:-1]}/scratch/{ID}",
        f"/run/gcs/c/../{ID}/scratch/{ID}",
        f"/run/gcs/c/{ID}/scratch/{ID}/../x",
        f"x/run/gcs/c/{ID}/scratch/{ID}",
        f"/run/gcs/c/{'b' * 64}/scratch/{'b' * 64}",
    ],
)
def test_a_scratch_elsewhere_is_refused_in_a_strict_vm(scratch: str) -> None:
    with pytest.raises(Refused, match="must match regex"):
        require_strict_places(settings(ScratchPath=scratch))


@pytest.mark.parametrize(
    ("bundle", "scratch", "bind"),
    [
        ("/run/gcs/c/abc", "", False),
        ("/run/gcs/c/abc", "/run/gcs/c/abc/scratch/abc", False),
        ("/run/gcs/c/abc", "/run/gcs/c/abc", False),
        ("/run/gcs/c/workload", "/run/gcs/c/sandbox/scratch/workload", True),
        ("/run/gcs/pods/pod/ctr", "/run/mounts/scsi/0_2_0/scratch/pod/ctr", True),
        ("/run/gcs/c/abc", "/run/gcs/c/abcdef/scratch/abc", True),
        ("/run/gcs/c/abc", "/run/gcs/c", True),
    ],
)
def test_the_bundle_goes_onto_a_scratch_that_lies_elsewhere(bundle: str, scratch: str, bind: bool) -> None:
    assert needs_bind(scratch, bundle) is bind


parts = st.lists(st.sampled_from(["a", "b", "..", ".", ""]), min_size=1, max_size=5)


@given(root=parts, layers=st.lists(parts, min_size=1, max_size=3), scratch=parts)
def test_what_is_let_through_is_clean(root: list[str], layers: list[list[str]], scratch: list[str]) -> None:
    sent = settings(
        ContainerRootPath="/" + "/".join(root),
        Layers=[{"Path": "/" + "/".join(layer)} for layer in layers],
        ScratchPath="/".join(scratch),
    )
    assert len(sent.layers) == len(layers)
    try:
        require_addable(sent)
    except Refused:
        return
    for path in (sent.container_root_path, *(layer.path for layer in sent.layers)):
        assert posixpath.normpath(path) == path
        assert ".." not in path.split("/")
    assert not sent.scratch_path or posixpath.normpath(sent.scratch_path) == sent.scratch_path


@given(scratch=parts, bundle=parts)
def test_the_bundles_rule_is_that_of_relative_paths(scratch: list[str], bundle: list[str]) -> None:
    one, other = (posixpath.normpath("/" + "/".join(path)).replace("//", "/") for path in (scratch, bundle))
    outside = posixpath.relpath(one, other).split("/")[0] == ".."
    assert needs_bind(one, other) is outside


@given(st.text())
def test_quoted_text_stays_on_its_line(text: str) -> None:
    assert "\n" not in quoted(text)
    assert re.fullmatch(r'"(\\.|[^"\\])*"', quoted(text), re.DOTALL)
