"""What can be typed after `scaivault`."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_network
from typing import NoReturn

from domain.durations import parse_duration
from domain.provenance import DEFAULT_TENANT
from domain.token import SCOPES, Scope
from projections.views import FOLLOWING, INLINE

NOT_VALID = 5


class Parser(ArgumentParser):
    """One whose errors have the exit code of the contract."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(NOT_VALID, f"{self.prog}: error: {message}\n")


def arguments(words: Sequence[str]) -> Namespace:
    """Ends the process with a message where they make no sense."""
    parser = Parser("scaivault", description="TLS certificates from ACME CAs, for a whole organisation.")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="everything in one process: API, worker, and the embedded DNS where configured")
    commands.add_parser("api", help="the HTTP API alone")
    commands.add_parser("worker", help="the worker alone")
    commands.add_parser("demo", help="the main job on this machine alone, with a CA of its own")
    commands.add_parser("migrate", help="bring the database to what this version needs")
    rebuild = commands.add_parser("rebuild", help="make views anew from the events")
    rebuild.add_argument("views", nargs="*", choices=[[], *_view_names()], metavar="VIEW")
    rebuild.add_argument("--verify", action="store_true", help="change nothing, compare with the live ones")
    token_commands = _add_token_commands(commands.add_parser("token", help="API tokens"))
    for command in (*commands.choices.values(), *token_commands):
        # Suppressed, or its default would undo a --json that stands further left.
        command.add_argument("--json", action="store_true", default=SUPPRESS, help="answer in JSON")
    return parser.parse_args(words)


def _add_token_commands(token: ArgumentParser) -> Sequence[ArgumentParser]:
    commands = token.add_subparsers(dest="token_command", required=True)
    create = commands.add_parser("create", help="make a token; it is printed once and not kept")
    create.add_argument("--scopes", required=True, type=_scopes, help='e.g. "pki:issue pki:admin"')
    create.add_argument("--name")
    create.add_argument("--expires", type=_duration, default=timedelta(days=90), help="e.g. 90d (the default) or 12h")
    create.add_argument("--tenant", default=DEFAULT_TENANT)
    create.add_argument("--dns-names", type=_list, default=(), help="globs that names must match, by commas")
    create.add_argument("--certificates", type=_list, default=(), help="certificate ids, by commas")
    create.add_argument("--networks", type=_networks, default=(), help="client networks (CIDR), by commas")
    listing = commands.add_parser("list", help="the tokens there are")
    listing.add_argument("--tenant", default=DEFAULT_TENANT)
    revoke = commands.add_parser("revoke", help="end a token at once")
    revoke.add_argument("token_id")
    return create, listing, revoke


def _view_names() -> Sequence[str]:
    return [view.name for view in (*INLINE, *FOLLOWING)] + ["todo"]


def _scopes(text: str) -> tuple[Scope, ...]:
    wanted = text.replace(",", " ").split()
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        raise ArgumentTypeError(f"no such scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in wanted)


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as problem:
        raise ArgumentTypeError(str(problem)) from None


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _networks(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(part)) for part in _list(text))
    except ValueError as problem:
        raise ArgumentTypeError(str(problem)) from None
