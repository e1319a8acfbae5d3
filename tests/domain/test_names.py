from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import FieldProblem, InvalidFields
from domain.names import (
    MOST_NAMES,
    any_glob_takes,
    base_name,
    name_matches,
    names_for_certificate,
    normalise_dns_name,
    normalise_name_glob,
    zone_covers,
)

LABEL_63 = "a" * 63
NAME_253 = ".".join([LABEL_63, LABEL_63, LABEL_63, "a" * 61])
WILDCARD_253 = "*." + ".".join([LABEL_63, LABEL_63, LABEL_63, "a" * 59])


def is_public_suffix(dns_name: str) -> bool:
    return dns_name in {"co.uk", "com"}


def problems_of(*texts: str) -> list[tuple[str, str]]:
    with pytest.raises(InvalidFields) as refusal:
        names_for_certificate(texts, is_public_suffix)
    return [(problem.field, problem.code) for problem in refusal.value.fields]


@pytest.mark.parametrize(
    ("text", "dns_name"),
    [
        ("acme.example", "acme.example"),
        ("WWW.Acme.Example", "www.acme.example"),
        ("acme.example.", "acme.example"),
        ("*.acme.example", "*.acme.example"),
        ("*.ACME.example.", "*.acme.example"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("*.Bücher.example", "*.xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("日本語\u3002example", "xn--wgv71a119e.example"),
        ("acme\uff0eexample\uff61", "acme.example"),
        ("a\u00adcme.example", "acme.example"),
        ("1.acme.example", "1.acme.example"),
        (LABEL_63 + ".example", LABEL_63 + ".example"),
        (NAME_253, NAME_253),
        (NAME_253 + ".", NAME_253),
        (WILDCARD_253, WILDCARD_253),
    ],
)
def test_a_name_is_written_in_one_form(text: str, dns_name: str) -> None:
    assert normalise_dns_name(text) == dns_name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no valid DNS name"),
        (".", "no valid DNS name"),
        ("*.", "no valid DNS name"),
        (".acme.example", "no valid DNS name"),
        ("acme..example", "no valid DNS name"),
        ("acme.example..", "no valid DNS name"),
        ("com..", "no valid DNS name"),
        ("acme.example\u3002\u3002", "no valid DNS name"),
        ("acme example.com", "no valid DNS name"),
        ("acme.example\n", "no valid DNS name"),
        ("_dmarc.acme.example", "no valid DNS name"),
        ("-acme.example", "no valid DNS name"),
        ("acme-.example", "no valid DNS name"),
        ("ab--cd.example", "no valid DNS name"),
        ("xn--bcher-kva1.example", "no valid DNS name"),
        ("☃.example", "no valid DNS name"),
        ("acme.example:443", "no valid DNS name"),
        ("https://acme.example", "no valid DNS name"),
        ("someone@acme.example", "no valid DNS name"),
        ("::1", "no valid DNS name"),
        ("[::1]", "no valid DNS name"),
        ("\ud800.example", "no valid DNS name"),
        ("a" * 64 + ".example", "no valid DNS name"),
        (NAME_253 + "a", "no valid DNS name"),
        (WILDCARD_253 + "a", "longer than 253"),
        ("localhost", "two labels"),
        ("com.", "two labels"),
        ("*.com", "two labels"),
        ("192.0.2.1", "IP address"),
        ("192.0.2.1.", "IP address"),
        ("192.0.2.1..", "no valid DNS name"),
        ("\uff11\uff19\uff12.0.2.1", "IP address"),
        ("*.0.2.1", "IP address"),
        ("*", "wildcard"),
        ("*.*.acme.example", "wildcard"),
        ("www.*.acme.example", "wildcard"),
        ("w*.acme.example", "wildcard"),
        ("*acme.example", "wildcard"),
        ("\uff0a.acme.example", "no valid DNS name"),
    ],
)
def test_what_no_certificate_may_carry_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        normalise_dns_name(text)


