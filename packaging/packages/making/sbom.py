"""The bill of materials: what a package contains, with hashes, licences and who needs whom.

CycloneDX JSON, by the library of the format's authors, checked against the format's schema. The
same wheels and time give the same bytes.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence

from building.tools import BuildError
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from making.wheel import Wheel

#: The version of the format: what scanners read today.
FORMAT = SchemaVersion.V1_6
#: The namespace of our serial numbers, so that one follows from what the bill lists.
_NAMESPACE = uuid.UUID("75766d64-0000-5000-8000-000000000006")


def bill_of_materials(wheels: Sequence[Wheel], version: str, epoch: int) -> str:
    """Return the bill of a package ``uvmd`` that contains these wheels.

    Raises:
        BuildError: a wheel needs one that is not there, or the result breaks the format's schema.
    """
    bom = Bom()
    licences = LicenseFactory()
    whole = Component(
        name="uvmd", version=version, type=ComponentType.APPLICATION, bom_ref=f"package:uvmd@{version}",
        purl=PackageURL("deb", "debian", "uvmd", version), licenses=[licences.make_from_string("MIT")],
        description="Guest daemon of a utility VM, with its plugins and an environment of their own",
    )  # fmt: skip
    components = {wheel.key: _component(wheel, licences) for wheel in wheels}
    for component in components.values():
        bom.components.add(component)
    for wheel in wheels:
        if missing := [name for name in wheel.needs if name not in components]:
            raise BuildError(f"{wheel.path.name} needs {', '.join(missing)}, which no wheel here brings")
        bom.register_dependency(components[wheel.key], [components[name] for name in wheel.needs])
    bom.register_dependency(whole, [components[wheel.key] for wheel in wheels if wheel.ours])
    bom.metadata.component = whole
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(epoch, datetime.UTC)
    listed = "\n".join(sorted(f"{wheel.path.name} {wheel.sha256}" for wheel in wheels))
    bom.serial_number = uuid.uuid5(_NAMESPACE, f"{version}\n{listed}")
    text: str = make_outputter(bom, OutputFormat.JSON, FORMAT).output_as_string(indent=2)
    if error := JsonStrictValidator(FORMAT).validate_str(text):
        raise BuildError(f"the bill of materials breaks CycloneDX's schema: {error}")
    return text + "\n"


def _component(wheel: Wheel, licences: LicenseFactory) -> Component:
    purl = PackageURL("pypi", None, wheel.key, wheel.version)
    return Component(
        name=wheel.name,
        version=wheel.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{wheel.key}@{wheel.version}",
        purl=purl,
        description=wheel.summary or None,
        licenses=[licences.make_from_string(wheel.licence)],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=wheel.sha256)],
        properties=[Property(name="uvmd:wheel", value=wheel.path.name)],
    )
