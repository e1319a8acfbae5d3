"""What stands in the way of an order, judged from what is known of its account and was seen in DNS (`dns_survey.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from domain.caa import Applicant, CaaRecord, Verdict, verdict_of
from domain.dns_provider import ManagedZones, provider_for
from domain.dns_survey import CaaLookUp, Hop, LookUp, NameSeen, ServerSeen, ServerStatus, TxtSeen, ZoneSeen
from domain.names import WILDCARD, base_name, zone_covers
from domain.rate_limit import LETS_ENCRYPT, LETS_ENCRYPT_STAGING

Severity = Literal["error", "warning", "info"]
Code = Literal[
    "account_not_active",
    "too_many_names",
    "rate_limited",
    "order_in_progress",
    "zone_not_managed",
    "zone_not_delegated",
    "zone_cut_below",
    "lookup_failed",
    "incomplete",
    "caa_forbids",
    "caa_account_mismatch",
    "caa_method_mismatch",
    "caa_critical_unknown",
    "caa_lookup_failed",
    "caa_identities_unknown",
    "dnssec_broken",
    "dnssec_unverified",
    "nameservers_silent",
    "nameserver_unreachable",
    "nameserver_lame",
    "nameserver_no_tcp",
    "nameserver_not_asked",
    "serials_differ",
    "answers_differ",
    "cname_loop",
    "cname_too_long",
    "cname_dangling",
    "cname_target_unmanaged",
    "cname_target_managed",
    "wildcard_catches_challenge",
    "wildcard_shadowing",
    "txt_set_large",
    "txt_set_too_large",
]


class Rule(NamedTuple):
    """What a code says: how bad it is, what it means, and what to do about it."""

    severity: Severity
    meaning: str
    remedy: str


RULES: Mapping[Code, Rule] = {
    "account_not_active": Rule(
        "error", "The account cannot order.", "Use another account, or register a new one at the CA."
    ),
    "too_many_names": Rule(
        "error",
        "The CA takes fewer names in one certificate of this profile.",
        "Spread the names over several certificates, or choose a profile that takes more.",
    ),
    "rate_limited": Rule(
        "error",
        "By the ledger, or by its own word, the CA would refuse the order for a rate limit.",
        "Order again after the time given.",
    ),
    "order_in_progress": Rule(
        "info",
        "An order of this account for just these names is in progress; ordering gives that one.",
        "Follow the order that is in progress.",
    ),
    "zone_not_managed": Rule(
        "error",
        "The name lies in no connected provider's managed zones.",
        "Connect a DNS provider whose managed zones cover the name.",
    ),
    "zone_not_delegated": Rule(
        "error",
        "No zone below a public suffix or top-level domain holds the name: the CA will find no record there.",
        "Register the domain, and have its zone delegated to its name servers.",
    ),
    "zone_cut_below": Rule(
        "warning",
        "The name lies in a zone of its own below the managed zone, which the provider may not serve.",
        "Connect a provider with that zone among its managed zones, or check that this one serves it too.",
    ),
    "lookup_failed": Rule(
        "error",
        "The resolvers cannot look the name up, whether they check DNSSEC or not.",
        "Repair the zone's delegation and name servers, or the resolvers themselves where nothing at all answers.",
    ),
    "incomplete": Rule(
        "error",
        "There was no time to look at everything, so that nothing can be said for the name.",
        "Ask again, or for fewer names at a time.",
    ),
    "caa_forbids": Rule(
        "error",
        "The relevant CAA records let other CAs issue, or none.",
        "Add a CAA record `issue` (for wildcards `issuewild`, where there is one) that names this CA.",
    ),
    "caa_account_mismatch": Rule(
        "error",
        "CAA lets the CA issue to other accounts only (`accounturi`, RFC 8657).",
        "Put this account's URL into `accounturi`, or use the account that is named there.",
    ),
    "caa_method_mismatch": Rule(
        "error",
        "CAA lets the CA issue by other validation methods only (`validationmethods`, RFC 8657).",
        "Add the method to `validationmethods`.",
    ),
    "caa_critical_unknown": Rule(
        "error",
        "A CAA record with a tag that CAs do not know is marked critical, which forbids them all to issue.",
        "Correct the tag, or clear the critical flag (128).",
    ),
    "caa_lookup_failed": Rule(
        "error",
        "The CAA records cannot be looked up, which a CA must take for a no.",
        "Have the zone's name servers answer questions for CAA, if only with no such record.",
    ),
    "caa_identities_unknown": Rule(
        "warning",
        "CAA names who may issue, and the CA's directory does not say by which names it goes (`caaIdentities`).",
        "Compare the CAA records with what the CA's documentation says.",
    ),
    "dnssec_broken": Rule(
        "error",
        "The zone's DNSSEC does not validate: a CA gets no answer at all about its names.",
        "Sign the zone anew and put the DS of its key into the zone above, or remove the DS there.",
    ),
    "dnssec_unverified": Rule(
        "info",
        "The zone above says that this one is signed, but the resolvers do not vouch for it: either they do not check, or a"
        " zone further up is not signed. Whether the signatures are good is not known.",
        "Let SCAIVAULT_DNS_RESOLVERS name resolvers that validate.",
    ),
    "nameservers_silent": Rule(
        "error",
        "None of the zone's name servers answers for it.",
        "Bring the name servers back, or delegate the zone to others.",
    ),
    "nameserver_unreachable": Rule(
        "warning",
        "A name server of the zone does not answer, or its name has no address.",
        "Bring the server back, or take it out of the zone's NS records and the delegation.",
    ),
    "nameserver_lame": Rule(
        "warning",
        "A name server that the zone names does not serve the zone.",
        "Set the zone up on the server, or take it out of the zone's NS records and the delegation.",
    ),
    "nameserver_no_tcp": Rule(
        "warning",
        "A name server does not answer over TCP, by which large answers must come (RFC 7766).",
        "Open port 53 for TCP to the server.",
    ),
    "nameserver_not_asked": Rule(
        "info",
        "A name server's address may not be dialled from here, or there is no route to it: nothing is known of it.",
        "Check the server from elsewhere, or allow its network in SCAIVAULT_EGRESS_ALLOW.",
    ),
    "serials_differ": Rule(
        "warning",
        "The name servers have different versions of the zone: a change reaches some later, or never.",
        "Check the transfers from the primary to the server with the lower serial.",
    ),
    "answers_differ": Rule(
        "warning",
        "The name servers answer differently for the challenge's record.",
        "Have all name servers serve the same zone, and split-horizon views the same challenge records.",
    ),
    "cname_loop": Rule(
        "error",
        "The aliases of the challenge's record run in a circle.",
        "Remove the CNAME at the challenge's name, or point it to a name without one.",
    ),
    "cname_too_long": Rule(
        "error",
        "The challenge's record has more than eight aliases in a row.",
        "Point the CNAME at the challenge's name straight to where the last one leads.",
    ),
    "cname_dangling": Rule(
        "error",
        "The alias of the challenge's record leads to a name that no zone holds.",
        "Remove the CNAME at the challenge's name, or point it into a zone that exists.",
    ),
    "cname_target_unmanaged": Rule(
        "error",
        "The alias of the challenge's record leads into a zone that no connected provider manages.",
        "Connect a provider that manages the target's zone, or remove the CNAME.",
    ),
    "cname_target_managed": Rule(
        "info",
        "The alias of the challenge's record leads into a zone that a connected provider manages: the value is written there.",
        "Keep the target's zone connected for as long as the CNAME is there.",
    ),
    "wildcard_catches_challenge": Rule(
        "warning",
        "A wildcard record answers for the challenge's name: whoever asks before the value is out, or from a cache, gets the"
        " wildcard's.",
        "Narrow the wildcard, or keep its TTL short.",
    ),
    "wildcard_shadowing": Rule(
        "warning",
        "The name lives by a wildcard: while a challenge value stands below it the name exists on its own, and the wildcard"
        " does not answer for it (RFC 4592 §2.2.2).",
        "Write the name's own records beside the wildcard.",
    ),
    "txt_set_large": Rule(
        "warning",
        "There are so many TXT values at the challenge's name that answers do not fit into one datagram.",
        "Remove the values that nobody needs any more.",
    ),
    "txt_set_too_large": Rule(
        "error",
        "There are so many TXT values at the challenge's name that CAs refuse the answer.",
        "Remove the values that nobody needs any more.",
    ),
}

LETS_ENCRYPT_MOST_NAMES = {"classic": 100, "tlsserver": 25, "shortlived": 25}
MOST_NAMES: Mapping[str, Mapping[str, int]] = {
    LETS_ENCRYPT: LETS_ENCRYPT_MOST_NAMES,
    LETS_ENCRYPT_STAGING: LETS_ENCRYPT_MOST_NAMES,
}
"""By the directory's URL and the profile (https://letsencrypt.org/docs/profiles/, July 2026); others are not known."""
DEFAULT_PROFILE = "classic"