@settings(deadline=None)
@given(
    st.text(max_size=20) | st.from_regex(r"(\*\.)?[A-Za-z0-9ßü_-]{1,8}([.\u3002][a-zü0-9]{0,8}){1,3}", fullmatch=True)
)
def test_a_normalised_name_is_its_own_normal_form(text: str) -> None:
    try:
        dns_name = normalise_dns_name(text)
    except ValueError:
        return
    assert normalise_dns_name(dns_name) == dns_name
    assert dns_name.isascii()
    assert not dns_name.endswith(".")


@pytest.mark.parametrize(
    ("dns_name", "base"), [("*.acme.example", "acme.example"), ("www.acme.example", "www.acme.example")]
)
def test_a_wildcard_is_authorized_at_the_name_below_which_it_stands(dns_name: str, base: str) -> None:
    assert base_name(dns_name) == base


@pytest.mark.parametrize(
    ("glob", "dns_name", "matches"),
    [
        ("acme.example", "acme.example", True),
        ("acme.example", "www.acme.example", False),
        ("acme.example", "acme-example", False),
        ("*.acme.example", "www.acme.example", True),
        ("*.acme.example", "a.b.acme.example", True),
        ("*.acme.example", "acme.example", False),
        ("*.acme.example", "www.acme.example.evil", False),
        ("*acme.example", "acme.example", True),
        ("*acme.example", "notacme.example", True),
        ("www?.acme.example", "www1.acme.example", True),
        ("www?.acme.example", "www.acme.example", False),
        ("www?.acme.example", "www12.acme.example", False),
        ("*", "acme.example", True),
        ("", "acme.example", False),
        ("[ab]cme.example", "acme.example", False),
        ("[ab]cme.example", "[ab]cme.example", True),
        ("a*b*c.example", "axbxbyc.example", True),
        ("a*b*c.example", "axcxb.example", False),
        ("a**e", "acme.example", True),
    ],
)
def test_in_a_glob_a_star_is_any_characters_and_a_question_mark_is_one(
    glob: str, dns_name: str, *, matches: bool
) -> None:
    assert name_matches(glob, dns_name) is matches
    assert any_glob_takes(["elsewhere.example", glob])(dns_name) is matches
    assert any_glob_takes([])(dns_name) is False


@settings(deadline=None)
@given(st.text("ab*?.", max_size=8), st.text("ab.", max_size=8))
def test_a_glob_takes_a_name_as_the_rule_says_character_by_character(glob: str, dns_name: str) -> None:
    def takes(glob: str, name: str) -> bool:
        if not glob:
            return not name
        if glob[0] == "*":
            return takes(glob[1:], name) or (bool(name) and takes(glob, name[1:]))
        return bool(name) and glob[0] in {"?", name[0]} and takes(glob[1:], name[1:])

    assert name_matches(glob, dns_name) is takes(glob, dns_name)


