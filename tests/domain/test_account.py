from __future__ import annotations

from datetime import UTC, datetime

from domain.account import Account, Offer, Profile
from tests.domain.recorded import recorded

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OFFER = Offer(
    ari=True,
    profiles=(Profile("tlsserver", "https://ca.example/profiles#tlsserver"),),
    eab_required=False,
    caa_identities=("ca.example",),
)


def test_an_account_is_registered_as_the_ca_answered() -> None:
    account = Account.register(
        "acme_staging_1",
        tenant_id="tnt_default",
        name="staging",
        provider="letsencrypt",
        environment="staging",
        email="ops@acme.example",
        directory_url="https://ca.example/directory",
        ca_bundle_pem=None,
        account_url="https://ca.example/acct/1",
        sealed_key_id="sealed_1",
        key_thumbprint="NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        offer=OFFER,
        now=NOW,
    )
    assert recorded(account, NOW) == [
        (
            Account.Registered,
            {
                "tenant_id": "tnt_default",
                "name": "staging",
                "provider": "letsencrypt",
                "environment": "staging",
                "email": "ops@acme.example",
                "directory_url": "https://ca.example/directory",
                "ca_bundle_pem": None,
                "account_url": "https://ca.example/acct/1",
                "sealed_key_id": "sealed_1",
                "key_thumbprint": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
                "offer": OFFER,
            },
        )
    ]
    assert (account.id, account.account_url, account.offer) == ("acme_staging_1", "https://ca.example/acct/1", OFFER)