LARGE_OCTETS, TOO_LARGE_OCTETS = 1232, 4096
"""What passes in one datagram everywhere, and the most that resolvers offer to take in one."""
MANY_VALUES = 50
MOST_SHOWN = 5
RESOLVERS = "the resolvers"


@dataclass(frozen=True)
class Evidence:
    """What was asked, of whom, and what came."""

    asked: str
    of: str
    answer: str


@dataclass(frozen=True)
class Finding:
    """`domain` is a name of the order, None where it is about the order as a whole."""

    code: Code
    severity: Severity
    domain: str | None
    evidence: tuple[Evidence, ...]
    remedy: str


@dataclass(frozen=True)
class Report:
    """`ready`: there is no finding that is an error."""

    ready: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Wanted:
    """The order as it would be placed, and what the service knows itself. `limit` is what has no room and until when;
    `standing` is the account's, `active` where it can order; `embedded_ids` are the providers for which the service answers
    itself."""

    dns_names: tuple[str, ...]
    applicant: Applicant
    directory_url: str
    profile: str | None
    standing: str
    providers: tuple[ManagedZones, ...]
    dns_provider_id: str | None
    embedded_ids: frozenset[str] = frozenset()
    limit: tuple[str, datetime] | None = None
    running_order_id: str | None = None


