"""The AWS Query protocol, as far as saying no goes.

IAM, STS and other services that command line tools call on the same address speak it: a form in,
XML out. Source: Smithy specification, "AWS query protocol", operation error serialization.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote
from xml.sax.saxutils import escape

from fleetgate.errors import ServiceError

FORM = "application/x-www-form-urlencoded"
"""The media type by which a request of this protocol is recognised."""


def is_spoken(
    path: str, query: str, content_type: str, authorization: str, others: Iterable[str]
) -> bool:
    """Whether a request is one of this protocol: a form for ``/``, not signed for `others`.

    The path and the form alone do not tell it: curl calls any body a form. `query` is the query
    string, `others` are the signing names of services with another protocol.
    """
    said = f"{authorization} {unquote(query)}"
    return (
        path == "/"
        and content_type.startswith(FORM)
        and not any(f"/{name}/aws4_request" in said for name in others)
    )


_ILLEGAL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF], "�")


def encode_error(error: ServiceError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body that tell a caller of an error.

    What the caller sent and was not UTF-8 (``surrogateescape``) becomes question marks.
    """
    # XML 1.0 section 2.2: most control characters cannot be in a document, not even escaped
    message = escape(error.message.translate(_ILLEGAL))
    side = "Sender" if error.status < 500 or error.status == 501 else "Receiver"
    body = (
        f"<ErrorResponse><Error><Type>{side}</Type><Code>{error.code()}</Code>"
        f"<Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    headers = {"content-type": "text/xml", "x-amzn-requestid": request_id}
    return error.status, headers, body.encode("utf-8", errors="replace")
