"""The service model: which operations there are, what goes in and what comes out.

Theory of operation. A :class:`Service` is made from a document in the format of botocore's
``service-2.json``. Making one only files every operation's ``requestUri`` in a tree of path
segments; operations and shapes become objects when they are first asked for and stay (about
1500 shapes are described, a server uses a fraction). MQTT operations are described in the same
format, with the topic as ``requestUri`` and ``mqtt`` as protocol; their segments are taken as
they are, because nothing is percent-encoded in a topic.

Source: botocore ``docs/source/development/designnotes.rst`` and ``botocore/model.py``; the
Smithy specification, "HTTP bindings", for labels and the precedence of literal segments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote

from fleetgate.errors import SerializationException

_CAPITALISED_WORD = re.compile(r"(.)([A-Z][a-z]+)")
_CAPITAL = re.compile(r"([a-z0-9])([A-Z])")
_PLURAL_ACRONYM = re.compile(r"[A-Z]{2,}s$")


def python_name(name: str) -> str:
    """The snake_case form of a name of the model, the same as ``botocore.xform_name``.

    ``thingName`` -> ``thing_name``, ``certificateARNs`` -> ``certificate_arns``. botocore's
    hand-kept exceptions concern other services and are left out.
    """
    if "_" in name:
        return name
    acronym = _PLURAL_ACRONYM.search(name)
    if acronym is not None:
        name = f"{name[: acronym.start()]}_{acronym.group().lower()}"
    return _CAPITAL.sub(r"\1_\2", _CAPITALISED_WORD.sub(r"\1_\2", name)).lower()


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A type of the model with its constraints; equal only to itself, so usable as a key.

    ``type`` is one of structure, list, map, string, integer, long, float, double, boolean,
    timestamp, blob. ``element`` is the member of a list or the value of a map, ``minimum`` and
    ``maximum`` bound a length (characters, bytes, entries) or a number. ``key_name``,
    ``element_name`` and ``flattened`` matter to forms and XML alone: what a key and an element are
    called there, and whether a list or map goes without an element around its entries.
    """

    name: str
    type: str
    members: Mapping[str, Member] = field(default_factory=dict)
    payload: Member | None = None
    key: Shape | None = None
    element: Shape | None = None
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()
    sensitive: bool = False
    timestamp_format: str | None = None
    key_name: str | None = None
    element_name: str | None = None
    flattened: bool = False

    @property
    def reads_body(self) -> bool:
        """Whether any member of this structure travels in the body of a message."""
        return any(member.location is None for member in self.members.values())


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A member of a structure.

    ``name`` is the model's name, ``python_name`` its snake_case form, ``location`` where it
    travels (None is the body, else uri, querystring, header, headers, statusCode) and
    ``location_name`` what it is called there (lower case for a header).
    """

    name: str
    python_name: str
    shape: Shape
    required: bool
    location: str | None
    location_name: str
    timestamp_format: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation; ``errors`` maps the codes it declares to their HTTP statuses.

    ``result_wrapper`` is the XML element around the output and ``xml_namespace`` that of the whole
    answer; only the Query protocol has them.
    """

    name: str
    python_name: str
    method: str
    request_uri: str
    response_code: int
    input: Shape | None
    output: Shape | None
    errors: Mapping[str, int]
    result_wrapper: str | None = None
    xml_namespace: str = ""


@dataclass(slots=True)
class _Node:
    """One position in the tree of paths: what may follow, and what ends here."""

    literals: dict[str, _Node] = field(default_factory=dict)
    label: _Node | None = None
    greedy: _Node | None = None
    endings: dict[str, list[_Ending]] = field(default_factory=dict)  # by method


@dataclass(frozen=True, slots=True)
class _Ending:
    operation: str
    labels: tuple[str, ...]
    query: tuple[tuple[str, str], ...]


