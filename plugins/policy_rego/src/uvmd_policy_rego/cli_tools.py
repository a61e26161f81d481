"""``uvmctl policy generate``, ``check``, ``explain`` and ``diff``: what they print, and their statuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from uvmd_policy_rego.tools.findings import Finding
    from uvmd_policy_rego.tools.generate import Generated

F = TypeVar("F", bound=Callable[..., Any])
_POLICY = "POLICY is Rego, the JSON of before Rego, or either in base64; - is stdin."


def _json_option(verb: F) -> F:
    def use(context: click.Context, _: click.Parameter, value: bool) -> bool:
        # `uvmctl --json policy check` means the same, and errors become JSON as well.
        shared = context.find_root().obj
        if value and hasattr(shared, "json"):
            shared.json = True
        return bool(value or getattr(shared, "json", False))

    return click.option("--json", "as_json", is_flag=True, callback=use, help="Print JSON for scripts.")(verb)


def _show(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _note(text: str) -> None:
    click.echo(f"uvmctl: {text}", err=True)


# generate


@click.command("generate", short_help="Make a policy of a configuration file.")
@click.option("-o", "--output", metavar="FILE", help="Write the Rego text here [default: stdout].")
@click.option("--base64", "encoded", metavar="FILE", help="Write what a host sends here; - is stdout.")
@click.option("--fragment", metavar="NAMESPACE", help="Make a fragment of this package, to be signed.")
@click.option("--svn", metavar="SVN", default="", help="The fragment's security version number.")
@click.option("--no-pause", is_flag=True, help="Leave the pause container k8s.gcr.io/pause:3.1 out.")
@click.option("--verify-layers", is_flag=True, help="Check every block of layer images on the way.")
@_json_option
@click.argument("config", type=click.Path(path_type=Path))
def generate_verb(config: Path, **wishes: Any) -> None:
    """Make a policy of CONFIG, a TOML file with the fields of the reference's tool.

    Layers are root hashes (`layers = ["…"]`, base first), files of layer images that a host
    made (the same list: their hash is read), or computed for images of `uvmctl image build`
    from a directory, tar or OCI layout (`image = "…"`), whose command, environment, user and
    directory then need not be said. Nothing is fetched.

    The text goes to stdout or FILE; digest, host data, sizes and remarks to stderr.

    \b
      uvmctl policy generate web.toml -o web.rego --base64 web.b64
      uvmctl policy generate web.toml --json | jq -r .host_data.snp
      uvmctl policy generate --fragment infra --svn 3 infra.toml -o infra.rego
    """
    from uvmd_policy_rego.tools import generate as tool

    if bool(wishes["fragment"]) != bool(wishes["svn"]):
        raise click.UsageError("--fragment and --svn go together")
    more: dict[str, Any] = {"pause": not wishes["no_pause"], "check_layers": wishes["verify_layers"]}
    if sys.stderr.isatty() and not wishes["as_json"]:
        more["progress"] = _painted
    if wishes["fragment"]:
        made = tool.generate_fragment(config, wishes["fragment"], wishes["svn"], **more)
    else:
        made = tool.generate(config, **more)
    _write_generated(made, wishes)


def _painted(step: str, done: int, total: int) -> None:
    if total:
        end = "\r" if done < total else "\r\033[K"
        click.echo(f"{step} {100 * done // total:3d}%", nl=False, err=True)
        click.echo(end, nl=False, err=True)


def _write_generated(made: Generated, wishes: dict[str, Any]) -> None:
    from uvmd_policy_rego.tools.check import check

    measured, output, encoded = made.measured, wishes["output"], wishes["encoded"]
    findings = check(measured.text)
    for path, content in ((output, measured.text), (encoded, measured.encoded + "\n")):
        if path and path != "-":
            _write(path, content)
    if wishes["as_json"]:
        _show(_generated_json(made, findings, bool(wishes["fragment"])))
        return
    if encoded == "-":
        click.echo(measured.encoded)
    elif not output or output == "-":
        click.echo(measured.text, nl=False)
    _tell(made, findings, output if output and output != "-" else "policy", bool(wishes["fragment"]))


def _write(path: str, content: str) -> None:
    try:
        Path(path).write_text(content, "utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error


def _generated_json(made: Generated, findings: Sequence[Finding], fragment: bool) -> dict[str, Any]:
    measured = made.measured
    hashes = [one["layers"] for one in made.config.parts.containers]
    found: dict[str, Any] = {
        "policy": measured.text,
        "base64": measured.encoded,
        "sha256": measured.sha256,
        "sizes": measured.sizes(),
        "layers": [
            [{"root_hash": layer, "origin": origin} for layer, origin in zip(*listed, strict=True)]
            for listed in zip(hashes, made.config.layer_origins, strict=True)
        ],
        "remarks": made.config.remarks,
        "findings": [one.as_json() for one in findings],
    }
    if not fragment:
        found["host_data"] = {"snp": measured.snp_host_data, "tdx": measured.tdx_mrconfigid}
    return found


def _tell(made: Generated, findings: Sequence[Finding], path: str, fragment: bool) -> None:
    from uvmd_policy_rego.tools.generate import meter

    measured = made.measured
    click.echo(f"SHA-256            {measured.sha256}", err=True)
    if not fragment:
        click.echo(f"SNP HOST_DATA      {measured.snp_host_data}", err=True)
        click.echo(f"TDX MRCONFIGID     {measured.tdx_mrconfigid}", err=True)
    for line in meter(measured):
        click.echo(line, err=True)
    for remark in made.config.remarks:
        _note(remark)
    for one in findings:
        if one.level != "note":
            click.echo(one.sentence(path), err=True)
    origins = {origin.partition(" ")[0] for listed in made.config.layer_origins for origin in listed}
    if "computed" in origins:
        _note(
            "computed hashes hold for images that uvmctl makes; of a host that makes its own images, name"
            " the files of these"
        )


# check


@click.command("check", epilog=_POLICY)
@click.option("--strict", is_flag=True, help="Status 1 for warnings too.")
@click.option("--notes/--no-notes", default=True, show_default=True, help="Print notes.")
@_json_option
@click.argument("policies", metavar="POLICY...", nargs=-1, required=True)
def check_verb(policies: Sequence[str], strict: bool, notes: bool, as_json: bool) -> None:
    """Look for mistakes in policies and fragments.

    \b
    error     does not do what it says: never matches, a rule that is missing
    warning   allows more than it seems: open patterns, dangerous switches
    note      worth a look

    Status 1 if there are errors. A claim that a pattern matches too much comes with a text
    that it matches.

    \b
      uvmctl policy check web.rego
      uvmctl policy check --strict --no-notes *.rego
      uvmctl policy check --json web.b64 | jq -r '.[] | select(.level == "error").text'
    """
    from uvmd_policy_rego.tools.check import check
    from uvmd_policy_rego.tools.reading import read_content

    failed, shown = False, []
    for path in policies:
        findings = check(read_content(path))
        failed |= any(one.level == "error" or (strict and one.level == "warning") for one in findings)
        for one in findings:
            if notes or one.level != "note":
                shown.append({"file": path, **one.as_json()})
                if not as_json:
                    click.echo(one.sentence(path))
    if as_json:
        _show(shown)
    elif not shown:
        click.echo("nothing found")
    sys.exit(1 if failed else 0)


# explain


@click.command("explain", epilog=_POLICY)
@click.option("--html", metavar="FILE", help="Write one self-contained page instead; - is stdout.")
@_json_option
@click.argument("policy", metavar="POLICY")
def explain_verb(policy: str, html: str | None, as_json: bool) -> None:
    """Say in plain words what a policy or fragment allows.

    Who may run what, with which environment, mounts, user and rights; what may be run beside
    it; which signals; who may sign fragments. What a policy computes by rules of its own
    cannot be told, and is named.

    \b
      uvmctl policy explain web.rego
      uvmctl policy explain --html web.html web.rego
      uvmctl policy explain --json web.b64 | jq '.containers[].command'
    """
    from uvmd_policy_rego.tools.explain import as_json as explained
    from uvmd_policy_rego.tools.explain import as_text, explain
    from uvmd_policy_rego.tools.page import page
    from uvmd_policy_rego.tools.reading import read_file

    found = explain(read_file(policy))
    if html:
        content = page(found, Path(policy).name if policy != "-" else "policy")
        if html == "-":
            click.echo(content, nl=False)
        else:
            _write(html, content)
    if as_json:
        _show(explained(found))
    elif not html:
        click.echo(as_text(found))


# diff


@click.command("diff", epilog=_POLICY, short_help="Say in words what two policies differ in.")
@_json_option
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
def diff_verb(old: str, new: str, as_json: bool) -> None:
    """Say what NEW allows that OLD did not, and what it no longer allows.

    Containers are matched by their likeness, not by their place. Status 0 if both allow the
    same, 1 if not, 2 if that cannot be told (rules of their own, unequal).

    \b
      uvmctl policy diff web-1.rego web-2.rego
      uvmctl policy diff --json web-1.rego web-2.rego | jq -r '.[] | select(.allows == "more").text'
    """
    from uvmd_policy_rego.tools.compare import as_json as compared
    from uvmd_policy_rego.tools.compare import as_text, compare
    from uvmd_policy_rego.tools.reading import read_file

    found = compare(read_file(old), read_file(new))
    if as_json:
        _show(compared(found))
    else:
        click.echo(as_text(found))
    sys.exit(found.status)
