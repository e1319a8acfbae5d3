"""`/v1/audit`: who did what, when, and whether it was granted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.params import Parameter

from application.caller import Caller
from interfaces.http.pages import Page, next_cursor
from interfaces.http.services import Services
from projections.audit_log import AUDIT_LOG, AuditRow, Criteria


class AuditRows(msgspec.Struct, frozen=True):
    logs: Sequence[AuditRow]
    cursor: str | None
    has_more: bool


@get("/audit/logs", opt={"scope": "audit:read"}, sync_to_thread=True)
def list_audit_logs(
    caller: Caller,
    services: Services,
    page: Page,
    since: Annotated[datetime | None, Parameter(query="from")] = None,
    until: Annotated[datetime | None, Parameter(query="to")] = None,
    action: str | None = None,
    identity_id: str | None = None,
    path_prefix: str | None = None,
    success: bool | None = None,
    request_id: str | None = None,
    source_ip: str | None = None,
) -> AuditRows:
    """Everything that was answered before this question is in the answer."""
    services.catch_up_audit()
    criteria = Criteria(since, until, action, identity_id, path_prefix, success, request_id, source_ip)
    rows = AUDIT_LOG.page(services.pool, caller.tenant_id, page.after, page.limit + 1, criteria)
    cursor = next_cursor([row.index for row in rows], page)
    return AuditRows(rows[: page.limit], cursor, cursor is not None)
