"""Reading the views for the handlers: one document, or a page of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from application.caller import Caller
from domain.errors import NotFound
from interfaces.http.pages import Page, next_cursor
from interfaces.http.services import Services
from projections.documents import Condition, DocumentView

NOTHING: Mapping[str, Any] = {}


def one(view: DocumentView, kind: str, services: Services, caller: Caller, subject_id: str) -> Any:
    """The tenant's document. `kind` is the aggregate's topic. Raises NotFound."""
    document = view.one(services.pool, caller.tenant_id, subject_id)
    if document is None:
        raise NotFound(kind, subject_id)
    return document


def one_with_position(
    view: DocumentView, kind: str, services: Services, caller: Caller, subject_id: str
) -> tuple[Any, int]:
    """And the position of the last event that changed it. Raises NotFound."""
    found = view.one_with_position(services.pool, caller.tenant_id, subject_id)
    if found is None:
        raise NotFound(kind, subject_id)
    return found


def listed(
    view: DocumentView,
    services: Services,
    caller: Caller,
    page: Page,
    matching: Mapping[str, Any] = NOTHING,
    is_visible: Callable[[Any], bool] = lambda _: True,
    conditions: Sequence[Condition] = (),
) -> tuple[Sequence[Any], str | None]:
    """A page of the tenant's documents and where the list goes on. What the caller may not see is left out, so that a
    page can be shorter than its limit."""
    rows = view.page(services.pool, caller.tenant_id, page.after, page.limit + 1, matching, conditions)
    cursor = next_cursor([place for place, _ in rows], page)
    return [document for _, document in rows[: page.limit] if is_visible(document)], cursor
