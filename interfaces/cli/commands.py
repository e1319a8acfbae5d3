"""What each command does."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence

import msgspec

from domain.errors import NotFound
from domain.provenance import DEFAULT_TENANT, Provenance
from domain.token import Limits, Token
from interfaces.cli import serving
from interfaces.parts import Parts
from interfaces.postgres.migrate import migrate
from interfaces.postgres.rebuild import (
    Difference,
    compare_todo,
    compare_view,
    rebuild_view,
    replace_todo,
)
from projections.catch_up import catch_up
from projections.tokens import TOKENS
from projections.views import FOLLOWING, INLINE

OK, FAILED, NOT_THERE = 0, 1, 4


def run_command(wanted: Namespace, parts: Parts) -> int:
    """The exit code."""
    commands: Mapping[str, Callable[[Namespace, Parts], int]] = {
        "serve": lambda _, parts: serving.serve(parts, api=True, worker=True),
        "api": lambda _, parts: serving.serve(parts, api=True, worker=False),
        "worker": lambda _, parts: serving.serve(parts, api=False, worker=True),
        "migrate": _migrate,
        "rebuild": _rebuild,
        "token": _token,
    }
    reason = parts.services.is_ready() if wanted.command in {"rebuild", "token"} else None
    if reason is not None:
        print(f"scaivault: {reason}", file=sys.stderr)
        return FAILED
    return commands[wanted.command](wanted, parts)


def operator(tenant_id: str = DEFAULT_TENANT) -> Provenance:
    return Provenance(tenant_id, "operator", getpass.getuser())


def _migrate(wanted: Namespace, parts: Parts) -> int:
    done = migrate(parts.pool, parts.history.read, parts.store, parts.decisions)
    _show(wanted, {"done": done}, done or ["nothing to do"])
    return OK


def _rebuild(wanted: Namespace, parts: Parts) -> int:
    names = wanted.views or [view.name for view in (*INLINE, *FOLLOWING)] + ["todo"]
    views = [view for view in (*INLINE, *FOLLOWING) if view.name in names]
    if wanted.verify:
        return _verify(wanted, parts, names)
    for view in views:
        rebuild_view(parts.pool, view, parts.history.read)
    if "todo" in names:
        replace_todo(parts.pool, parts.store, parts.decisions)
    _show(wanted, {"rebuilt": names}, [f"rebuilt {name}" for name in names])
    return OK


def _verify(wanted: Namespace, parts: Parts, names: Sequence[str]) -> int:
    differences: list[Difference] = []
    for view in (*INLINE, *FOLLOWING):
        if view.name in names:

            def catch_up_live(name: str = view.name) -> None:
                for follower, read in parts.followers:
                    if follower.name == name:
                        catch_up(parts.pool, follower, read)

            differences.append(compare_view(parts.pool, view, parts.history.read, catch_up_live))
    if "todo" in names:
        differences.append(compare_todo(parts.pool, parts.store, parts.decisions))
    lines = [
        f"{difference.name}: {difference.rows} rows, "
        + (
            "equal"
            if difference.is_equal
            else f"{difference.only_live} only live, {difference.only_rebuilt} only rebuilt"
        )
        for difference in differences
    ]
    _show(wanted, {"views": msgspec.to_builtins(differences)}, lines)
    return OK if all(difference.is_equal for difference in differences) else FAILED


def _token(wanted: Namespace, parts: Parts) -> int:
    match wanted.token_command:
        case "create":
            token = parts.tokens.issue(
                tenant_id=wanted.tenant,
                name=wanted.name,
                scopes=wanted.scopes,
                limits=Limits(wanted.dns_names, wanted.certificates, wanted.networks),
                valid_for=wanted.expires,
                by=operator(wanted.tenant),
            )
            _show(wanted, {"token": token.reveal_text()}, [token.reveal_text()])
        case "list":
            tokens = [view for _, view in TOKENS.page(parts.pool, wanted.tenant, 0, 1_000_000, {})]
            lines = [
                f"{t.id}  {t.status}  until {t.expires_at:%Y-%m-%d}  {' '.join(t.scopes)}  {t.name or ''}"
                for t in tokens
            ]
            _show(wanted, {"tokens": msgspec.to_builtins(tokens)}, lines)
        case "revoke":
            try:
                tenant_id = parts.store.load(Token, wanted.token_id).tenant_id
                parts.tokens.revoke(wanted.token_id, operator(tenant_id))
            except NotFound as refusal:
                _show(wanted, {"error": str(refusal)}, [str(refusal)])
                return NOT_THERE
            _show(wanted, {"revoked": wanted.token_id}, [f"revoked {wanted.token_id}"])
    return OK


def _show(wanted: Namespace, document: Mapping[str, object], lines: Sequence[str]) -> None:
    if wanted.json:
        print(msgspec.json.encode(document).decode())
    else:
        for line in lines:
            print(line)
