"""``fleetgate template``: look at a provisioning template before devices do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetgate.errors import Error, InvalidTemplate

if TYPE_CHECKING:
    from fleetgate.domain.template_constants import Named
    from fleetgate.domain.template_lint import Finding, Linted

app = typer.Typer(
    help="Look at a provisioning template before devices do.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Type(StrEnum):
    """What a template is for; a bulk registration has an inline one."""

    FLEET = "fleet"
    JITP = "jitp"
    INLINE = "inline"
    BULK = "bulk"


File = Annotated[Path, typer.Argument(metavar="FILE", help="The template's body; - reads stdin.")]
TypeOption = Annotated[
    Type, typer.Option("--type", help="What the template is for; bulk is the same as inline.")
]


@app.command()
def lint(
    file: File,
    type_: TypeOption = Type.FLEET,
    device_buffer: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            min=1,
            help="The MQTT buffer of the devices: the reply of RegisterThing has to fit into it.",
        ),
    ] = None,
    server: Annotated[
        bool,
        typer.Option(
            "--server",
            help="Look up the types, groups and policies it names, with the credentials and the "
            "endpoint of the environment (fleetgate env prints them).",
        ),
    ] = False,
    endpoint_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Look them up at this server.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find everything that is wrong with a template, at once.

    Each problem is a line: where, which rule, what is there. The exit code is 1 when there are
    errors; warnings are allowed, but hardly meant.
    """
    from fleetgate.domain.limits import Limits
    from fleetgate.domain.template import Kind
    from fleetgate.domain.template_lint import lint as run
    from fleetgate.operations import template_checks

    kind = template_checks.TYPES[type_]
    linted = run(_read(file), kind, Limits())
    findings = list(linted.findings)
    if device_buffer is not None and kind is Kind.FLEET:
        findings += template_checks.too_large(linted, device_buffer)
    if server or endpoint_url is not None:
        findings += _missing(linted.names, endpoint_url)
    findings.sort(key=lambda each: each.severity)
    if as_json:
        typer.echo(
            json.dumps(
                _report(linted, findings, replies=kind is Kind.FLEET), indent=2, ensure_ascii=False
            )
        )
    else:
        for line in _lines(linted, findings, replies=kind is Kind.FLEET):
            typer.echo(line)
    if any(each.severity == "error" for each in findings):
        raise typer.Exit(1)


@app.command()
def render(
    file: File,
    parameters: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help="The template's parameters, text to text; @FILE reads them from a file.",
        ),
    ] = "{}",
    type_: TypeOption = Type.FLEET,
    csr: Annotated[
        Path | None, typer.Option(metavar="F", help="The device's signing request, to be checked.")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            help="The device's certificate: its subject brings the parameters of a jitp template.",
        ),
    ] = None,
) -> None:
    """Print what a template makes for one device, as JSON, without touching anything.

    Thing, certificate, policies with their names and documents, device configuration, and the
    size of the reply. Where the device has no certificate yet, an id stands in for its own.
    """
    from fleetgate.device import options
    from fleetgate.domain.template import parse
    from fleetgate.operations import template_checks

    kind = template_checks.TYPES[type_]
    csr_pem = None if csr is None else _read(csr)
    certificate_pem = None if certificate is None else _read(certificate)
    try:
        template = parse(_read(file), kind)
        given = options.parameters_of(parameters)
        resources = template_checks.resources_for(template, given, csr_pem, certificate_pem)
    except InvalidTemplate as error:
        raise Error(f"{file}: {error.message}") from None
    shown = template_checks.shown(kind, resources, csr_pem)
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))


def _read(file: Path) -> str:
    try:
        # not sys.stdin: how that is decoded is up to the locale
        return sys.stdin.buffer.read().decode() if str(file) == "-" else file.read_text("utf-8")
    except UnicodeDecodeError as error:
        what = "standard input" if str(file) == "-" else f"`{file}`"
        raise Error(f"{what} is not text in UTF-8: {error}") from None


# --- what lint prints ----------------------------------------------------------------------------


def _lines(linted: Linted, findings: Iterable[Finding], *, replies: bool) -> Iterator[str]:
    count = {"error": 0, "warning": 0}
    for each in findings:
        count[each.severity] += 1
        yield f"{each.severity}: {each.line}"
    if linted.parameters:
        yield f"has to be brought: {', '.join(linted.parameters)}"
    if replies and linted.readable:
        sizes = _sizes(linted).items()
        told = ", ".join(f"{size['payload']} bytes as {form.upper()}" for form, size in sizes)
        yield f"reply: {told}, without what is brought"
    yield ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in count.items())


def _report(linted: Linted, findings: Iterable[Finding], *, replies: bool) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "problems": [asdict(each) for each in findings],
        "parameters": list(linted.parameters),
        "reply": _sizes(linted) if replies and linted.readable else None,
    }


def _sizes(linted: Linted) -> Mapping[str, Mapping[str, int]]:
    from fleetgate.operations.template_checks import reply_sizes

    return reply_sizes(linted.thing_name, linted.device_configuration)


# --- what a server has ---------------------------------------------------------------------------

_OF_A_NAME = {"AccessDeniedException", "InvalidRequestException"}
"""What is answered to one question, and perhaps not to the next."""


def _missing(names: Iterable[Named], endpoint_url: str | None) -> Iterator[Finding]:
    """What of these names is not there, looked up with signed calls, by AWS's rules for those."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from fleetgate.domain.template_lint import Finding
    from fleetgate.operations.template_checks import WORDS

    try:
        iot = boto3.client("iot", endpoint_url=endpoint_url)
        look_up = {
            "thingtype": lambda name: iot.describe_thing_type(thingTypeName=name),
            "thinggroup": lambda name: iot.describe_thing_group(thingGroupName=name),
            "billinggroup": lambda name: iot.describe_billing_group(billingGroupName=name),
            "policy": lambda name: iot.get_policy(policyName=name),
        }
        for each in names:
            what = f"{WORDS[each.type]} `{each.name}`"
            try:
                found = look_up[each.type](each.name)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                # AWS tells of signatures in many lines
                message = error.response["Error"].get("Message", "").partition("\n")[0]
                said = f"{code}, {message}"
                if code == "ResourceNotFoundException":
                    yield Finding("error", each.path, f"{what} does not exist")
                elif code in _OF_A_NAME:
                    yield Finding("error", each.path, f"{what} was not looked up: {said}")
                else:  # it would be the same for all
                    yield Finding("error", "", f"the server cannot be asked: {said}")
                    return
                continue
            if found.get("thingTypeMetadata", {}).get("deprecated"):
                yield Finding("error", each.path, f"{what} is deprecated")
    except (BotoCoreError, ValueError) as error:
        raise Error(f"the server cannot be asked: {error}") from None
