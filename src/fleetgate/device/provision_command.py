"""``fleetgate provision``: this device gets an identity of its own."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from fleetgate.device import journey_options as shared
from fleetgate.device import journey_output, options

if TYPE_CHECKING:
    from fleetgate.device.claim import Claim
    from fleetgate.device.endpoint import AnyCredentials, Endpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``fleetgate provision``."""
    parser.description = (
        "Give this device an identity of its own. A claim goes in: a certificate that all devices "
        "of a kind share, or what `fleetgate claim` made for this one. A directory comes out, with "
        "private.key, certificate.pem, ca.pem and config.json. The command has reconnected with "
        "the new identity before it says that it is done. When it was interrupted, run it again: "
        "it goes on where it ended."
    )
    parser.add_argument(
        "--out",
        required=True,
        type=options.directory_of,
        metavar="DIR",
        help="where the new identity goes",
    )
    shared.add_template(parser, "that of --claim")
    group = parser.add_argument_group("server and claim")
    group.add_argument(
        "--claim",
        type=Path,
        metavar="FILE",
        help="a claim as `fleetgate claim` makes it: certificate, key, endpoint and template",
    )
    group.add_argument(
        "--endpoint",
        metavar="HOST[:PORT]",
        help="the server; without a port it is 8883. default: that of --claim, or "
        "FLEETGATE_MQTT_HOST and FLEETGATE_MQTT_PORT, which `fleetgate env` prints",
    )
    group.add_argument(
        "--ca",
        type=Path,
        metavar="F",
        help="a PEM file with the authorities that the server is trusted by; default: those of "
        "--claim, or of FLEETGATE_MQTT_CA, when it is their server; else those of the system",
    )
    group.add_argument("--cert", type=Path, metavar="F", help="the claim certificate")
    group.add_argument("--key", type=Path, metavar="F", help="the claim's private key")
    group.add_argument(
        "--claim-key-label",
        metavar="LABEL",
        help="the claim's private key is on the token of --token, under this label",
    )
    shared.add_key(parser, "p256")
    shared.add_connection(parser, "a random one")
    shared.add_patience(parser)
    shared.add_output(parser)


def run(args: argparse.Namespace, *, environ: Mapping[str, str] = os.environ) -> int:
    """Carry it out; the exit code. Raises ProvisioningError, BadRequest and ExtraMissing."""
    from fleetgate.device.endpoint import Credentials, Endpoint
    from fleetgate.device.errors import BadRequest
    from fleetgate.device.provision import provision
    from fleetgate.device.status_command import needs_claim

    credentials: AnyCredentials
    parameters = shared.meant(options.parameters_of, args.parameters)
    others = shared.journey_of(args)
    key = shared.key_of(args) or "P-256"
    with ExitStack() as cleanup:
        former = _former(args)
        if former is not None:
            endpoint = shared.with_options(Endpoint(*former[:3]), args)
            credentials = Credentials(args.claim, args.claim)
            template = args.template or former[3]
        else:
            claim = _claim(args)
            endpoint, credentials = _where(args, claim, environ, cleanup)
            template = args.template or (claim.template if claim else None)
        if template is None:
            raise BadRequest("a template is needed: --template")
        options.check_template(template)
        shared.check_key(args, key, others["connect"], credentials)
        if needs_claim(args.out):  # else they may be gone
            own = "--ca" if args.ca else "FLEETGATE_MQTT_CA"
            options.check_readable({own: endpoint.ca, "--cert": args.cert, "--key": args.key})
        options.check_readable({"--pin-file": args.pin_file})
        return journey_output.carry_out(
            args,
            lambda: provision(
                endpoint, credentials, template, parameters, args.out, key=key, **others
            ),
        )


def _former(args: argparse.Namespace) -> tuple[str, int, Path | None, str] | None:
    """Host, port, authorities and template, when the claim's file has been taken away since.

    The identity in the directory says it, or the journal of one that may do without its claim.
    """
    from fleetgate.device import identity
    from fleetgate.device.errors import NoIdentity
    from fleetgate.device.status_command import needs_claim, unfinished

    if args.claim is None or args.endpoint is not None or args.claim.exists():
        return None
    try:
        present = identity.load(args.out)
        return present.host, present.port, None, present.template
    except NoIdentity:
        found = unfinished(args.out)
    if found is None or needs_claim(args.out):
        return None
    own = args.out / identity.name_of(found.number) / identity.CA
    ca: Path | None = args.ca or (own if own.exists() else None)
    return found.goal.endpoint, found.goal.port, ca, found.goal.template


def _claim(args: argparse.Namespace) -> Claim | None:
    """The claim in a file, if it is still good, or not needed any more."""
    from fleetgate.device import claim as claims
    from fleetgate.device.errors import BadRequest
    from fleetgate.device.status_command import needs_claim

    if args.claim is None:
        return None
    if args.cert or args.key or args.claim_key_label:
        raise BadRequest("--claim has certificate and key: --cert and --key are for other claims")
    options.check_readable({"--claim": args.claim})
    claim = claims.load(args.claim, now=0.0)
    if needs_claim(args.out):
        claims.check_time(claim, time.time(), f"the claim `{args.claim}`")
    return claim


def _where(
    args: argparse.Namespace, claim: Claim | None, environ: Mapping[str, str], cleanup: ExitStack
) -> tuple[Endpoint, AnyCredentials]:
    """The server and the claim: of the options, else of the claim's file, else of variables."""
    from fleetgate.device.endpoint import Endpoint

    credentials: AnyCredentials
    if claim is None:
        theirs = options.server_unless(args.endpoint, environ)
        host, port = options.chosen(args.endpoint, theirs)
        credentials = _credentials(args)
    else:
        host, port = options.chosen(args.endpoint, (claim.endpoint, claim.port, None))
        credentials, of_claim = cleanup.enter_context(claim.files())
        theirs = claim.endpoint, claim.port, of_claim
    # authorities are those of their server
    ca = args.ca or options.authorities_for(host, port, theirs)
    return shared.with_options(Endpoint(host, port, ca), args), credentials


def _credentials(args: argparse.Namespace) -> AnyCredentials:
    from fleetgate.device.endpoint import Credentials, TokenKey
    from fleetgate.device.errors import BadRequest

    if args.cert is None or (args.key is None) == (args.claim_key_label is None):
        raise BadRequest("a claim is needed: --claim, or --cert and --key (or --claim-key-label)")
    if args.key is not None:
        return Credentials(args.cert, args.key)
    token = shared.token_of(args)
    if token is None:
        raise BadRequest("--claim-key-label needs --pkcs11-module, --token and --pin-file, too")
    return TokenKey(token.module, token.token, args.claim_key_label, token.pin_file, args.cert)