def judge(wanted: Wanted, seen: Sequence[NameSeen], is_public_suffix: Callable[[str], bool]) -> Report:
    """First what concerns the order as a whole, then name by name. `seen` has each base name once."""
    by_name = {each.dns_name: each for each in seen}
    findings = list(_of_the_order(wanted))
    told: set[str] = set()
    for dns_name in wanted.dns_names:
        if provider_for(dns_name, wanted.providers, wanted.dns_provider_id) is None:
            # Which zones there are is for those to know who may list the providers.
            findings.append(
                _finding("zone_not_managed", dns_name, Evidence("managed zones", "the providers", "none covers it"))
            )
        name = by_name[base_name(dns_name)]
        findings += _of_caa(name, dns_name, wanted.applicant)
        if name.dns_name not in told:  # a name and its wildcard have one challenge record
            told.add(name.dns_name)
            findings += _of_the_name(name, dns_name, wanted, is_public_suffix)
    return Report(all(finding.severity != "error" for finding in findings), tuple(findings))


def _finding(code: Code, domain: str | None, *evidence: Evidence) -> Finding:
    rule = RULES[code]
    return Finding(code, rule.severity, domain, evidence, rule.remedy)


def _by_resolvers(*look_ups: LookUp) -> Sequence[Evidence]:
    return [Evidence(each.question, RESOLVERS, each.text) for each in look_ups]


# --- the order as a whole --------------------------------------------------------------------------------------------


