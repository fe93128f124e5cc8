"""Whether a certificate is registered, when no answer of the server tells.

Its connecting proves that it is. Its being refused proves nothing: a server refuses a certificate
that is pending, and one whose policy names another client, with the same code. So the likely client
ids are tried, and when all of them are refused it stays a doubt, which the caller is told of. A
server that is busy or cannot be reached says nothing at all, and is asked again later. A
certificate whose registration the server has rejected is tried, too; when it is refused, the server
is believed.
"""

from __future__ import annotations

import re

from fleetgate.device import client_ids
from fleetgate.device.errors import ConnectionFailed, InDoubt, Rejected
from fleetgate.device.journal import Journal, Registration
from fleetgate.device.plan import Plan

_MAX_NAMES = 8
_MAX_NAME = 128  # bytes; AWS IoT Core quotas, "Client ID size"
_OF_THIS_DEVICE = re.compile(r"thing|serial|client|device|mac|uuid", re.ASCII | re.IGNORECASE)


def likely_names(plan: Plan, journal: Journal) -> list[str]:
    """The client ids that a policy may allow the new certificate, the likeliest first.

    Parameters count by their names: the value of one that devices share (a place, a colour) may be
    the client id of another device, which would be disconnected.
    """
    present = plan.present
    names = [plan.own_client_id]
    if present is not None:
        names += [present.thing_name, present.client_id]
    names += [value for name, value in plan.parameters.items() if _OF_THIS_DEVICE.search(name)]
    names += [journal.certificate_id, journal.client_id]
    likely = [each for each in names if each and _may_be_tried(each)]
    return list(dict.fromkeys(likely))[:_MAX_NAMES]


def _may_be_tried(name: str) -> bool:
    return client_ids.wrong_with(name) is None and len(name.encode()) <= _MAX_NAME


def found_out(plan: Plan, client_id: str) -> Registration:
    """What is known of a registration when its certificate has connected as `client_id`."""
    present = plan.present
    return Registration(
        present.thing_name if present else None,
        client_id,
        present.device_configuration if present else {},
        answer_lost=True,
    )


def in_doubt(
    journal: Journal, directory: object, said: Rejected, names: list[str], why: ConnectionFailed
) -> InDoubt:
    """The error when the server has refused the certificate under all of `names`."""
    listed = ", ".join(f"`{each}`" for each in names)
    return InDoubt(
        f"the device may be registered ({journal}): a request was sent, and no answer says "
        f"whether it was carried out, its token is no good any more ({said.error_code}), and its "
        f"certificate is refused with the client ids {listed}. Its key is kept. If the certificate "
        "is ACTIVE on the server, run this again with the client id that its policy allows "
        "(--own-client-id, `own_client_id`); if it is not, or shall be given up, begin anew "
        f"(--begin-anew, `begin_anew`, or `fleetgate abandon {directory}`). What happened: "
        f"{why.message}",
        topic=said.topic,
        status_code=said.status_code,
        error_code=said.error_code,
        error_message=said.error_message,
    )


def not_tried(journal: Journal, directory: object, why: ConnectionFailed) -> ConnectionFailed:
    """The error when a certificate could not be tried before it is given up."""
    return ConnectionFailed(
        f"the server has rejected the registration of {journal}, and the certificate could not be "
        "tried before it is given up, in case it was registered all the same. Its key is kept; run "
        f"this again later, or abandon it (`fleetgate abandon {directory}`). What happened: "
        f"{why.message}",
        waited=why.waited,
        retry=why.retry,
    )


def not_known(
    journal: Journal, directory: object, said: Rejected, why: ConnectionFailed
) -> ConnectionFailed:
    """The error when the certificate could not be tried."""
    return ConnectionFailed(
        f"the device may be registered ({journal}): its token is no good any more "
        f"({said.error_code}), and its certificate could not be tried. Its key is kept; run this "
        f"again later, or abandon it (`fleetgate abandon {directory}`). What happened: "
        f"{why.message}",
        waited=why.waited,
        retry=why.retry,
    )