@pytest.mark.parametrize(
    ("text", "glob"),
    [
        ("*.ACME.example", "*.acme.example"),
        ("acme.example.", "acme.example"),
        ("*.Bücher.example", "*.xn--bcher-kva.example"),
        ("w?w*.faß.example", "w?w*.xn--fa-hia.example"),
        ("*\u3002日本語\uff0eexample", "*.xn--wgv71a119e.example"),
        ("XN--B*", "xn--b*"),
        ("*", "*"),
        ("_acme-challenge.*", "_acme-challenge.*"),
        ("a" * 253, "a" * 253),
    ],
)
def test_a_glob_is_written_in_the_form_in_which_names_are(text: str, glob: str) -> None:
    assert normalise_name_glob(text) == normalise_name_glob(glob) == glob


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[ab].example", "a label is"),
        ("[!a]*.example", "a label is"),
        ("", "a label is"),
        (".", "a label is"),
        ("a..example", "a label is"),
        ("a b.example", "a label is"),
        ("acme.example\n", "a label is"),
        ("b*ü.example", "in ASCII"),
        ("\uff0a.example", "in ASCII"),
        ("\u2047.example", "in ASCII"),
        ("☃.example", "no glob of DNS names"),
        ("\ud800", "no glob of DNS names"),
        ("a" * 254, "longer than 253"),
        ("日本語." * 20, "longer than 253"),
    ],
)
def test_what_can_take_no_name_is_no_glob(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        normalise_name_glob(text)


@pytest.mark.parametrize(
    ("glob", "matches"),
    [
        ("*.acme.example", True),
        ("*.example", True),
        ("*", True),
        ("www.acme.example", False),
        ("?.acme.example", False),
        ("?*.acme.example", False),
    ],
)
def test_a_wildcard_is_taken_by_a_glob_only_that_takes_every_label_in_its_place(glob: str, *, matches: bool) -> None:
    assert name_matches(glob, "*.acme.example") is matches


def test_names_keep_their_order_and_are_not_repeated() -> None:
    texts = ["www.acme.example", "Acme.example", "*.acme.example", "acme.example.", "WWW.acme.example"]
    assert names_for_certificate(texts, is_public_suffix) == ("www.acme.example", "acme.example", "*.acme.example")


def test_each_wrong_name_is_told_with_its_place() -> None:
    assert problems_of("acme.example", "a b", "co.uk", "*.co.uk", "10.0.0.1", "acme.co.uk") == [
        ("domains[1]", "invalid_name"),
        ("domains[2]", "public_suffix"),
        ("domains[3]", "public_suffix"),
        ("domains[4]", "invalid_name"),
    ]


def test_what_is_wrong_with_a_name_is_told_in_words() -> None:
    with pytest.raises(InvalidFields) as refusal:
        names_for_certificate(["*.co.uk", "localhost"], is_public_suffix)
    assert refusal.value.fields == (
        FieldProblem("domains[0]", "public_suffix", "co.uk is a public suffix"),
        FieldProblem("domains[1]", "invalid_name", "a name needs at least two labels"),
    )


def test_a_public_suffix_is_found_out_in_any_spelling() -> None:
    assert problems_of("CO.UK.") == [("domains[0]", "public_suffix")]


def test_no_name_at_all_is_refused() -> None:
    assert problems_of() == [("domains", "required")]


def test_a_hundred_names_fit_in_one_certificate() -> None:
    names = [f"n{number}.acme.example" for number in range(MOST_NAMES)]
    assert names_for_certificate(names, is_public_suffix) == tuple(names)
    assert problems_of(*names, "one-more.acme.example") == [("domains", "too_many")]


@pytest.mark.parametrize(
    ("managed_zone", "dns_name", "is_covered"),
    [
        ("acme.example", "acme.example", True),
        ("acme.example", "www.acme.example", True),
        ("acme.example", "a.b.acme.example", True),
        ("acme.example", "*.acme.example", True),
        ("acme.example", "notacme.example", False),
        ("acme.example", "example", False),
        ("acme.example", "acme.example.evil", False),
        ("*.acme.example", "acme.example", False),
        ("*.acme.example", "www.acme.example", True),
        ("*.acme.example", "a.b.acme.example", True),
        ("*.acme.example", "*.acme.example", True),
        ("*.acme.example", "*.www.acme.example", True),
        ("*.acme.example", "notacme.example", False),
    ],
)
def test_a_zone_covers_itself_and_what_is_below_and_a_wildcard_only_what_is_below(
    managed_zone: str, dns_name: str, is_covered: bool
) -> None:
    assert zone_covers(managed_zone, dns_name) is is_covered


def test_a_managed_zone_is_written_as_a_name_is() -> None:
    assert normalise_dns_name("*.Bücher.example.") == "*.xn--bcher-kva.example"
    with pytest.raises(ValueError, match="two labels"):
        normalise_dns_name("example")