def _of_the_order(wanted: Wanted) -> Iterator[Finding]:
    if wanted.standing != "active":
        yield _finding("account_not_active", None, Evidence("status", "the account", wanted.standing))
    most = MOST_NAMES.get(wanted.directory_url, {}).get(wanted.profile or DEFAULT_PROFILE)
    if most is not None and len(wanted.dns_names) > most:
        said = f"{len(wanted.dns_names)}, and at most {most} are taken"
        yield _finding(
            "too_many_names", None, Evidence("names", f"the profile {wanted.profile or DEFAULT_PROFILE}", said)
        )
    if wanted.running_order_id is not None:
        yield _finding("order_in_progress", None, Evidence("running order", "the orders", wanted.running_order_id))
    elif wanted.limit is not None:
        limit, ready_at = wanted.limit
        said = f"no room before {ready_at:%Y-%m-%dT%H:%M:%SZ}"
        yield _finding("rate_limited", None, Evidence(f"rate limit {limit}", "the ledger", said))


# --- CAA -------------------------------------------------------------------------------------------------------------

VERDICTS: Mapping[Verdict, Code | None] = {
    "allowed": None,
    "forbidden": "caa_forbids",
    "other_account": "caa_account_mismatch",
    "other_method": "caa_method_mismatch",
    "critical_unknown": "caa_critical_unknown",
    "issuer_unknown": "caa_identities_unknown",
}


def _of_caa(name: NameSeen, dns_name: str, applicant: Applicant) -> Iterator[Finding]:
    """What decides is the last step of the climb (RFC 8659 §3)."""
    if not name.caa:
        return
    *_, last = name.caa
    evidence = [_caa_evidence(step) for step in name.caa]
    if last.look_up.status in {"failed", "refused", "unanswered"}:
        if not last.look_up.is_bogus:  # that is told as broken DNSSEC
            yield _finding("caa_lookup_failed", dns_name, *evidence)
        return
    code = VERDICTS[verdict_of(last.records, applicant, wildcard=dns_name.startswith(WILDCARD))]
    if code is None:
        return
    if code == "caa_account_mismatch":
        evidence.append(Evidence("account URL", "the account", applicant.account_url))
    elif code == "caa_forbids":
        identities = ", ".join(applicant.identities) or "not told"
        evidence.append(Evidence("caaIdentities", "the CA's directory", identities))
    elif code == "caa_method_mismatch":
        evidence.append(Evidence("challenge_type", "the order", applicant.method))
    yield _finding(code, dns_name, *evidence)


def _caa_evidence(step: CaaLookUp) -> Evidence:
    said = ", ".join(sorted(_caa_text(record) for record in step.records)) if step.records else step.look_up.text
    return Evidence(step.look_up.question, RESOLVERS, said)


def _caa_text(record: CaaRecord) -> str:
    return record.text


# --- a name ----------------------------------------------------------------------------------------------------------


def _of_the_name(
    name: NameSeen, dns_name: str, wanted: Wanted, is_public_suffix: Callable[[str], bool]
) -> Iterator[Finding]:
    zone = name.zone_seen
    every = [*(step.look_up for step in name.caa), *name.look_ups, *([zone.soa, zone.ds] if zone else [])]
    missed = [look_up for look_up in every if look_up.status == "not_asked"]
    unasked = [each.server for each in (zone.servers if zone else ()) if each.status == "not_asked"]
    if missed or unasked or any(each.status == "not_asked" for each in name.txt):
        yield _finding("incomplete", dns_name, *_by_resolvers(*missed[:3]))
    yield from _of_dnssec(zone, [look_up for look_up in every if look_up.is_bogus], dns_name)
    failed = [
        look_up
        for look_up in name.look_ups
        if look_up.status in {"failed", "refused", "unanswered"} and not look_up.is_bogus
    ]
    if failed:
        yield _finding("lookup_failed", dns_name, *_by_resolvers(*failed))
    if name.zone is not None and _holds_no_names(name.zone, is_public_suffix):
        said = f"the nearest zone is {name.zone or 'the root'}"
        yield _finding("zone_not_delegated", dns_name, Evidence(f"SOA {name.record_name}", RESOLVERS, said))
        return  # what the registry's own servers say of it is nobody's here
    yield from _of_the_cut(name, dns_name, wanted)
    yield from _of_aliases(name, dns_name, wanted, is_public_suffix)
    yield from _of_wildcard(name, dns_name)
    if zone is not None and not _holds_no_names(zone.apex, is_public_suffix):
        yield from _of_servers(zone, dns_name)
    yield from _of_txt(name, dns_name)


