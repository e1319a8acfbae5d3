from __future__ import annotations

import pytest

from domain.challenge import dns01_record_name, dns01_record_value

THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"  # RFC 7638 §3.1


def test_the_value_goes_below_the_challenge_label() -> None:
    assert dns01_record_name("www.acme.example") == "_acme-challenge.www.acme.example"


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", "ZTRx1Ckl1-tM05o5zaizTTA0yUy5AGereMgSNWC6Ll8"),
        ("DGyRejmCefe7v4NfDGDKfA", "Bs72Q7B-BSSQo4oDjA2qBR07GB6sc3hiG9zqaqvHx7U"),
    ],
)
def test_the_value_is_the_digest_of_the_key_authorization(token: str, value: str) -> None:
    """Each by `printf %s "$token.$thumbprint" | openssl dgst -sha256 -binary | basenc --base64url | tr -d =`."""
    assert dns01_record_value(token, THUMBPRINT) == value