class Service:
    """The operations of one service, found by name or by request."""

    def __init__(
        self,
        name: str,
        protocol: str,
        operations: Mapping[str, Mapping[str, Any]],
        shapes: Mapping[str, Mapping[str, Any]],
        *,
        version: str = "",
        xml_namespace: str = "",
    ) -> None:
        self.name = name
        self.protocol = protocol
        self.version = version
        self.xml_namespace = xml_namespace
        self._described = operations
        self._described_shapes = shapes
        self._operations: dict[str, Operation] = {}
        self._shapes: dict[str, Shape] = {}
        self._root = _Node()
        if protocol != "query":  # all its operations are at `/`, told apart by the form
            for operation in operations.values():
                self._file(operation["name"], operation["http"])

    @classmethod
    def from_json(cls, document: Mapping[str, Any], service_name: str) -> Service:
        """A service from a parsed ``service-2.json``; `service_name` is e.g. ``iot``.

        Raises ValueError when the document is not of that format.
        """
        try:
            metadata = document["metadata"]
            return cls(
                service_name,
                metadata["protocol"],
                document["operations"],
                document["shapes"],
                version=metadata.get("apiVersion", ""),
                xml_namespace=metadata.get("xmlNamespace", ""),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a service model of `{service_name}`: {error!r}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all operations, e.g. ``CreateThing``."""
        return tuple(self._described)

    def operation(self, name: str) -> Operation:
        """The operation of this name (``CreateThing``). Raises KeyError when there is none."""
        found = self._operations.get(name)
        if found is None:
            found = self._operations[name] = self._build_operation(self._described[name])
        return found

    def shape(self, name: str) -> Shape:
        """The shape of this name. Raises KeyError when there is none.

        Raises ValueError for a shape that contains itself: nothing served here has one.
        """
        found = self._shapes.get(name)
        if found is None:
            found = self._build_shape(name, ())
        return found

    def message_member(self, code: str) -> str:
        """What the member with the message of an error is called: ``message`` or ``Message``.

        Of an error the service does not describe: as most of those it does.
        """
        described = self._described_shapes.get(code, {}).get("members", {})
        return next((name for name in described if name.lower() == "message"), "message")

    def route(
        self, method: str, path: str, query: Sequence[tuple[str, str]] = ()
    ) -> tuple[Operation, dict[str, str]] | None:
        """The operation a request is for, with the values of the labels in its path.

        `path` is as it arrived: percent-encoded for HTTP, a topic for MQTT. A literal segment
        is preferred to a label, and a label to a greedy one; a label is never empty. Returns
        None when nothing matches. Raises SerializationException when the path is not
        percent-encoded UTF-8.
        """
        segments = path.split("/")
        if self.protocol != "mqtt":
            # A signature is over the path without `.` and `..`: what they could stand for
            # must not reach an operation (RFC 3986 section 5.2.4).
            if segments.pop(0) or "." in segments or ".." in segments:
                return None
            segments = [_percent_decoded(segment) for segment in segments]
        present = frozenset(query)
        for ending, values in _endings(self._root, method, segments, 0, ()):
            if present.issuperset(ending.query):
                return self.operation(ending.operation), dict(
                    zip(ending.labels, values, strict=True)
                )
        return None

    def _file(self, name: str, http: Mapping[str, Any]) -> None:
        path, _, query = http["requestUri"].partition("?")
        node = self._root
        labels: list[str] = []
        segments = path.split("/")
        for segment in segments if self.protocol == "mqtt" else segments[1:]:
            if not segment.startswith("{"):
                node = node.literals.setdefault(segment, _Node())
            elif segment.endswith("+}"):
                labels.append(segment[1:-2])
                node.greedy = node = node.greedy or _Node()
            else:
                labels.append(segment[1:-1])
                node.label = node = node.label or _Node()
        endings = node.endings.setdefault(http["method"], [])
        pairs = tuple(parse_qsl(query, keep_blank_values=True))
        endings.append(_Ending(name, tuple(labels), pairs))
        endings.sort(key=lambda ending: -len(ending.query))

    def _build_operation(self, described: Mapping[str, Any]) -> Operation:
        http = described["http"]
        return Operation(
            name=described["name"],
            python_name=python_name(described["name"]),
            method=http["method"],
            request_uri=http["requestUri"],
            response_code=http.get("responseCode", 200),
            input=self.shape(described["input"]["shape"]) if "input" in described else None,
            output=self.shape(described["output"]["shape"]) if "output" in described else None,
            errors=MappingProxyType(
                dict(self._error(error["shape"]) for error in described.get("errors", ()))
            ),
            result_wrapper=described.get("output", {}).get("resultWrapper"),
            xml_namespace=self.xml_namespace,
        )

    def _error(self, name: str) -> tuple[str, int]:
        described = self._described_shapes[name]
        error = described.get("error", {})
        status = error.get("httpStatusCode", 500 if described.get("fault") else 400)
        return error.get("code", name), status

    def _build_shape(self, name: str, outer: tuple[str, ...]) -> Shape:
        found = self._shapes.get(name)
        if found is not None:
            return found
        if name in outer:
            raise ValueError(f"shape `{name}` of `{self.name}` contains itself")
        outer = (*outer, name)
        described = self._described_shapes[name]
        required = frozenset(described.get("required", ()))
        members = {
            member: self._build_member(member, reference, member in required, outer)
            for member, reference in described.get("members", {}).items()
        }
        element = described.get("member") or described.get("value")
        key = described.get("key")
        shape = self._shapes[name] = Shape(
            name=name,
            type=described["type"],
            members=MappingProxyType(members),
            payload=members[described["payload"]] if "payload" in described else None,
            key=self._build_shape(key["shape"], outer) if key else None,
            element=self._build_shape(element["shape"], outer) if element else None,
            minimum=described.get("min"),
            maximum=described.get("max"),
            pattern=described.get("pattern"),
            enum=tuple(described.get("enum", ())),
            sensitive=described.get("sensitive", False),
            timestamp_format=described.get("timestampFormat"),
            key_name=key.get("locationName") if key else None,
            element_name=element.get("locationName") if element else None,
            flattened=described.get("flattened", False),
        )
        return shape

    def _build_member(
        self, name: str, reference: Mapping[str, Any], required: bool, outer: tuple[str, ...]
    ) -> Member:
        location = reference.get("location")
        location_name = reference.get("locationName", name)
        shape = self._build_shape(reference["shape"], outer)
        return Member(
            name=name,
            python_name=python_name(name),
            shape=shape,
            required=required,
            location=location,
            location_name=location_name.lower()
            if location in {"header", "headers"}
            else location_name,
            timestamp_format=reference.get("timestampFormat") or shape.timestamp_format,
        )


def _percent_decoded(segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise SerializationException(
            f"`{segment[:80]}` in the path is not percent-encoded utf-8"
        ) from None


def _endings(
    node: _Node, method: str, segments: Sequence[str], at: int, values: tuple[str, ...]
) -> Iterator[tuple[_Ending, tuple[str, ...]]]:
    """Every ending the segments from `at` on lead to, the best first.

    The tree is as deep as the longest requestUri, so a long path costs nothing.
    """
    if at == len(segments):
        for ending in node.endings.get(method, ()):
            yield ending, values
        return
    segment = segments[at]
    literal = node.literals.get(segment)
    if literal is not None:
        yield from _endings(literal, method, segments, at + 1, values)
    if node.label is not None and segment:
        yield from _endings(node.label, method, segments, at + 1, (*values, segment))
    if node.greedy is not None and all(segments[at:]):
        for end in range(len(segments), at, -1):
            taken = "/".join(segments[at:end])
            yield from _endings(node.greedy, method, segments, end, (*values, taken))
