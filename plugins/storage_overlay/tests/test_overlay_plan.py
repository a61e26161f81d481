"""What CombinedLayers asks, claims and refuses; nothing is mounted here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from overlays import TYPE, Place

from uvmd.api import Claim, Found, Kind, Plan, View
from uvmd.codec import decode_value
from uvmd.errors import InUse, PolicyDenied, Refused
from uvmd.plugin_manager import load_plugins
from uvmd.plugin_manager.inspection import resolve_all
from uvmd_storage_overlay.combined import CombinedLayers
from uvmd_storage_overlay.settings import CombinedLayersSettings

ID = "c0" * 32
STRICT = {
    "ContainerID": ID,
    "ContainerRootPath": f"/run/gcs/c/{ID}/rootfs",
    "Layers": [{"Path": "/run/mounts/scsi/m1"}, {"Path": "/run/mounts/scsi/m0"}],
    "ScratchPath": f"/run/gcs/c/{'5a' * 32}/scratch/{ID}",
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def plan(place: Place, settings: Any, verb: str = "add", record: Any = None) -> Plan:
    handler = CombinedLayers(place.bench.environment)
    decoded = decode_value(settings, CombinedLayersSettings, what="Settings")
    view = View(place.bench.gate.strict, "", place.bench.table, place.bench.host)
    made: Plan = getattr(handler, verb)(decoded, Found(), view, record)
    return made


def test_it_declares_one_type_and_everything_resolves() -> None:
    plugins = load_plugins(allow=["storage_overlay"])
    assert list(plugins.resource_types) == [TYPE]
    assert len(resolve_all(plugins)) == 1


def test_an_add_asks_for_the_scratch_first_and_then_for_the_overlay(place: Place) -> None:
    asked = [(question.point, dict(question.input)) for question in plan(place, STRICT).questions]
    assert asked == [
        ("scratch_mount", {"target": STRICT["ScratchPath"], "encrypted": False}),
        (
            "mount_overlay",
            {
                "containerID": ID,
                "layerPaths": ["/run/mounts/scsi/m1", "/run/mounts/scsi/m0"],
                "target": STRICT["ContainerRootPath"],
            },
        ),
    ]


def test_without_a_scratch_only_the_overlay_is_asked_for(place: Place) -> None:
    made = plan(place, {**STRICT, "ScratchPath": ""})
    assert [question.point for question in made.questions] == ["mount_overlay"]
    (claim,) = made.claims
    assert (claim.kind, claim.owner_container) == (Kind.OVERLAY, "")
    assert tuple(claim.uses) == ("/run/mounts/scsi/m1", "/run/mounts/scsi/m0")


@pytest.mark.parametrize(
    ("disk", "encrypted"),
    [
        (Claim("/run/gcs/c/" + "5a" * 32, "/dev/sda", Kind.READ_WRITE, True), True),
        (Claim("/run/gcs/c/" + "5a" * 32, "/dev/sda", Kind.READ_WRITE, False), False),
        (Claim("/run/gcs/c", "/dev/sda", Kind.READ_WRITE, True), True),
        (Claim("/run/gcs/c/5a", "/dev/sda", Kind.READ_WRITE, True), False),
    ],
)
def test_the_policy_is_told_whether_the_scratch_lies_on_an_encrypted_disk(
    place: Place, disk: Claim, encrypted: bool
) -> None:
    place.bench.table.change([disk], strict=False)
    assert plan(place, STRICT).questions[0].input["encrypted"] is encrypted


@pytest.mark.parametrize(
    ("point", "refusal"),
    [
        ("scratch_mount", "scratch mounting denied by policy: "),
        ("mount_overlay", "overlay creation denied by policy: "),
    ],
)
def test_a_denial_says_what_was_denied_and_leaves_nothing(place: Place, point: str, refusal: str) -> None:
    enforcer = place.bench.be_strict({point: False})
    enforcer.metadata = {"scratch_mounts": "as before"}
    before = place.everything()
    with pytest.raises(PolicyDenied) as denial:
        place.bench.add(TYPE, STRICT)
    assert str(denial.value).startswith(refusal)
    assert place.everything() == before
    assert enforcer.metadata == {"scratch_mounts": "as before"}
    assert place.bench.gate.inconsistent is None


def test_a_denied_removal_says_so_and_keeps_the_table(place: Place) -> None:
    place.bench.be_strict({"unmount_overlay": False})
    place.bench.table.change([Claim("/run/x/rootfs", "/run/x/rootfs", Kind.OVERLAY)], strict=True)
    with pytest.raises(PolicyDenied, match="overlay removal denied by policy: "):
        place.bench.remove(TYPE, {"ContainerRootPath": "/run/x/rootfs"})
    assert place.bench.mounted() == ["/run/x/rootfs"]


def test_a_strict_vm_refuses_other_places_before_it_asks(place: Place) -> None:
    enforcer = place.bench.be_strict()
    with pytest.raises(Refused, match="does not match expected path"):
        place.bench.add(TYPE, {**STRICT, "ContainerRootPath": "/run/x/rootfs"})
    assert enforcer.asked == []


def test_a_bundle_on_another_scratch_is_claimed_for_its_container(place: Place) -> None:
    bind, overlay = plan(place, STRICT).claims
    bundle = f"/run/gcs/c/{ID}"
    assert bind == Claim(
        bundle,
        f"{STRICT['ScratchPath']}/bundle",
        Kind.BIND,
        uses=(STRICT["ScratchPath"],),
        owner_container=ID,
    )
    assert (overlay.target, overlay.source) == (f"{bundle}/rootfs",) * 2
    assert bundle in overlay.uses


def test_a_bundle_that_an_earlier_request_has_bound_is_not_bound_again(place: Place) -> None:
    bind, _ = plan(place, STRICT).claims
    place.bench.table.change([bind], strict=True)
    (overlay,) = plan(place, STRICT).claims
    assert overlay.kind is Kind.OVERLAY


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("status", ["created", "running"])
def test_an_overlay_that_a_container_uses_is_not_removed(place: Place, strict: bool, status: str) -> None:
    if strict:
        place.bench.be_strict()
    place.bench.host.roots[ID] = STRICT["ContainerRootPath"]
    place.bench.host.states[ID] = status
    with pytest.raises(InUse) as refusal:
        place.bench.remove(TYPE, {"ContainerRootPath": STRICT["ContainerRootPath"]})
    root = STRICT["ContainerRootPath"]
    assert str(refusal.value) == f'overlay "{root}" is in use by a {status} container'


def test_removing_what_is_not_there_asks_and_succeeds(place: Place) -> None:
    enforcer = place.bench.be_strict()
    place.bench.remove(TYPE, {"ContainerRootPath": "/run/x/rootfs"})
    assert enforcer.asked == [("unmount_overlay", {"unmountTarget": "/run/x/rootfs"})]


def test_a_directory_that_is_no_overlay_of_ours_is_not_touched(place: Place) -> None:
    place.root.mkdir(parents=True)
    (place.root / "file").write_text("kept")
    place.remove()
    assert (place.root / "file").read_text() == "kept"


@pytest.mark.parametrize("strict", [False, True])
def test_a_disk_is_not_removed_as_an_overlay(place: Place, strict: bool) -> None:
    if strict:
        place.bench.be_strict()
    place.bench.table.change([Claim("/run/x/m", "/dev/sda", Kind.READ_ONLY)], strict=strict)
    with pytest.raises(Refused, match="wrong sourcePath /run/x/m, expected /dev/sda"):
        place.bench.remove(TYPE, {"ContainerRootPath": "/run/x/m"})


@pytest.mark.parametrize("verb", ["Update", "PreAdd"])
def test_other_verbs_are_refused_by_name(place: Place, verb: str) -> None:
    with pytest.raises(Refused, match=f'the RequestType "{verb}" is not supported'):
        place.bench.request(verb, TYPE, place.settings())
