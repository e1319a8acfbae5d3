"""Whether CAA records let a CA issue (RFC 8659), to which account and by which method (RFC 8657)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CRITICAL = 128
KNOWN_TAGS = frozenset({"issue", "issuewild", "iodef", "issuemail"})  # RFC 8659 §4, RFC 9495
PARAMETER = re.compile(r"\s*([A-Za-z0-9]+)\s*=\s*([\x21-\x3a\x3c-\x7e]*)\s*")
ISSUER = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")

Verdict = Literal["allowed", "forbidden", "other_account", "other_method", "critical_unknown", "issuer_unknown"]
"""`issuer_unknown`: some issuers may, and the CA does not say by which names it goes."""


@dataclass(frozen=True)
class CaaRecord:
    flags: int
    tag: str
    value: str

    @property
    def text(self) -> str:
        return f'{self.flags} {self.tag} "{self.value}"'


@dataclass(frozen=True)
class Applicant:
    """Who would ask for the certificate: an account at a CA that goes by `identities` (RFC 8555 §9.7.6), with a method."""

    identities: Sequence[str]
    account_url: str
    method: str


@dataclass(frozen=True)
class Grant:
    """The value of an `issue` or `issuewild`: `issuer` is "" where nobody may, as it also is for what cannot be read."""

    issuer: str
    parameters: tuple[tuple[str, str], ...]

    def values_of(self, name: str) -> Sequence[str]:
        return [value for known, value in self.parameters if known == name]


def grant_of(value: str) -> Grant:
    """What cannot be read grants nothing (RFC 8659 §4.2)."""
    issuer, *rest = value.split(";")
    issuer = issuer.strip().lower().removesuffix(".")
    texts = rest[:-1] if rest and not rest[-1].strip() else rest
    matches = [PARAMETER.fullmatch(text) for text in texts]
    if (issuer and not ISSUER.fullmatch(issuer)) or None in matches:
        return Grant("", ())
    return Grant(issuer, tuple((match[1].lower(), match[2]) for match in matches if match))


def verdict_of(records: Sequence[CaaRecord], applicant: Applicant, *, wildcard: bool) -> Verdict:
    """Of the one set of records that is relevant (RFC 8659 §3). Of several grants one is enough."""
    if any(record.flags & CRITICAL and record.tag.lower() not in KNOWN_TAGS for record in records):
        return "critical_unknown"
    wild = [record for record in records if record.tag.lower() == "issuewild"]
    plain = [record for record in records if record.tag.lower() == "issue"]
    relevant = wild if wildcard and wild else plain
    if not relevant:
        return "allowed"
    grants = [grant_of(record.value) for record in relevant]
    identities = {identity.lower().removesuffix(".") for identity in applicant.identities}
    if not identities and any(grant.issuer for grant in grants):
        return "issuer_unknown"
    found = [_verdict_of_grant(grant, applicant) for grant in grants if grant.issuer in identities]
    preferred: Sequence[Verdict] = ("allowed", "other_method", "other_account")
    return next((verdict for verdict in preferred if verdict in found), "forbidden")


def _verdict_of_grant(grant: Grant, applicant: Applicant) -> Verdict:
    accounts, methods = grant.values_of("accounturi"), grant.values_of("validationmethods")
    if accounts and list(accounts) != [applicant.account_url]:  # more than one can never be satisfied (RFC 8657 §3)
        return "other_account"
    if methods and (len(methods) > 1 or applicant.method not in methods[0].split(",")):
        return "other_method"
    return "allowed"
