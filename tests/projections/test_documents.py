"""What a view of documents does whatever its documents are: here each counts the values that a secret had."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from domain.provenance import Recorded
from domain.secret import Secret
from interfaces.postgres.pool import Pool
from projections.documents import Column, DocumentView
from tests.projections.folding import apply, recorded, rows
from tests.projections.story import BEGIN, TENANT, stored_secret

NOW = BEGIN
MOST = 2


class Counted(msgspec.Struct, frozen=True):
    id: str
    versions: int


def fold(document: Counted | None, recorded: Recorded) -> Counted | None:
    """None from the third version on."""
    if isinstance(recorded.event, Secret.Stored):
        return Counted(recorded.event.originator_id, 1)
    return None if document is None or document.versions == MOST else replace(document, versions=document.versions + 1)


COUNTED = DocumentView(
    name="counted",
    document_type=Counted,
    event_class=Secret.Event,
    fold=fold,
    columns={"versions": Column("integer NOT NULL", lambda document: document.versions)},
)


@pytest.fixture
def counted(pool: Pool) -> Pool:
    """With the view's table in its database."""
    with pool.connection() as connection:
        connection.execute(COUNTED.ddl.encode())
    return pool


def versions(path: str, count: int) -> list[Recorded]:
    secret = stored_secret(path, NOW)
    for number in range(2, count + 1):
        secret.add_version("kv", {}, f"sealed_{number}", NOW)
    return recorded(secret)


def documents(pool: Pool) -> list[tuple[int, Counted]]:
    return list(COUNTED.page(pool, TENANT, 0, 100, {}))


SECRET_ID = stored_secret("a", NOW).id


def test_a_document_that_becomes_none_is_deleted(counted: Pool) -> None:
    events = versions("a", 3)
    apply(counted, COUNTED, events[:2])
    assert COUNTED.one(counted, TENANT, SECRET_ID) == Counted(SECRET_ID, 2)

    apply(counted, COUNTED, events[2:])

    assert COUNTED.one(counted, TENANT, SECRET_ID) is None
    assert rows(counted, COUNTED) == []


def test_one_that_comes_and_goes_at_once_leaves_no_row(counted: Pool) -> None:
    apply(counted, COUNTED, versions("a", 3))

    assert rows(counted, COUNTED) == []


def test_what_comes_after_the_end_leaves_no_row_either(counted: Pool) -> None:
    events = versions("a", 5)
    for cut in range(6):
        apply(counted, COUNTED, events[:cut])
        apply(counted, COUNTED, events[cut:])

        assert rows(counted, COUNTED) == [], cut


def test_the_others_of_a_batch_are_kept(counted: Pool) -> None:
    gone, kept = stored_secret("a", NOW), stored_secret("b", NOW)
    for _ in range(2):
        gone.add_version("kv", {}, "sealed_2", NOW)
    apply(counted, COUNTED, recorded(gone, kept))

    assert documents(counted) == [(4, Counted(kept.id, 1))]


def test_columns_are_those_of_the_newest_document(counted: Pool) -> None:
    apply(counted, COUNTED, versions("a", 2))

    assert [document.id for _, document in COUNTED.page(counted, TENANT, 0, 10, {"versions": 2})] == [SECRET_ID]
    assert COUNTED.page(counted, TENANT, 0, 10, {"versions": 1}) == []
