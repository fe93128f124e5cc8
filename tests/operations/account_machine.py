"""What state machines over an account have in common."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant

from fleetgate.errors import ServiceError
from tests.operations.conftest import Registry
from tests.operations.iam import Iam
from tests.operations.references import broken_references

TAGS = [{"Key": "site", "Value": "A"}]

STEPS = settings(
    max_examples=5,
    stateful_step_count=40,
    # what fails is a list of calls that reads well enough, and shrinking one takes minutes
    phases=(Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


class Account(RuleBasedStateMachine):
    """An account, and what holds whatever is done to it."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.registry = registry
        registry.runner.run(registry.services.store.reset())
        registry.services.iam_epoch += 1
        self.iam = Iam(registry)
        self.changed = True
        self.deleted = 0
        """How many calls since `populate` have deleted something."""

    def do(self, operation: str, **params: Any) -> dict[str, Any] | None:
        """The answer of IoT, None when the call is refused."""
        given = {name: value for name, value in params.items() if value is not None}
        try:
            answer = self.registry.call(operation, **given)
        except ServiceError:
            return None
        self.note(operation)
        return answer

    def ask(self, operation: str, **members: Any) -> dict[str, Any] | None:
        """The answer of IAM, None when the call is refused."""
        given = {name: value for name, value in members.items() if value is not None}
        try:
            answer = self.iam(operation, **given)
        except ServiceError:
            return None
        self.note(operation)
        return answer

    def note(self, operation: str) -> None:
        self.changed = True
        self.deleted += operation.startswith("Delete")

    @invariant()
    def no_reference_is_broken(self) -> None:
        if self.changed:
            services = self.registry.services
            look = broken_references(services.store, services.account)
            assert self.registry.runner.run(look) == []
            self.look()
            self.changed = False

    def look(self) -> None:
        """What else has to hold."""
