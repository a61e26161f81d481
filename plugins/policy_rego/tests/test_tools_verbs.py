"""The verbs on the command line: what goes where, and their statuses."""

from __future__ import annotations

import json
from pathlib import Path

import configurations
import pytest
from click.testing import CliRunner, Result

from uvmd.errors import UvmdError
from uvmd_policy_rego.cli import policy


def run(*words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(policy, list(words), input=input)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return configurations.write(tmp_path)


def test_generate_writes_the_files_that_are_asked_for(config: Path, tmp_path: Path) -> None:
    text, encoded = str(tmp_path / "p.rego"), str(tmp_path / "p.b64")
    done = run("generate", str(config), "-o", text, "--base64", encoded)
    assert done.exit_code == 0, done.output
    assert "SNP HOST_DATA" in done.output
    assert Path(text).read_text().startswith("package policy\n")
    assert run("check", encoded, "--no-notes").output == run("check", text, "--no-notes").output.replace(
        "p.rego", "p.b64"
    )


def test_generate_as_json_holds_everything(config: Path) -> None:
    found = json.loads(run("generate", str(config), "--json").output)
    assert found["host_data"]["tdx"] == found["sha256"] + 32 * "0"
    assert found["layers"][0] == [{"root_hash": configurations.HASH, "origin": "given"}]
    assert [one["fits"] for one in found["sizes"]] == [True, True, True, True]
    fragment = json.loads(run("generate", str(config), "--json", "--fragment", "a", "--svn", "1").output)
    assert "host_data" not in fragment
    assert fragment["policy"].startswith("package a\n")


def test_generate_wants_a_fragments_name_and_svn_together(config: Path) -> None:
    done = run("generate", str(config), "--fragment", "a")
    assert done.exit_code == 2
    assert "--fragment and --svn go together" in done.output


def test_a_file_that_is_not_there_is_an_error_of_ours() -> None:
    for words in (("generate", "nothing.toml"), ("explain", "nothing.rego"), ("check", "nothing.rego")):
        error = run(*words).exception
        assert isinstance(error, UvmdError)
        assert "cannot read nothing." in str(error)


def test_check_ends_with_1_for_errors_and_if_asked_for_warnings(config: Path, tmp_path: Path) -> None:
    text = run("generate", str(config), "--no-pause", "--base64", "-").stdout.split("\n")[0]
    assert run("check", "--no-notes", "-", input=text).exit_code == 0
    elevated = configurations.write(tmp_path, "allow_dump_stacks = true\n" + configurations.WEB, "b.toml")
    path = tmp_path / "b.rego"
    run("generate", str(elevated), "-o", str(path))
    assert run("check", str(path)).exit_code == 0
    assert run("check", "--strict", str(path)).exit_code == 1
    path.write_text("package policy\n")
    done = run("check", str(path), "--json")
    assert done.exit_code == 1
    assert json.loads(done.output)[0]["code"] == "api-version-missing"


def test_explain_prints_or_writes_a_page(config: Path, tmp_path: Path) -> None:
    path, page = str(tmp_path / "p.rego"), tmp_path / "p.html"
    run("generate", str(config), "-o", path)
    assert "web: web --port 80" in run("explain", path).output
    assert run("explain", path, "--html", str(page)).output == ""
    assert page.read_text().startswith("<!doctype html>")
    assert run("explain", path, "--html", "-").output == page.read_text()
    assert json.loads(run("explain", path, "--json").output)["kind"] == "policy"


def test_diff_has_the_statuses_of_diff(config: Path, tmp_path: Path) -> None:
    old, new = str(tmp_path / "old.rego"), str(tmp_path / "new.rego")
    run("generate", str(config), "-o", old)
    run("generate", str(config), "--no-pause", "-o", new)
    assert run("diff", old, old).exit_code == 0
    done = run("diff", old, new, "--json")
    assert done.exit_code == 1
    assert json.loads(done.output) == [
        {"allows": "less", "where": "container 2", "text": "may no longer run: `/pause`"}
    ]
