"""``uvmd plugin new``: a plugin distribution that works, for its author to go on from."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from importlib.resources import files
from string import Template
from typing import NamedTuple

from uvmd.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)
_TYPE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+/[A-Z][A-Za-z0-9]*", re.ASCII)


class Kit(NamedTuple):
    """What was made: ``files`` are paths below ``folder``."""

    folder: str
    package: str
    files: list[str]


def make(name: str, type_: str = "", into: str = ".") -> Kit:
    """Make the folder ``uvmd-NAME`` in ``into``, whole or not at all.

    Args:
        name: the plugin's name in a configuration, ``fast_lamp``.
        type_: the resource type; ``example.com/FastLamp`` if empty.

    Raises:
        ConfigError: no such name or type, or the folder exists.
        OSError: it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no plugin name: small letters and digits, in words joined by _")
    klass = "".join(word.capitalize() for word in name.split("_"))
    type_ = type_ or f"example.com/{klass}"
    if not _TYPE.fullmatch(type_):
        raise ConfigError(f"{type_!r} is no resource type of yours: say your.domain/{klass}")
    package = f"uvmd_{name}"
    folder = os.path.join(into, package.replace("_", "-"))
    if os.path.lexists(folder):
        raise ConfigError(f"{folder} exists")
    words = {
        "name": name,
        "type": type_,
        "klass": klass,
        "package": package,
        "distribution": package.replace("_", "-"),
    }
    texts = {path: _text(template, words) for path, template in _layout(package).items()}
    try:
        aside = tempfile.mkdtemp(prefix=".new-", dir=into)
    except OSError as error:
        raise ConfigError(f"{into}: {error.strerror}") from error
    try:
        for path, text in texts.items():
            target = os.path.join(aside, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", encoding="utf-8") as file:
                file.write(text)
        os.chmod(aside, 0o755)
        os.rename(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return Kit(folder, package, sorted(texts))


def _layout(package: str) -> dict[str, str]:
    """Each file of the distribution, and the template that it is made from."""
    source = f"src/{package}"
    return {
        "README.md": "README.md",
        "setup.cfg": "setup.cfg",
        "pyproject.toml": "pyproject.toml",
        ".github/workflows/ci.yml": "ci.yml",
        f"{source}/py.typed": "",
        f"{source}/__init__.py": "init.py",
        f"{source}/plugin.py": "plugin.py",
        f"{source}/config.py": "config.py",
        f"{source}/device.py": "device.py",
        "tests/test_conformance.py": "test_conformance.py",
        "tests/test_device.py": "test_device.py",
        "tests/test_guest.py": "test_guest.py",
    }


def _text(template: str, words: dict[str, str]) -> str:
    if not template:
        return ""
    text = files("uvmd.cli").joinpath("new_plugin", f"{template}.in").read_text(encoding="utf-8")
    return Template(text).substitute(words)
