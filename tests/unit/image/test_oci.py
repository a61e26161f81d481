"""From index.json to layers: choosing, checking, and saying what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from unit.image.archives import INDEX, MANIFEST, Layout, entry, region, tar
from uvmd.image.blobs import Blobs, find_layout
from uvmd.image.checking import require_digest
from uvmd.image.errors import BadSource
from uvmd.image.oci import find_layers, own_platform

ONE = tar(entry("a", b"1"))
TWO = tar(entry("b", b"2"))


def blobs(layout: Layout) -> Blobs:
    found = find_layout(region(layout.tar(), "oci.tar"))
    assert found is not None
    return Blobs(found, "oci.tar")


def digests(layout: Layout, **choice: str) -> list[str]:
    return [one.blob.digest for one in find_layers(blobs(layout), **choice)]


def test_layers_come_base_first_with_their_packing_and_diff_ids() -> None:
    layout = Layout()
    layout.image([ONE, TWO], kinds=["gzip", ""])
    first, second = find_layers(blobs(layout))
    assert (first.compression, second.compression) == ("gzip", "")
    assert first.diff_id != first.blob.digest
    assert second.diff_id == second.blob.digest


def test_a_single_image_needs_no_platform() -> None:
    layout = Layout()
    layout.image([ONE], platform="plan9/mips", say_platform=False)
    assert len(digests(layout)) == 1


def test_of_several_platforms_this_machines_is_the_default() -> None:
    layout = Layout()
    layout.image([ONE], platform="linux/riscv64")
    layout.image([TWO], platform=own_platform())
    assert digests(layout) != digests(layout, platform="linux/riscv64")


def test_a_platform_without_a_variant_asks_for_any() -> None:
    layout = Layout()
    layout.image([ONE], platform="linux/amd64")
    layout.image([TWO], platform="linux/arm64/v8", say_platform=False)
    assert digests(layout, platform="linux/arm64") == digests(layout, platform="linux/arm64/v8")


def test_images_are_found_by_name_and_through_nested_indexes() -> None:
    layout = Layout()
    inner = layout.image([ONE])
    attestation = {**inner, "platform": {"os": "unknown", "architecture": "unknown"}}
    layout.manifests = [
        layout.blob(
            json.dumps({"manifests": [inner, attestation]}).encode(),
            INDEX,
            annotations={"io.containerd.image.name": "docker.io/library/app"},
        )
    ]
    layout.image([TWO], ref="other:1")
    assert digests(layout, reference="app") != digests(layout, reference="other:1")


def spoil(layout: Layout, prefix: bytes, change: Callable[[bytes], bytes]) -> None:
    for name, content in layout.files.items():
        if content.startswith(prefix):
            layout.files[name] = change(content)


def two_names(layout: Layout) -> None:
    layout.image([ONE], ref="a")
    layout.image([TWO], ref="b")


def wrong_platform(layout: Layout) -> None:
    layout.image([ONE], platform="linux/s390x")
    layout.image([ONE], platform="linux/mips")


def unknown_layer(layout: Layout) -> None:
    layout.image([ONE])
    config = json.loads(layout.files[blob_path(layout.manifests[0])])["config"]
    layer = {"mediaType": "application/vnd.cncf.helm.chart", "digest": "sha256:" + "0" * 64, "size": 5}
    layout.manifests = [layout.blob(json.dumps({"config": config, "layers": [layer]}).encode(), MANIFEST)]


def manifest_of(value: Any) -> Callable[[Layout], None]:
    def make(layout: Layout) -> None:
        layout.manifests = [layout.blob(json.dumps(value).encode(), MANIFEST)]

    return make


def blob_path(descriptor: dict[str, Any]) -> str:
    return "blobs/" + descriptor["digest"].replace(":", "/")


def missing_blob(layout: Layout) -> None:
    del layout.files[blob_path(layout.image([ONE]))]


def damaged_manifest(layout: Layout) -> None:
    name = blob_path(layout.image([ONE]))
    layout.files[name] = layout.files[name].replace(b"schemaVersion", b"SchemaVersion")


def longer_blob(layout: Layout) -> None:
    layout.files[blob_path(layout.image([ONE]))] += b" "


def other_version(layout: Layout) -> None:
    layout.image([ONE])
    layout.files["oci-layout"] = b'{"imageLayoutVersion": "2.0.0"}'


def no_json(layout: Layout) -> None:
    layout.files["index.json"] = b"[" * 100_000


def endless_index(layout: Layout) -> None:
    one: dict[str, Any] = {"manifests": []}
    for _ in range(6):
        one = {"manifests": [layout.blob(json.dumps(one).encode(), INDEX)]}
    layout.files["index.json"] = json.dumps(one).encode()


def huge_manifest(layout: Layout) -> None:
    layout.manifests = [{"mediaType": MANIFEST, "digest": "sha256:" + "0" * 64, "size": 1 << 40}]


EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:" + "0" * 64, "size": 2}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (two_names, "several images for"),
        (two_names, "choose with --ref from: a, b"),
        (wrong_platform, "choose with --platform from: linux/mips, linux/s390x"),
        (lambda layout: None, "index.json names no image manifest"),
        (unknown_layer, "has the media type 'application/vnd.cncf.helm.chart'"),
        (manifest_of({"config": EMPTY, "layers": []}), "has no layers"),
        (manifest_of({"config": EMPTY, "layers": [5]}), "layer 0 is missing or not an object"),
        (manifest_of({"config": EMPTY, "layers": [{}]}), "layer 0 has no sha256 or sha512 digest"),
        (manifest_of({"config": EMPTY}), "layers are missing or not a list"),
        (manifest_of({"config": {**EMPTY, "size": True}}), "has no size"),
        (manifest_of({"config": {**EMPTY, "digest": "sha256:../../x"}}), "no sha256 or sha512 digest"),
        (manifest_of([]), "is not a JSON object"),
        (missing_blob, "lacks the blob sha256:"),
        (damaged_manifest, "is damaged: its digest is sha256:"),
        (longer_blob, "bytes, and "),
        (other_version, "has version '2.0.0'"),
        (no_json, "index.json is not JSON"),
        (endless_index, "more than 3 deep"),
        (huge_manifest, "claims 1099511627776 bytes: refused"),
    ],
)
def test_a_layout_that_cannot_be_used_says_why(make: Callable[[Layout], None], says: str) -> None:
    layout = Layout()
    make(layout)
    with pytest.raises(BadSource) as caught:
        find_layers(blobs(layout))
    assert says in str(caught.value)


def test_a_name_that_is_not_there_lists_those_that_are() -> None:
    layout = Layout()
    two_names(layout)
    with pytest.raises(BadSource, match="no image 'c'; there are: a, b"):
        digests(layout, reference="c")


def test_as_many_diff_ids_as_layers_are_wanted() -> None:
    layout = Layout()
    layout.image([ONE, TWO])
    manifest = json.loads(layout.files[blob_path(layout.manifests[0])])
    manifest["layers"].pop()
    manifest_of(manifest)(layout)
    with pytest.raises(BadSource, match="2 diff_ids for 1 layers"):
        digests(layout)


def test_a_tar_of_a_root_file_system_is_no_layout() -> None:
    assert find_layout(region(tar(entry("bin/sh"), entry("oci-layout"), entry("index.json")))) is None
    assert find_layout(region(tar(entry("index.json", b"{}")))) is None


def test_what_older_dockers_save_is_told_apart() -> None:
    name = "a" * 64
    with pytest.raises(BadSource, match="skopeo copy docker-archive"):
        find_layout(region(tar(entry(f"{name}/layer.tar"), entry(f"{name}.json"), entry("manifest.json"))))


def test_a_digest_that_does_not_match_is_shown() -> None:
    require_digest("sha256:ab", "ab")
    with pytest.raises(BadSource, match="blob sha256:ab is damaged: its digest is sha256:cd"):
        require_digest("sha256:ab", "cd")