def _holds_no_names(apex: str, is_public_suffix: Callable[[str], bool]) -> bool:
    """Whether a zone is one under which others register: what lies straight in it is not delegated."""
    return "." not in apex or is_public_suffix(apex)


def _of_the_cut(name: NameSeen, dns_name: str, wanted: Wanted) -> Iterator[Finding]:
    provider_id = provider_for(dns_name, wanted.providers, wanted.dns_provider_id)
    if name.zone is None or provider_id is None or provider_id in wanted.embedded_ids:
        return  # to the service's own name server each challenge name may be delegated alone
    zones = [zone for each in wanted.providers if each.dns_provider_id == provider_id for zone in each.managed_zones]
    nearest = max((zone for zone in zones if zone_covers(zone, dns_name)), key=len)
    if name.zone.endswith("." + base_name(nearest)):
        yield _finding(
            "zone_cut_below",
            dns_name,
            Evidence(f"SOA {name.record_name}", RESOLVERS, f"the nearest zone is {name.zone}"),
            Evidence("managed zone", "the provider", nearest),
        )


# --- aliases and wildcards -------------------------------------------------------------------------------------------


def _of_aliases(
    name: NameSeen, dns_name: str, wanted: Wanted, is_public_suffix: Callable[[str], bool]
) -> Iterator[Finding]:
    if not name.hops or _is_caught(name):
        return
    evidence = [_hop_evidence(hop) for hop in name.hops]
    if name.chain_end == "loop":
        yield _finding("cname_loop", dns_name, *evidence)
        return
    if name.chain_end == "too_long":
        yield _finding("cname_too_long", dns_name, *evidence)
        return
    if name.chain_end == "unknown":
        return  # the look-up that failed has a finding of its own
    if name.zone_seen is not None and _holds_no_names(name.zone_seen.apex, is_public_suffix):
        nearest = f"the nearest zone is {name.zone_seen.apex or 'the root'}"
        yield _finding("cname_dangling", dns_name, *evidence, Evidence(f"SOA {name.end}", RESOLVERS, nearest))
        return
    provider_id = provider_for(name.end, wanted.providers, wanted.dns_provider_id)
    if provider_id is None:
        yield _finding(
            "cname_target_unmanaged", dns_name, *evidence, Evidence(f"who manages {name.end}", "the providers", "none")
        )
        return
    yield _finding("cname_target_managed", dns_name, *evidence)


def _hop_evidence(hop: Hop) -> Evidence:
    via = f" (by the DNAME at {hop.dname})" if hop.dname is not None else ""
    return Evidence(f"CNAME {hop.owner}", RESOLVERS, hop.target + via)


def _is_caught(name: NameSeen) -> bool:
    """Whether the alias is a wildcard's. It gives way to a value that is written at the name itself."""
    wildcard = name.wildcard
    first = name.hops[0] if name.hops else None
    return wildcard is not None and first is not None and first.target == wildcard.cname_target and first.dname is None


def _of_wildcard(name: NameSeen, dns_name: str) -> Iterator[Finding]:
    wildcard = name.wildcard
    if wildcard is None:
        return
    seen = Evidence(wildcard.owner, RESOLVERS, ", ".join(wildcard.types))
    if _is_caught(name):
        yield _finding("wildcard_catches_challenge", dns_name, seen, _hop_evidence(name.hops[0]))
    elif not name.hops and wildcard.txt and any(each.values == wildcard.txt for each in name.txt):
        said = f"{_count(wildcard.txt)}, the wildcard's"
        yield _finding(
            "wildcard_catches_challenge", dns_name, seen, Evidence(f"TXT {name.record_name}", "the name servers", said)
        )
    if wildcard.owner != WILDCARD + name.dns_name:
        probe = f"a name that nobody wrote below {name.dns_name}"
        yield _finding("wildcard_shadowing", dns_name, seen, Evidence(probe, RESOLVERS, "the wildcard's answer"))


# --- the zone and its servers ----------------------------------------------------------------------------------------


