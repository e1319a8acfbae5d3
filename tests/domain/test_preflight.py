"""What is made of what was seen, and that the document tells of every code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from domain.caa import Applicant, CaaRecord
from domain.dns_provider import ManagedZones
from domain.dns_survey import CaaLookUp, Hop, LookUp, NameSeen, ServerSeen, TxtSeen, ZoneSeen
from domain.preflight import RULES, Code, Report, Wanted, judge
from domain.rate_limit import LETS_ENCRYPT

DOCUMENT = Path(__file__).parents[2] / "docs/preflight.md"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
ZONE = "acme.example"
NAME = f"www.{ZONE}"
RECORD = f"_acme-challenge.{NAME}"
APPLICANT = Applicant(("ca.example",), "https://ca.example/account/1", "dns-01")
PROVIDERS = (ManagedZones("dnsp_1", (ZONE, "auth.example"), NOW),)
SERVER = ServerSeen("ns1.acme.example (192.0.2.1)", "authoritative", "serial 1", 1, over_tcp=True)
SOA = LookUp(f"SOA {ZONE}", "found", ("…",))
NO_DS = LookUp(f"DS {ZONE}", "empty")
NO_CAA = CaaLookUp(NAME, LookUp(f"CAA {NAME}", "empty"))
ZONE_SEEN = ZoneSeen(ZONE, (SERVER,), SOA, NO_DS)
GOOD = NameSeen(
    dns_name=NAME,
    record_name=RECORD,
    caa=(NO_CAA,),
    zone=ZONE,
    look_ups=(),
    hops=(),
    chain_end="end",
    end=RECORD,
    wildcard=None,
    zone_seen=ZONE_SEEN,
    txt=(TxtSeen(SERVER.server, "absent"),),
)
WANTED = Wanted((NAME,), APPLICANT, "https://ca.example/directory", None, "active", PROVIDERS, None)


def is_public_suffix(name: str) -> bool:
    return name in {"example", "co.example"}


def report(seen: NameSeen = GOOD, wanted: Wanted = WANTED) -> Report:
    return judge(wanted, [seen], is_public_suffix)


def codes(seen: NameSeen = GOOD, wanted: Wanted = WANTED) -> Sequence[Code]:
    return [finding.code for finding in report(seen, wanted).findings]


def with_zone(**changes: object) -> NameSeen:
    return replace(GOOD, zone_seen=replace(ZONE_SEEN, **changes))  # type: ignore[arg-type]


def with_servers(*servers: ServerSeen) -> NameSeen:
    return with_zone(servers=servers)


def test_where_nothing_stands_in_the_way_an_order_may_be_placed() -> None:
    assert report() == Report(ready=True, findings=())


def test_only_an_error_stands_in_the_way() -> None:
    warned = report(with_servers(replace(SERVER, over_tcp=False)))
    assert [finding.severity for finding in warned.findings] == ["warning"]
    assert warned.ready
    assert not report(wanted=replace(WANTED, providers=())).ready


# --- the order as a whole ---


def test_an_account_that_cannot_order_is_told() -> None:
    (finding,) = report(wanted=replace(WANTED, standing="deactivated")).findings
    assert (finding.code, finding.domain, finding.evidence[0].answer) == ("account_not_active", None, "deactivated")


@pytest.mark.parametrize(
    ("ca", "profile", "count", "found"),
    [
        (LETS_ENCRYPT, "shortlived", 25, []),
        (LETS_ENCRYPT, "shortlived", 26, ["too_many_names"]),
        (LETS_ENCRYPT, "tlsserver", 26, ["too_many_names"]),
        (LETS_ENCRYPT, "classic", 100, []),
        (LETS_ENCRYPT, "classic", 101, ["too_many_names"]),
        (LETS_ENCRYPT, None, 101, ["too_many_names"]),
        (LETS_ENCRYPT, "unheard-of", 101, []),
        ("https://ca.example/directory", "shortlived", 101, []),
    ],
)
def test_only_where_it_is_known_how_many_names_are_taken_are_there_too_many(
    ca: str, profile: str | None, count: int, found: list[Code]
) -> None:
    wanted = replace(WANTED, directory_url=ca, profile=profile, dns_names=(NAME,) * count)
    assert codes(GOOD, wanted) == found


def test_a_limit_without_room_is_told_with_the_time_unless_an_order_runs_that_would_be_joined() -> None:
    limited = replace(WANTED, limit=("new_orders", NOW))
    (finding,) = report(wanted=limited).findings
    assert (finding.code, finding.severity) == ("rate_limited", "error")
    assert finding.evidence[0].answer == "no room before 2026-11-23T00:00:00Z"
    assert codes(wanted=replace(limited, running_order_id="acme_order_1")) == ["order_in_progress"]


# --- CAA ---


def test_a_name_and_its_wildcard_are_judged_by_caa_each_and_by_all_else_once() -> None:
    records = (CaaRecord(0, "issuewild", "other.example"),)
    seen = replace(
        with_servers(replace(SERVER, over_tcp=False)),
        caa=(CaaLookUp(NAME, LookUp(f"CAA {NAME}", "found", ('0 issuewild "other.example"',)), records),),
    )
    found = report(seen, replace(WANTED, dns_names=(NAME, f"*.{NAME}"))).findings
    assert [(finding.code, finding.domain) for finding in found] == [
        ("nameserver_no_tcp", NAME),
        ("caa_forbids", f"*.{NAME}"),
    ]


def test_where_the_ca_does_not_say_its_names_caa_is_left_to_the_reader() -> None:
    records = (CaaRecord(0, "issue", "ca.example"),)
    seen = replace(GOOD, caa=(CaaLookUp(NAME, LookUp(f"CAA {NAME}", "found", ("…",)), records),))
    assert codes(seen, replace(WANTED, applicant=replace(APPLICANT, identities=()))) == ["caa_identities_unknown"]


@pytest.mark.parametrize("status", ["failed", "refused", "unanswered"])
def test_caa_that_cannot_be_looked_up_forbids(status: str) -> None:
    seen = replace(GOOD, caa=(CaaLookUp(NAME, LookUp(f"CAA {NAME}", status)),))  # type: ignore[arg-type]
    assert codes(seen) == ["caa_lookup_failed"]


def test_caa_that_fails_for_dnssec_alone_is_told_as_that() -> None:
    bogus = LookUp(f"CAA {NAME}", "failed", unchecked="empty")
    (finding,) = report(replace(GOOD, caa=(CaaLookUp(NAME, bogus),))).findings
    assert finding.code == "dnssec_broken"
    assert finding.evidence[0].answer == "SERVFAIL, with checking disabled no such record"


# --- DNSSEC without a resolver that validates ---

DS = LookUp(f"DS {ZONE}", "found", ("…",))


def test_a_ds_without_a_dnskey_is_broken_whoever_checks() -> None:
    seen = with_zone(ds=DS, servers=(replace(SERVER, has_dnskey=False),))
    (finding,) = report(seen).findings
    assert finding.code == "dnssec_broken"
    assert finding.evidence[1].asked == f"DNSKEY {ZONE}"


def test_so_is_a_ds_of_another_key() -> None:
    assert codes(with_zone(ds=DS, servers=(replace(SERVER, has_dnskey=True),), keys_match=False)) == ["dnssec_broken"]


def test_where_nobody_vouches_for_the_signatures_nothing_is_claimed_of_them() -> None:
    seen = with_zone(ds=DS, servers=(replace(SERVER, has_dnskey=True),), keys_match=True)
    assert [(each.code, each.severity) for each in report(seen).findings] == [("dnssec_unverified", "info")]
    vouched = replace(SOA, authenticated=True)
    assert codes(with_zone(ds=DS, servers=(replace(SERVER, has_dnskey=True),), keys_match=True, soa=vouched)) == []


# --- servers ---


def test_servers_of_which_none_can_be_asked_from_here_are_not_called_silent() -> None:
    assert codes(with_servers(replace(SERVER, status="forbidden"))) == ["nameserver_not_asked"]
    assert codes(with_servers(replace(SERVER, status="no_route"))) == ["nameserver_not_asked"]


def test_servers_of_which_none_answers_are_silent() -> None:
    assert codes(with_servers(replace(SERVER, status="unanswered"), replace(SERVER, status="lame"))) == [
        "nameservers_silent"
    ]
    assert codes(with_servers()) == ["nameservers_silent"]


def test_one_bad_server_beside_a_good_one_is_told_alone() -> None:
    assert codes(with_servers(SERVER, replace(SERVER, status="lame"))) == ["nameserver_lame"]
    assert codes(with_servers(SERVER, replace(SERVER, status="no_address"))) == ["nameserver_unreachable"]


# --- aliases ---


def test_the_target_of_an_alias_is_managed_or_not() -> None:
    hop = Hop(RECORD, "x.auth.example")
    assert codes(replace(GOOD, hops=(hop,), end=hop.target)) == ["cname_target_managed"]
    hop = Hop(RECORD, "x.other.example")
    assert codes(replace(GOOD, hops=(hop,), end=hop.target)) == ["cname_target_unmanaged"]


# --- values ---


@pytest.mark.parametrize(
    ("count", "octets", "found"),
    [
        (1, 1232, []),
        (1, 1233, ["txt_set_large"]),
        (51, 900, ["txt_set_large"]),
        (1, 4096, ["txt_set_large"]),
        (1, 4097, ["txt_set_too_large"]),
    ],
)
def test_a_set_of_values_may_be_large_or_too_large(count: int, octets: int, found: list[Code]) -> None:
    txt = TxtSeen(SERVER.server, "found", tuple(f"{number:03}" for number in range(count)), octets)
    assert codes(replace(GOOD, txt=(txt,))) == found


def test_of_many_values_that_differ_only_the_first_are_shown() -> None:
    many = TxtSeen("a", "found", tuple(f"{number:03}" for number in range(9)), 900)
    (finding,) = report(replace(GOOD, txt=(many, TxtSeen("b", "absent")))).findings
    assert [each.answer for each in finding.evidence] == ["9 values: 000, 001, 002, 003, 004, …", "no value"]


# --- zones and time ---


def test_a_name_straight_in_a_registrys_zone_is_not_delegated() -> None:
    assert codes(replace(GOOD, zone="example")) == ["zone_not_delegated"]
    assert codes(replace(GOOD, zone="co.example")) == ["zone_not_delegated"]
    assert codes(replace(GOOD, zone="")) == ["zone_not_delegated"]


def test_a_cut_below_the_managed_zone_is_told_unless_the_service_answers_itself() -> None:
    cut = replace(GOOD, zone=NAME)
    assert codes(cut) == ["zone_cut_below"]
    assert codes(cut, replace(WANTED, embedded_ids=frozenset({"dnsp_1"}))) == []
    nearer = (ManagedZones("dnsp_1", (ZONE, NAME), NOW),)
    assert codes(cut, replace(WANTED, providers=nearer)) == []


def test_what_there_was_no_time_for_is_an_error() -> None:
    late = LookUp(f"SOA {RECORD}", "not_asked")
    assert codes(replace(GOOD, look_ups=(late,), zone=None, zone_seen=None, txt=())) == ["incomplete"]
    assert codes(with_servers(replace(SERVER, status="not_asked"))) == ["incomplete"]
    assert codes(replace(GOOD, txt=(TxtSeen(SERVER.server, "not_asked"),))) == ["incomplete"]
    assert codes(replace(GOOD, caa=(CaaLookUp(NAME, replace(late, question="CAA x")),))) == ["incomplete"]


# --- the document ---


def test_every_code_has_its_rule_and_one_sentence_as_remedy() -> None:
    assert list(RULES) == list(get_args(Code))
    for rule in RULES.values():
        assert re.fullmatch(r"[A-Z][^.]*\.", rule.remedy), rule.remedy


def test_the_document_has_each_code_with_its_severity_meaning_and_remedy() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert rows == [(code, *rule) for code, rule in RULES.items()]
