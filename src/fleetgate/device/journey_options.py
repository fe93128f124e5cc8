"""The options that ``fleetgate provision`` and ``fleetgate renew`` share, and what they mean."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from fleetgate.device import disk, extras, journey_output
from fleetgate.device.endpoint import KEEP_ALIVE, Endpoint, Proxy
from fleetgate.device.errors import BadRequest
from fleetgate.device.exchange import MAX_ANSWER_SIZE, Terms
from fleetgate.device.journal import TOKEN_SECONDS
from fleetgate.device.retry import Retries
from fleetgate.errors import Error
from fleetgate.mqtt.connection import MAX_PACKET_SIZE

if TYPE_CHECKING:
    from fleetgate.device.endpoint import AnyCredentials
    from fleetgate.device.identity import KeyOnToken
    from fleetgate.device.plan import Connect, Key

T = TypeVar("T")

KEY_TYPES = {
    "p256": "P-256",
    "p384": "P-384",
    "rsa2048": "RSA-2048",
    "rsa3072": "RSA-3072",
    "rsa4096": "RSA-4096",
}
CLIENTS = ("paho", "awscrt", "aiomqtt")
MIN_ANSWER_SIZE = 16 * 1024
"""Bytes. An answer has 3 to 6 KB, and what a template has for the device; what is smaller than
that makes the server issue a certificate whose answer is then thrown away."""

_TERMS = Terms()
_RETRIES = Retries()
_CONNECT_SECONDS = 10.0


def add_template(parser: argparse.ArgumentParser, default: str) -> None:
    """Template and parameters; `default` says which template it is without the option."""
    parser.add_argument(
        "--template", metavar="NAME", help=f"the provisioning template; default: {default}"
    )
    parser.add_argument(
        "--parameters",
        default="{}",
        metavar="JSON",
        help="the template's parameters, a JSON object of text to text, or @FILE with one; "
        "default: %(default)s",
    )


def add_key(parser: argparse.ArgumentParser, default: str) -> argparse._ArgumentGroup:
    """Which key the new certificate is for; `default` says which one it is without options."""
    group = parser.add_argument_group("key")
    group.add_argument(
        "--key-type",
        choices=list(KEY_TYPES),
        help=f"the key that is made here and never leaves this device; default: {default}",
    )
    group.add_argument("--keys", action="store_true", help="let the server make the key")
    group.add_argument(
        "--pkcs11-module",
        type=Path,
        metavar="F",
        help="use a key on a PKCS#11 token; F is the library of the token's maker",
    )
    group.add_argument("--token", metavar="LABEL", help="the label of the token")
    group.add_argument("--key-label", metavar="LABEL", help="the label of the key on it")
    group.add_argument(
        "--pin-file", type=Path, metavar="F", help="a private file with the PIN of the token's user"
    )
    group.add_argument(
        "--subject",
        metavar="NAME",
        help="the subject of the signing request, such as CN=lamp-1,O=Example; default: the MQTT "
        "client id",
    )
    return group


def add_connection(
    parser: argparse.ArgumentParser,
    client_id: str,
    own: str = "the thing's name",
    version: str = "5",
    alpn: str = "x-amzn-mqtt-ca on port 443, else none",
) -> None:
    """How to connect; the others say which ones they are without the options."""
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--client",
        choices=CLIENTS,
        help="the MQTT library; default: paho, or awscrt for a key on a token",
    )
    group.add_argument(
        "--mqtt-version", choices=["3.1.1", "5"], help=f"of MQTT; default: {version}"
    )
    group.add_argument(
        "--alpn", metavar="NAME", help=f"the protocol to offer in TLS; default: {alpn}"
    )
    group.add_argument("--proxy", metavar="HOST:PORT", help="an HTTP proxy to tunnel through")
    group.add_argument("--proxy-user", metavar="NAME", help="the user to name to the proxy")
    group.add_argument(
        "--proxy-password-file",
        type=Path,
        metavar="F",
        help="a private file with that user's password",
    )
    group.add_argument(
        "--client-id",
        metavar="ID",
        help=f"the MQTT client id until the new identity is there; default: {client_id}",
    )
    group.add_argument(
        "--own-client-id",
        metavar="ID",
        help=f"the MQTT client id of the new identity; default: {own}",
    )
    group.add_argument(
        "--begin-anew",
        action="store_true",
        help="ask for another certificate when this device may be registered, but can neither ask "
        "for that again nor connect; the server may keep the first one for good",
    )
    add_messages(group)


def add_messages(group: argparse._ArgumentGroup) -> None:
    """How requests and answers are carried; ``fleetgate simulate`` has these options, too."""
    group.add_argument(
        "--format",
        choices=["json", "cbor"],
        default=_TERMS.payload_format,
        help="the format of requests and answers; default: %(default)s",
    )
    group.add_argument(
        "--qos",
        type=int,
        choices=[0, 1],
        default=_TERMS.qos,
        help="the quality of service that requests are published with; default: %(default)s",
    )
    group.add_argument(
        "--max-answer-size",
        type=int,
        default=_TERMS.max_answer_size,
        metavar="BYTES",
        help=f"a larger answer is an error; {MIN_ANSWER_SIZE} or more; default: %(default)s",
    )
    group.add_argument(
        "--keep-alive",
        type=int,
        default=KEEP_ALIVE,
        metavar="S",
        help="after so many seconds without a packet the client sends one, and the server may take "
        "it for lost after one and a half of that; default: %(default)s",
    )


def terms_of(args: argparse.Namespace, mqtt_timeout: float) -> Terms:
    """What :func:`add_messages` and --timeout say. Raises BadRequest."""
    if args.max_answer_size < MIN_ANSWER_SIZE:
        raise BadRequest(
            f"--max-answer-size is {args.max_answer_size} bytes, less than {MIN_ANSWER_SIZE}: the "
            "server would issue a certificate, and its answer be thrown away"
        )
    return Terms(args.format, args.qos, args.timeout, mqtt_timeout, args.max_answer_size)


def packet_size_of(args: argparse.Namespace) -> int:
    """How large a packet may be, in bytes, so that the largest answer fits in."""
    size: int = args.max_answer_size
    return MAX_PACKET_SIZE + max(size - MAX_ANSWER_SIZE, 0)


def add_patience(parser: argparse.ArgumentParser) -> None:
    """Time-outs, and when something is tried again."""
    group = parser.add_argument_group(
        "time-outs and retries, in seconds",
        "Connecting, subscribing, answers that do not come, and answers with status code 429 or "
        "from 500 on are tried again after a pause of random length; nothing else is.",
    )

    def add(name: str, default: float, text: str) -> None:
        group.add_argument(
            name, type=float, default=default, metavar="S", help=f"{text}; default: %(default)g"
        )

    add("--timeout", _TERMS.timeout, "for an answer")
    add("--mqtt-timeout", _TERMS.mqtt_timeout, "for each acknowledgement of a packet")
    add("--connect-timeout", _CONNECT_SECONDS, "for each of TCP, TLS and CONNECT")
    group.add_argument(
        "--attempts",
        type=int,
        default=_RETRIES.attempts,
        metavar="N",
        help="how often a step is tried; default: %(default)s",
    )
    add("--give-up-after", _RETRIES.seconds, "nothing is tried again after so long")
    add("--first-pause", _RETRIES.first_pause, "the longest pause before the second attempt")
    add("--longest-pause", _RETRIES.longest_pause, "pauses double, up to this")
    add(
        "--token-seconds",
        TOKEN_SECONDS,
        "how long the server lets a certificate be registered after it was asked for; later "
        "another one is asked for",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """What is told."""
    parser.add_argument(
        "--json", action="store_true", dest="as_json", help="print the result as one JSON object"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="tell what happens, in detail, on standard error"
    )


# --- what they mean; all raise BadRequest ---


def meant(read: Callable[[str], T], text: str) -> T:
    """What `read`, a function of :mod:`fleetgate.device.options`, makes of `text`."""
    try:
        return read(text)
    except Error as error:
        raise BadRequest(error.message) from error


def key_of(args: argparse.Namespace, present: KeyOnToken | None = None) -> Key | None:
    """The key that the options name, if any; `present` as for :func:`token_of`."""
    token = token_of(args, present)
    if token is not None:
        if args.keys:
            raise BadRequest("the key is on the token: --keys is for one that the server makes")
        if args.key_type is not None:
            raise BadRequest(
                "either --key-type or --pkcs11-module, --token, --key-label and --pin-file: a key "
                "that is made here, or one on a token"
            )
        return token
    if args.keys:
        if args.key_type is not None:
            raise BadRequest("either --keys or --key-type: the server makes RSA-2048")
        if args.subject is not None:
            raise BadRequest(
                "either --keys or --subject: a subject is for a signing request, and there is none "
                "when the server makes the key"
            )
        return "server"
    return None if args.key_type is None else cast("Key", KEY_TYPES[args.key_type])


def token_of(args: argparse.Namespace, present: KeyOnToken | None = None) -> KeyOnToken | None:
    """The key on a token, if one is named; what is left out then is as in `present`."""
    from fleetgate.device.identity import KeyOnToken

    given = {
        "--pkcs11-module": args.pkcs11_module,
        "--token": args.token,
        "--key-label": args.key_label,
        "--pin-file": args.pin_file,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if present is not None:
        return KeyOnToken(
            args.pkcs11_module or present.module,
            args.token or present.token,
            args.key_label or present.key,
            args.pin_file or present.pin_file,
        )
    if missing:
        raise BadRequest(f"a key on a token needs {' and '.join(missing)}, too")
    return KeyOnToken(args.pkcs11_module, args.token, args.key_label, args.pin_file)


def with_options(endpoint: Endpoint, args: argparse.Namespace) -> Endpoint:
    """`endpoint` as the options about the connection have it."""
    changes: dict[str, Any] = {
        "connect_timeout": args.connect_timeout,
        "proxy": proxy_of(args),
        "keep_alive": args.keep_alive,
        "max_packet_size": packet_size_of(args),
    }
    if args.mqtt_version is not None:
        changes["mqtt_version"] = 5 if args.mqtt_version == "5" else 4
    if args.alpn is not None:
        changes["alpn"] = args.alpn
    return replace(endpoint, **changes)


def proxy_of(args: argparse.Namespace) -> Proxy | None:
    """The proxy that the options name, if any."""
    if args.proxy is None:
        if args.proxy_user is not None or args.proxy_password_file is not None:
            raise BadRequest("a user or password for a proxy needs --proxy, too")
        return None
    if args.proxy_user is None and args.proxy_password_file is not None:
        raise BadRequest("--proxy-password-file needs --proxy-user, too: whose password it is")
    try:
        parts = urlsplit(f"//{args.proxy}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.username is not None or parts.path:
        # what is before an `@` may be a password
        given = "" if "@" in args.proxy else f" `{args.proxy:.80}`"
        raise BadRequest(
            f"--proxy{given}: HOST:PORT is expected, without a scheme such as `http://`, and "
            "without a user, who is named by --proxy-user and --proxy-password-file"
        )
    password = None
    if args.proxy_password_file is not None:
        disk.check_secret(args.proxy_password_file, "the proxy's password in")
        try:
            password = args.proxy_password_file.read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise BadRequest(
                f"--proxy-password-file: cannot read `{args.proxy_password_file}`: {error.strerror}"
            ) from error
        except ValueError as error:
            raise BadRequest(
                f"--proxy-password-file: `{args.proxy_password_file}` is not text in UTF-8: {error}"
            ) from error
    return Proxy(host, port, args.proxy_user, password)


def connect_of(args: argparse.Namespace) -> Connect | None:
    """``connect`` of the MQTT library that the options name; None when they name none.

    Raises ExtraMissing when it is not installed.
    """
    if args.client is None:
        return None
    if args.client != "paho":
        extras.load(args.client, args.client)
    return cast("Connect", import_module(f"fleetgate.device.{args.client}_client").connect)


def check_key(
    args: argparse.Namespace, key: object, connect: Connect | None, credentials: AnyCredentials
) -> None:
    """Whether the key is one to connect with and to sign with, and its libraries are installed.

    Raises BadRequest and ExtraMissing.
    """
    from fleetgate.device import arguments, keys
    from fleetgate.device.endpoint import Credentials
    from fleetgate.device.identity import KeyOnToken

    arguments.check_key(key, args.subject, connect, credentials)
    if args.subject is not None:
        keys.subject_of(args.subject)
    if isinstance(key, KeyOnToken):
        extras.load("pkcs11", "pkcs11")
    if connect is None and (
        isinstance(key, KeyOnToken) or not isinstance(credentials, Credentials)
    ):
        extras.load("awscrt", "awscrt")


def journey_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that ``provision`` and ``renew`` have in common, but for the key."""
    if args.verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(journey_output.Visible("%(message)s"))
        logging.basicConfig(handlers=[handler], level=logging.INFO)
        logging.getLogger("fleetgate").setLevel(logging.DEBUG)
    return {
        "subject": args.subject,
        "client_id": args.client_id,
        "own_client_id": args.own_client_id,
        "begin_anew": args.begin_anew,
        "terms": terms_of(args, args.mqtt_timeout),
        "token_seconds": args.token_seconds,
        "retries": Retries(args.attempts, args.give_up_after, args.first_pause, args.longest_pause),
        "connect": connect_of(args),
        "progress": None if args.as_json else journey_output.tell,
    }
