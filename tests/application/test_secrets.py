"""Storing secrets and reading them."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest

from application.secret_value import SecretValue
from domain.access import SecretRead
from domain.errors import InvalidFields, NotFound
from domain.secret import Secret
from tests.application.world import OWNER, STRANGER, World, field_codes

PATH = "dns/route53/main"


@pytest.fixture
def world() -> World:
    return World()


def value_of(world: World, version: int | None = None, path: str = PATH) -> Any:
    _, _, value = world.secrets.read(path, version, OWNER)
    return msgspec.json.decode(value.reveal())


def test_a_secret_is_read_as_it_was_written(world: World) -> None:
    data = {"access_key_id": "AKIA", "nested": [{"ü": None}, 1.5]}
    assert world.secrets.write(PATH, data, "json", {"owner": "ops"}, OWNER) == 1
    assert value_of(world) == data
    secret, version, _ = world.secrets.read(PATH, None, OWNER)
    assert (secret.path, version.secret_type, version.metadata) == (PATH, "json", {"owner": "ops"})
    assert (version.number, version.written_at) == (1, world.clock.now())


def test_a_write_adds_a_version_and_the_older_ones_stay(world: World) -> None:
    numbers = [world.secrets.write(PATH, {"n": n}, "kv", {}, OWNER) for n in (1, 2, 3)]
    assert numbers == [1, 2, 3]
    assert [value_of(world, version) for version in (1, 2, 3, None)] == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 3}]


def test_the_value_is_in_no_event(world: World) -> None:
    world.secrets.write(PATH, {"password": "hunter2"}, "kv", {}, OWNER)
    world.secrets.read(PATH, None, OWNER)
    assert "hunter2" not in repr(world.recorded)


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "A", "a b", "a.b", "ä", "/".join("a" * 11), "a" * 513, "a\n"])
def test_a_path_that_is_none_is_refused(world: World, path: str) -> None:
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        world.secrets.write(path, {}, "kv", {}, OWNER)
    assert field_codes(refusal) == {"path": "invalid_path"}
    assert world.sealed.sealed == 0


@pytest.mark.parametrize("path", ["a", "0-_/z", "/".join("a" * 10), "a" * 512])
def test_a_path_at_the_limits_is_taken(world: World, path: str) -> None:
    world.secrets.write(path, {"n": 1}, "kv", {}, OWNER)
    assert value_of(world, path=path) == {"n": 1}


def test_that_a_secret_was_read_is_on_record_before_it_is_given(world: World) -> None:
    world.secrets.write(PATH, {"n": 1}, "kv", {}, OWNER)
    world.secrets.write(PATH, {"n": 2}, "kv", {}, OWNER)
    value_of(world, 1)
    read = world.recorded[-1]
    assert isinstance(read, SecretRead)
    assert (read.path, read.version) == (PATH, 1)
    assert world.recorder.history[-1].by == OWNER.provenance


def test_the_services_own_use_is_no_reading(world: World) -> None:
    world.secrets.write(PATH, {"n": 1}, "kv", {}, OWNER)
    with world.records_nothing():
        _, version, value = world.secrets.open(OWNER.tenant_id, PATH)
    assert (version.number, msgspec.json.decode(value.reveal())) == (1, {"n": 1})


def test_what_is_not_there_is_not_found_and_on_no_record(world: World) -> None:
    world.secrets.write(PATH, {"n": 1}, "kv", {}, OWNER)
    with world.records_nothing():
        with pytest.raises(NotFound) as no_secret:
            world.secrets.read("another", None, OWNER)
        with pytest.raises(NotFound) as no_version:
            world.secrets.read(PATH, 2, OWNER)
    assert (no_secret.value.kind, no_version.value.kind) == ("secret", "version")


def test_the_same_path_is_another_secret_for_another_tenant(world: World) -> None:
    world.secrets.write(PATH, {"whose": "ours"}, "kv", {}, OWNER)
    with world.records_nothing(), pytest.raises(NotFound):
        world.secrets.read(PATH, None, STRANGER)
    assert world.secrets.write(PATH, {"whose": "theirs"}, "kv", {}, STRANGER) == 1
    assert value_of(world) == {"whose": "ours"}
    assert sum(isinstance(event, Secret.Stored) for event in world.recorded) == 2


def test_a_secret_value_shows_itself_to_nobody_by_accident() -> None:
    value = SecretValue("hunter2")
    for shown in (str(value), repr(value), f"{value}", f"{value!r:>40}", repr([value]), repr({"key": value})):
        assert "hunter2" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(value)
    with pytest.raises(TypeError):
        hash(value)
    assert (value == SecretValue(b"hunter2"), value == SecretValue("hunter3"), value == "hunter2") == (
        True,
        False,
        False,
    )
