"""``fleetgate hook``: try a pre-provisioning hook of a running server, without a device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fleetgate.errors import Error
from fleetgate.signed_requests import EndpointUrl, RunningServer

NOT_TRIED = 3
"""The exit code when it could not be found out what a device would hear."""

app = typer.Typer(
    help="Try the pre-provisioning hook of a template.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Try the pre-provisioning hook of a template."""


@app.command("test")
def try_(
    template: Annotated[
        str, typer.Argument(metavar="TEMPLATE", help="The template whose hook is tried.")
    ],
    parameters: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help="What the device would send, text to text; @FILE reads it from a file.",
        ),
    ] = "{}",
    csr: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            help="The device's signing request: the hook sees a certificate for it, signed by the "
            "certificate provider if there is one. Without it a key is made up.",
        ),
    ] = None,
    client_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The MQTT client id the hook sees.")
    ] = None,
    claim_certificate_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The claim certificate's id the hook sees.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Not the default version of the template but this."),
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Not the hook of the template but this function, by its name or ARN.",
        ),
    ] = None,
    endpoint_url: EndpointUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what the hook says to a device, and what the device would get.

    All that RegisterThing does is done, and nothing is kept. The exit code is 0 when the device
    would be provisioned, 1 when it would be refused, 2 for options that are wrong, and 3 when it
    could not be tried: no server, no such template, a file that cannot be read.
    """
    try:
        tried = _tried(
            *(template, parameters, csr, client_id, claim_certificate_id, version, function),
            RunningServer(endpoint_url),
        )
    except Error as error:
        _not_tried(error.message)
    except OSError as error:
        _not_tried(f"`{error.filename}`: {error.strerror}")
    if as_json:
        typer.echo(_json(tried))
    else:
        for line in lines(tried):
            typer.echo(_printable(line))
    if not tried["verdict"]["allowed"]:
        raise typer.Exit(1)


def _tried(
    template: str,
    parameters: str,
    csr: Path | None,
    client_id: str | None,
    claim_certificate_id: str | None,
    version: int | None,
    function: str | None,
    server: RunningServer,
) -> dict[str, Any]:
    """What the server says; raises Error and OSError."""
    from fleetgate.device import options

    members: dict[str, Any] = {
        "templateName": template,
        "parameters": options.parameters_of(parameters),
        "certificateSigningRequest": None if csr is None else _read(csr),
        "clientId": client_id,
        "claimCertificateId": claim_certificate_id,
        "templateVersion": version,
        "functionName": function,
    }
    asked = {name: value for name, value in members.items() if value is not None}
    return server.ask("POST", "hooks/test", asked)


def _not_tried(why: str) -> NoReturn:
    typer.echo(f"fleetgate: {why}", err=True)
    raise typer.Exit(NOT_TRIED)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise Error(f"`{file}` is not text in UTF-8: {error}") from None


# --- what is printed -----------------------------------------------------------------------------

_WIDTH = 14
_PEMS = ("certificatePem", "certificateSigningRequest")


def lines(tried: Mapping[str, Any]) -> Iterator[str]:
    """What came of it, as text."""
    template = tried["template"]
    yield _fact("template", f"{template['templateName']}, version {template['versionId']}")
    for note in tried["notes"]:
        yield _fact("note", note)
    if (provider := tried["certificateProvider"]) is not None:
        yield ""
        yield _fact("provider", provider["certificateProviderName"])
        yield from _function(provider)
    if (certificate := tried["certificate"]) is not None:
        yield ""
        yield _fact("certificate", certificate["certificateId"])
        yield _fact("", f"not stored; its key is {certificate['key']}")
        yield _fact("", f"signed by {_signer(certificate['signedBy'])}")
    if (hook := tried["hook"]) is not None:
        yield ""
        yield _fact("hook", hook["functionArn"])
        yield from _function(hook)
    yield ""
    yield from _verdict(tried["verdict"])
    if (rendered := tried["rendered"]) is not None:
        yield ""
        yield "the device gets" if tried["verdict"]["allowed"] else "it would have got"
        yield from _rendered(rendered, tried["parameterOverrides"])


def _function(run: Mapping[str, Any]) -> Iterator[str]:
    """How a function was found, and what became of it."""
    yield _fact("found", run["target"] or "no")
    yield _fact("permission", run["permission"])
    if run["addPermission"]:
        yield _fact("", "this gives it:")
        yield f"  {run['addPermission']}"
    yield _fact("duration", f"{run['seconds']:.3f} s of {run['limitSeconds']:g} s")
    yield from _block("input", _json(_shortened(run["input"])))
    if run["output"] is not None:
        output = run["output"]
        text = output if isinstance(output, str) else _json(_shortened(output))
        yield from _block("output", text)
    if run["log"]:
        yield from _block("log", run["log"])


def _verdict(verdict: Mapping[str, Any]) -> Iterator[str]:
    if verdict["allowed"]:
        yield _fact("verdict", "allowed")
    else:
        yield _fact("verdict", f"refused ({verdict['step']}: {verdict['kind']})")
    heard = verdict["device"] or {"errorMessage": ""}
    if verdict["reason"] != heard["errorMessage"]:
        yield _fact("reason", verdict["reason"])
    if verdict["device"] is not None:
        said = f"{heard['statusCode']} {heard['errorCode']}: {heard['errorMessage']}"
        yield _fact("device hears", said)


def _rendered(rendered: Mapping[str, Any], overrides: Mapping[str, str]) -> Iterator[str]:
    """What the template makes of it."""
    thing = rendered["thing"] or {}
    yield _fact("thing", thing.get("thingName") or "none")
    named = {
        "attributes": thing.get("attributes"),
        "thing type": thing.get("thingTypeName"),
        "groups": thing.get("thingGroups"),
        "billing group": thing.get("billingGroup"),
    }
    for name, value in named.items():
        if value:
            yield _fact(name, _inline(value))
    for policy in rendered["policies"]:
        yield _fact("policy", policy["policyName"])
        if (document := policy.get("policyDocument")) is not None:
            yield f"  {json.dumps(document, ensure_ascii=False)}"
    if (certificate := rendered["certificate"]) is not None:
        yield _fact("status", certificate["status"])
    if overrides:
        yield _fact("overrides", _inline(overrides))
    yield _fact("configuration", json.dumps(rendered["deviceConfiguration"], ensure_ascii=False))


def _fact(name: str, value: object) -> str:
    return f"{name:<{_WIDTH}} {value}"


def _block(name: str, text: str) -> Iterator[str]:
    yield name
    for line in text.splitlines():
        yield f"  {line}"


def _inline(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _signer(name: str) -> str:
    return name if name == "the server" else f"certificate provider {name}"


def _shortened(value: object) -> object:
    """The same without the body of PEM texts: they fill a screen, and --json has them."""
    if not isinstance(value, Mapping):
        return value
    return {
        name: f"{each[:27]}... ({len(each)} characters)"
        if name in _PEMS and isinstance(each, str) and len(each) > 60
        else each
        for name, each in value.items()
    }


def _printable(line: str) -> str:
    """A line without what a terminal would obey: functions write what they like."""
    return "".join(each if each.isprintable() else " " if each.isspace() else "?" for each in line)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
