"""The identity that a journey makes, while it is not the active one: its files, and its key.

What is known of it is in the journal and in its directory; the plan says what it is to become. The
two may differ: a run may be for something else than the one that has begun it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509

from fleetgate.device import identity, keys
from fleetgate.device.directory import IdentityDirectory
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint
from fleetgate.device.errors import StorageRefused
from fleetgate.device.identity import Identity, KeyOnToken
from fleetgate.device.journal import Journal, Registration
from fleetgate.device.keys import PublicKey
from fleetgate.device.plan import ON_TOKEN, Plan


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """The identity that `journal` is about, in `directory`. All methods raise StorageRefused."""

    plan: Plan
    directory: IdentityDirectory
    journal: Journal

    def make_files(self) -> None:
        """Its directory, with what can be there from the beginning."""
        number = self.journal.number
        if self.journal.state == "proven":
            return
        self.directory.make(number)
        files: dict[str, str | bytes] = {}
        if self.plan.authorities is not None:
            files[identity.CA] = self.plan.authorities
        key = self.plan.key
        if self.journal.state == "asking" and not isinstance(key, KeyOnToken) and key != "server":
            present = self.plan.present
            if self.directory.read(number, identity.PRIVATE_KEY) is not None:
                pass  # a certificate for it may be on its way
            elif key != "kept":
                files[identity.PRIVATE_KEY] = keys.pem(keys.make(key))
            elif present is not None and present.key is not None:
                files[identity.PRIVATE_KEY] = self._present_key(present)
        if files:
            self.directory.write(number, files)

    def signing_request(self) -> tuple[str, PublicKey]:
        """A request for a certificate, signed with its key, and the public half of that."""
        subject = self.plan.subject or keys.common_name(self.plan.client_id)
        token = self._token_key()
        if token is not None:
            return keys.csr_on_token(token, subject)
        number = self.journal.number
        content = self.directory.read(number, identity.PRIVATE_KEY)
        try:
            key = keys.load(content or b"")
        except ValueError as error:
            path = self.directory.file(number, identity.PRIVATE_KEY)
            raise StorageRefused(f"`{path}` holds no key that can be used: {error}") from error
        return keys.csr(key, subject), key.public_key()

    def credentials(self) -> AnyCredentials:
        """What it connects with, when it has its certificate."""
        certificate = self.directory.file(self.journal.number, identity.CERTIFICATE)
        token = self._token_key()
        if token is not None:
            return token.with_certificate(certificate)
        return Credentials(
            certificate, self.directory.file(self.journal.number, identity.PRIVATE_KEY)
        )

    def home(self) -> Endpoint:
        """Where its certificate was asked for; what is asked for now may be elsewhere."""
        asked, goal, number = self.plan.endpoint, self.journal.goal, self.journal.number
        has_ca = self.directory.read(number, identity.CA) is not None
        return replace(
            asked,
            host=goal.endpoint,
            port=goal.port,
            ca=self.directory.file(number, identity.CA) if has_ca else None,
            alpn=asked.alpn if asked.port == goal.port else None,
        )

    def configuration(self, registration: Registration) -> dict[str, Any]:
        """What its ``config.json`` is to say."""
        plan, token = self.plan, self._token_key()
        return {
            "thingName": registration.thing_name,
            "certificateId": self.journal.certificate_id,
            "clientId": registration.client_id,
            "endpoint": plan.endpoint.host,
            "port": plan.endpoint.port,
            "alpn": plan.endpoint.alpn,
            "mqttVersion": plan.endpoint.mqtt_version,
            "template": plan.goal.template,
            "deviceConfiguration": registration.device_configuration,
            "answerLost": registration.answer_lost,
            "key": self._key_kind(),
            "token": token
            and {
                "module": str(token.module),
                "label": token.token,
                "key": token.key,
                "pinFile": str(token.pin_file.absolute()),
            },
            "goal": plan.config_goal,
        }

    def has_usable_key(self) -> bool:
        """Whether its key can be used in this run: one on a token only when it is asked for."""
        return not self.journal.key.startswith(ON_TOKEN) or self.journal.key == self.plan.key_name

    def _token_key(self) -> KeyOnToken | None:
        """The token that its key is on, as the journal says."""
        if self.journal.key == "kept":
            return self.plan.present.token if self.plan.present else None
        if isinstance(self.plan.key, KeyOnToken) and self.journal.key.startswith(ON_TOKEN):
            return self.plan.key
        return None

    def _present_key(self, present: Identity) -> bytes:
        content = self.directory.read(present.number, identity.PRIVATE_KEY)
        if content is None:
            raise StorageRefused(f"`{present.key}` is missing")
        return content

    def _key_kind(self) -> str:
        content = self.directory.read(self.journal.number, identity.CERTIFICATE) or b""
        return keys.kind_of(x509.load_pem_x509_certificate(content).public_key())
