"""Refusals: the facts that stand in the way of a command. They carry their data and know no HTTP.

Refusal
├── NotFound(kind, id)
├── InvalidFields(fields)                 values that are well formed but not acceptable
├── Conflict
│   ├── NameInUse(name)
│   ├── OrderInProgress(order_id)
│   ├── VersionConflict                   somebody else changed the same thing meanwhile
│   ├── PrivateKeyNotStored
│   ├── AlreadyRevoked
│   ├── AccountNotActive(account_id, status)
│   ├── AccountInUse(account_id, certificate_ids)
│   └── KeyChangeInProgress(account_id)
├── OrderAlreadyEnded(order_id)
├── CaLimitReached(bucket, ready_at)      a rate limit of the CA has no room
├── ProviderVerificationFailed(reason)
├── TooMany                               of what ends by itself there is as much under way as may be
├── Denied(code, required)                a good token, but not for this
└── SealBroken                            sealed material that does not open
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domain.rate_limit import Bucket


class Refusal(Exception):
    """A command that cannot be done as things are. Nothing was recorded."""


class NotFound(Refusal):
    """`kind` is the aggregate's topic, e.g. `order`."""

    def __init__(self, kind: str, subject_id: str) -> None:
        super().__init__(f"{kind} {subject_id} does not exist")
        self.kind = kind
        self.subject_id = subject_id


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one field of a request. `field` is a path such as `domains[1]`."""

    field: str
    code: str
    message: str


class InvalidFields(Refusal):
    def __init__(self, *fields: FieldProblem) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in fields))
        self.fields = fields


class Conflict(Refusal): ...


class NameInUse(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name!r} is in use")
        self.name = name


class OrderInProgress(Conflict):
    def __init__(self, order_id: str) -> None:
        super().__init__(f"order {order_id} is in progress")
        self.order_id = order_id


class VersionConflict(Conflict):
    def __init__(self) -> None:
        super().__init__("it was changed by somebody else meanwhile")


class PrivateKeyNotStored(Conflict):
    def __init__(self, certificate_id: str, version: int) -> None:
        super().__init__(f"the private key of {certificate_id} version {version} was never here")


class AlreadyRevoked(Conflict):
    def __init__(self, certificate_id: str, version: int) -> None:
        super().__init__(f"{certificate_id} version {version} is revoked already")


class AccountNotActive(Conflict):
    """The CA has lost it, or it was deactivated."""

    def __init__(self, account_id: str, status: str) -> None:
        super().__init__(f"the account {account_id} is {status}")
        self.account_id = account_id
        self.status = status


class DnsProviderInUse(Conflict):
    """Orders in progress write to its zones, or have values there to remove; `order_id` is one of them."""

    def __init__(self, provider_id: str, order_id: str) -> None:
        super().__init__(f"the order {order_id} needs the DNS provider {provider_id}")
        self.order_id = order_id


class AccountInUse(Conflict):
    """Certificates renew by themselves through it; `certificate_ids` are some of them."""

    def __init__(self, account_id: str, certificate_ids: Sequence[str]) -> None:
        super().__init__(f"certificates are renewed through the account {account_id}")
        self.account_id = account_id
        self.certificate_ids = certificate_ids


class KeyChangeInProgress(Conflict):
    def __init__(self, account_id: str) -> None:
        super().__init__(f"the key of {account_id} is being changed already")
        self.account_id = account_id


class OrderAlreadyEnded(Refusal):
    def __init__(self, order_id: str) -> None:
        super().__init__(f"order {order_id} has ended")
        self.order_id = order_id


class CaLimitReached(Refusal):
    """Known beforehand, by our own reckoning or by what the CA said."""

    def __init__(self, bucket: Bucket, ready_at: datetime, now: datetime) -> None:
        super().__init__(f"the CA's rate limit {bucket.limit} has no room before {ready_at:%Y-%m-%dT%H:%M:%SZ}")
        self.bucket = bucket
        self.ready_at = ready_at
        self.retry_after_seconds = max(1, math.ceil((ready_at - now).total_seconds()))


class ProviderVerificationFailed(Refusal):
    """`reason` is one of the contract's closed set, `detail` the provider's own words, cleaned."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"the provider could not be verified: {detail}")
        self.reason = reason
        self.detail = detail


class TooMany(Refusal):
    """Of one subscription or tenant, so that the others have their share. It can be asked for again a little later."""


class Denied(Refusal):
    """`code` is `insufficient_scope`, with the missing scope in `required`, or `access_denied`."""

    def __init__(self, code: str, message: str, required: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.required = required


class SealBroken(Refusal):
    def __init__(self, kind: str, owner_id: str) -> None:
        super().__init__(f"the sealed {kind} of {owner_id} does not open")
