"""A journey is killed at every instant, with real files and a real server, and then run again.

In the end there is exactly one working identity, the claim is intact, and the server has no
certificate of nobody's but pending ones, which go when their tokens end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.device.kill_site import Site, site
from tests.device.killed_child import IN_DOUBT
from tests.device.random_kills import Seed, longest

SEEDS = 8


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("kill")) as made:
        yield made


def instants(calls: int) -> list[tuple[int, bool]]:
    """Before each call to the file system, and after the last.

    What happens between two calls (a request, an answer) is thereby between two instants.
    """
    return [*((number, False) for number in range(calls)), (calls - 1, True)]


@pytest.mark.parametrize(
    ("key", "every", "named"), [("P-256", 1, False), ("P-256", 5, True), ("server", 4, False)]
)
def test_provisioning_killed_at_every_call(key: str, every: int, named: bool, shared: Site) -> None:
    """`named`: told its client id, which is its thing's name otherwise."""
    name = f"{key}-{named}"
    code, calls = shared.children.do(shared.request(f"whole-{name}", key=key, named=named))
    assert code == 0
    assert calls > 40
    for number, after in instants(calls)[::every]:
        serial = f"{name}-{number}-{after}"
        request = shared.request(serial, key=key, named=named)
        killed = shared.request(serial, key=key, named=named, at=number, after=after)
        assert shared.children.do(killed) == (-9, 0)
        found = shared.present(serial)
        done = shared.until_done(request)
        assert found is None or found == done
        shared.works(done)
    shared.check()


@pytest.mark.parametrize(("keep_key", "every", "named"), [(False, 1, False), (True, 3, True)])
def test_renewing_killed_at_every_call(
    keep_key: bool, every: int, named: bool, shared: Site
) -> None:
    """One device, which is renewed again and again."""
    serial = f"renewed-{keep_key}"
    present = shared.until_done(shared.request(serial))
    renewed = shared.renewed.setdefault(serial, set())
    request = shared.renewal(serial, keep_key=keep_key, named=named)
    for number in itertools.count(0, every):
        renewed.add(present.certificate_id)
        killed = shared.renewal(serial, keep_key=keep_key, named=named, at=number)
        code, _ = shared.children.do(killed)
        found = shared.present(serial)
        assert found is not None
        shared.works(found)
        if code == 0:
            break  # there are not so many calls
        assert code == -9
        had_switched = found != present
        present = found if had_switched else shared.until_done(request)
        if had_switched and (found.directory / "journal.json").exists():
            assert shared.until_done(request) == found
        assert present.certificate_id not in renewed
        shared.works(present)
    assert number > 40
    shared.check()


def test_killed_at_random(shared: Site) -> None:
    within = longest(shared)
    for seed in range(SEEDS):
        Seed(shared, seed, within).run()
    shared.check()


def test_nothing_is_left_on_the_server(shared: Site) -> None:
    """Nor is a device lost that was off until its token was over."""
    shared.check()
    registered, renewed, issued = "late-registered", "late-renewed", "late-issued"
    present = shared.until_done(shared.request(renewed))
    shared.renewed[renewed] = {present.certificate_id}
    late = [shared.request(registered), shared.renewal(renewed), shared.request(issued)]
    for request, state in zip(late, ("registered", "registered", "registering"), strict=True):
        assert shared.children.do(replace(request, before=state)) == (-9, 0)
    assert shared.wait_for_the_pending() > 0  # the last one's is the youngest
    assert shared.children.do(late[0])[0] == IN_DOUBT  # its policy wants the thing's name
    shared.works(shared.decide(late[0]))
    assert shared.until_done(late[1]).answer_lost  # by the name that it has had before
    shared.until_done(late[2])
    shared.check()