def _of_dnssec(zone: ZoneSeen | None, bogus: Sequence[LookUp], dns_name: str) -> Iterator[Finding]:
    if bogus:
        yield _finding("dnssec_broken", dns_name, *_by_resolvers(*dict.fromkeys(bogus)))
        return
    if zone is None or zone.ds.status != "found":
        return
    keyed = [each for each in zone.servers if each.has_dnskey is not None]
    keyless = [each for each in keyed if not each.has_dnskey]
    if keyless:
        without = [Evidence(f"DNSKEY {zone.apex}", each.server, STATUS_NO_KEY) for each in keyless]
        yield _finding("dnssec_broken", dns_name, *_by_resolvers(zone.ds), *without)
    elif zone.keys_match is False:
        said = "none whose digest is that of the DS"
        yield _finding(
            "dnssec_broken",
            dns_name,
            *_by_resolvers(zone.ds),
            Evidence(f"DNSKEY {zone.apex}", "the name servers", said),
        )
    elif zone.soa.status in {"found", "empty"} and not zone.soa.authenticated:
        yield _finding(
            "dnssec_unverified",
            dns_name,
            *_by_resolvers(zone.ds),
            Evidence(zone.soa.question, RESOLVERS, "an answer without the AD flag"),
        )


STATUS_NO_KEY = "no such record"
BY_STATUS: Mapping[ServerStatus, Code] = {
    "lame": "nameserver_lame",
    "unanswered": "nameserver_unreachable",
    "no_address": "nameserver_unreachable",
    "no_route": "nameserver_not_asked",
    "forbidden": "nameserver_not_asked",
}


def _of_servers(zone: ZoneSeen, dns_name: str) -> Iterator[Finding]:
    good = [each for each in zone.servers if each.status == "authoritative"]
    if not good and all(each.status in {"lame", "unanswered", "no_address"} for each in zone.servers):
        said = [_soa_evidence(zone, each) for each in zone.servers]
        nobody = Evidence(f"NS {zone.apex}", RESOLVERS, "none")
        yield _finding("nameservers_silent", dns_name, *(said or [nobody]))
        return
    for each in zone.servers:
        code = BY_STATUS.get(each.status)
        if code is not None:
            yield _finding(code, dns_name, _soa_evidence(zone, each))
    for each in good:
        if each.over_tcp is False:
            yield _finding(
                "nameserver_no_tcp", dns_name, Evidence(f"SOA {zone.apex} over TCP", each.server, "no answer")
            )
    if len({each.serial for each in good}) > 1:
        yield _finding("serials_differ", dns_name, *(_soa_evidence(zone, each) for each in good))


def _soa_evidence(zone: ZoneSeen, server: ServerSeen) -> Evidence:
    return Evidence(f"SOA {zone.apex}", server.server, server.said)


def _of_txt(name: NameSeen, dns_name: str) -> Iterator[Finding]:
    answered = [each for each in name.txt if each.status in {"found", "empty", "absent"}]
    if len({each.values for each in answered}) > 1:
        yield _finding(
            "answers_differ",
            dns_name,
            *(Evidence(f"TXT {name.end}", each.server, _values_text(each)) for each in answered),
        )
    largest = max(answered, key=lambda each: each.octets, default=None)
    if largest is None:
        return
    said = f"{_count(largest.values)}, {largest.octets} octets"
    evidence = Evidence(f"TXT {name.end}", largest.server, said)
    if largest.octets > TOO_LARGE_OCTETS:
        yield _finding("txt_set_too_large", dns_name, evidence)
    elif largest.octets > LARGE_OCTETS or len(largest.values) > MANY_VALUES:
        yield _finding("txt_set_large", dns_name, evidence)


def _values_text(seen: TxtSeen) -> str:
    shown = ", ".join(seen.values[:MOST_SHOWN]) + (", …" if len(seen.values) > MOST_SHOWN else "")
    return f"{_count(seen.values)}: {shown}" if seen.values else "no value"


def _count(values: Sequence[str]) -> str:
    return "1 value" if len(values) == 1 else f"{len(values)} values"
