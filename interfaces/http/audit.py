"""`/v1/audit`: who did what, when, and whether it was granted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.params import FromQuery, QueryParameter

from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.pages import FromPage, next_cursor
from interfaces.http.problems import ERRORS
from projections.audit_log import AUDIT_LOG, AuditRow, Criteria


class AuditRows(msgspec.Struct, frozen=True):
    logs: Sequence[AuditRow]
    cursor: str | None
    has_more: bool


@get("/audit/logs", opt={"scope": "audit:read"}, responses=ERRORS, sync_to_thread=True)
def list_audit_logs(
    caller: FromToken,
    services: FromApp,
    page: FromPage,
    from_: Annotated[datetime | None, QueryParameter(name="from")] = None,
    to: FromQuery[datetime | None] = None,
    action: FromQuery[str | None] = None,
    identity_id: FromQuery[str | None] = None,
    path_prefix: FromQuery[str | None] = None,
    success: FromQuery[bool | None] = None,
    request_id: FromQuery[str | None] = None,
    source_ip: FromQuery[str | None] = None,
) -> AuditRows:
    """Everything that was answered before this question is in the answer."""
    services.catch_up_audit()
    criteria = Criteria(from_, to, action, identity_id, path_prefix, success, request_id, source_ip)
    rows = AUDIT_LOG.page(services.pool, caller.tenant_id, page.after, page.limit + 1, criteria)
    cursor = next_cursor([row.index for row in rows], page)
    return AuditRows(rows[: page.limit], cursor, cursor is not None)
