"""CAA as RFC 8659 and RFC 8657 have it."""

from __future__ import annotations

import pytest

from domain.caa import Applicant, CaaRecord, Grant, Verdict, grant_of, verdict_of

ACCOUNT = "https://ca.example/account/1"
US = Applicant(("ca.example", "ca-two.example"), ACCOUNT, "dns-01")


def records(*texts: str) -> list[CaaRecord]:
    """Each as `flags tag value`."""
    split = [text.split(" ", 2) for text in texts]
    return [CaaRecord(int(flags), tag, value) for flags, tag, value in split]


@pytest.mark.parametrize(
    ("value", "grant"),
    [
        ("ca.example", Grant("ca.example", ())),
        (" CA.Example. ", Grant("ca.example", ())),
        (";", Grant("", ())),
        ("", Grant("", ())),
        ("ca.example;", Grant("ca.example", ())),
        ("ca.example; a=b;c = d", Grant("ca.example", (("a", "b"), ("c", "d")))),
        (
            "ca.example; accounturi=https://ca.example/a=1",
            Grant("ca.example", (("accounturi", "https://ca.example/a=1"),)),
        ),
        ("ca.example; policy", Grant("", ())),
        ("%%%%%", Grant("", ())),
        ("ca.example other.example", Grant("", ())),
    ],
)
def test_a_value_is_an_issuer_and_parameters_and_what_cannot_be_read_grants_nothing(value: str, grant: Grant) -> None:
    assert grant_of(value) == grant


@pytest.mark.parametrize(
    ("texts", "plain", "wildcard"),
    [
        ([], "allowed", "allowed"),
        (["0 iodef mailto:x@y.example"], "allowed", "allowed"),
        (["0 issue ca.example"], "allowed", "allowed"),
        (["0 ISSUE CA.EXAMPLE"], "allowed", "allowed"),
        (["0 issue ca-two.example"], "allowed", "allowed"),
        (["0 issue other.example", "0 issue ca.example"], "allowed", "allowed"),
        (["0 issue other.example"], "forbidden", "forbidden"),
        (["0 issue ;"], "forbidden", "forbidden"),
        (["0 issue ca.example", "0 issuewild ;"], "allowed", "forbidden"),
        (["0 issuewild ca.example"], "allowed", "allowed"),
        (["0 issue ;", "0 issuewild ca.example"], "forbidden", "allowed"),
        (["128 issue ca.example"], "allowed", "allowed"),
        (["0 tbs x", "0 issue ca.example"], "allowed", "allowed"),
        (["128 tbs x", "0 issue ca.example"], "critical_unknown", "critical_unknown"),
        (["128 issuemail ;"], "allowed", "allowed"),
    ],
)
def test_a_wildcard_goes_by_issuewild_where_there_is_one(texts: list[str], plain: Verdict, wildcard: Verdict) -> None:
    assert verdict_of(records(*texts), US, wildcard=False) == plain
    assert verdict_of(records(*texts), US, wildcard=True) == wildcard


@pytest.mark.parametrize(
    ("texts", "verdict"),
    [
        ([f"0 issue ca.example; accounturi={ACCOUNT}"], "allowed"),
        ([f"0 issue ca.example; AccountURI={ACCOUNT}"], "allowed"),
        (["0 issue ca.example; accounturi=https://ca.example/account/2"], "other_account"),
        ([f"0 issue ca.example; accounturi={ACCOUNT}/"], "other_account"),
        ([f"0 issue ca.example; accounturi={ACCOUNT}; accounturi={ACCOUNT}"], "other_account"),
        (["0 issue ca.example; validationmethods=dns-01"], "allowed"),
        (["0 issue ca.example; validationmethods=http-01,dns-01"], "allowed"),
        (["0 issue ca.example; validationmethods=http-01"], "other_method"),
        (["0 issue ca.example; validationmethods=dns-01; validationmethods=http-01"], "other_method"),
        ([f"0 issue ca.example; accounturi={ACCOUNT}; validationmethods=http-01"], "other_method"),
        (["0 issue ca.example; accounturi=x", "0 issue ca.example; validationmethods=http-01"], "other_method"),
        (["0 issue ca.example; accounturi=x", "0 issue ca-two.example"], "allowed"),
        (["0 issue other.example; accounturi=x"], "forbidden"),
        (["0 issue ca.example; unheard=of"], "allowed"),
    ],
)
def test_a_grant_may_be_for_one_account_or_certain_methods(texts: list[str], verdict: Verdict) -> None:
    assert verdict_of(records(*texts), US, wildcard=False) == verdict


def test_where_the_ca_does_not_say_its_names_only_a_ban_of_all_is_sure() -> None:
    nameless = Applicant((), ACCOUNT, "dns-01")
    assert verdict_of(records("0 issue ca.example"), nameless, wildcard=False) == "issuer_unknown"
    assert verdict_of(records("0 issue ;"), nameless, wildcard=False) == "forbidden"
    assert verdict_of([], nameless, wildcard=False) == "allowed"
