"""``POST /_fleetgate/hooks/test``: what the hook of a template says to a device, without a device.

Nothing is changed. The request is a JSON object; `templateName` is the only member that has to be
there:

* `templateName`; `templateVersion`: a version that is not the default one;
* `parameters`: text to text, what the device would send;
* `certificateSigningRequest`: the device's (PEM); without one a key is made up;
* `clientId`, `claimCertificateId`: of the connection there would be;
* `functionName`: a function to be tried that the template does not name; its ARN does as well.

The answer has `template`, `certificate`, `certificateProvider` and `hook` (how the function was
found and permitted, its input, output and log, how long it took), `parameterOverrides`, `rendered`
(what the template makes of it), `notes`, and the `verdict`: `allowed`, else the `step` that refuses
with `kind` and `reason`, and what the `device` hears.

The path is authenticated like the API, by a signature for ``iot``. Trying takes the rights
iot:DescribeProvisioningTemplate for the template (for a version DescribeProvisioningTemplateVersion
too) and lambda:InvokeFunction for the function; where the certificate provider is asked, that for
its function and iot:DescribeCertificateProvider. The caller learns what a device would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from fleetgate.domain.template_constants import SOME_ID
from fleetgate.errors import InvalidRequestException, SerializationException
from fleetgate.gateway import reserved
from fleetgate.operations import hook_trial
from fleetgate.operations.call import Call

_Pem = Annotated[str, msgspec.Meta(max_length=65_536)]


class _Asked(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    template_name: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{1,36}$")]
    template_version: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] | None = None
    parameters: dict[str, str] = {}
    certificate_signing_request: _Pem | None = None
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = "hook-test"
    claim_certificate_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")] = SOME_ID
    function_name: (
        Annotated[str, msgspec.Meta(pattern=r"^([a-zA-Z0-9-_]{1,64}|arn:.{1,200})$")] | None
    ) = None


_decoder = msgspec.json.Decoder(_Asked)


async def test(call: Call, body: bytes) -> Mapping[str, Any]:
    """The answer to a request.

    Raises SerializationException for what is no JSON, InvalidRequestException for members that
    are missing, unknown or wrong, and what `hook_trial.try_hook` raises.
    """
    try:
        asked = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequestException(f"the request is wrong: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationException(f"the request is no JSON: {error}") from None
    tried = await hook_trial.try_hook(
        call,
        hook_trial.Asked(
            asked.template_name,
            asked.parameters,
            asked.certificate_signing_request,
            asked.client_id,
            asked.claim_certificate_id,
            asked.template_version,
            asked.function_name,
        ),
    )
    verdict: dict[str, Any] = {
        "allowed": not tried.step,
        "step": tried.step or None,
        "kind": tried.kind or None,
        "reason": tried.reason,
        "device": None,
    }
    if tried.heard is not None:
        verdict["device"] = reserved.refusal(tried.heard)
    return {**tried.members, "notes": tried.notes, "verdict": verdict}
