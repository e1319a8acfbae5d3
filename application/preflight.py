"""What an order would meet, without placing it: nothing is recorded, no CA is asked and no provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from application.caller import Caller
from application.event_store import EventStore
from application.orders import Directory, require_challenge_type, require_profile, wanted_key
from application.ports import DnsSurvey, Ids, PublicSuffixes
from application.provider_config import common_config
from application.rate_limits import RateLimits
from domain.account import Account
from domain.caa import Applicant
from domain.dns_provider import DnsProvider, provider_for
from domain.errors import CaLimitReached
from domain.names import base_name, names_for_certificate
from domain.order import KeyType
from domain.preflight import Report, Wanted, judge

EMBEDDED = "embedded"


class Preflight:
    def __init__(
        self,
        store: EventStore,
        directory: Directory,
        suffixes: PublicSuffixes,
        rate_limits: RateLimits,
        survey: DnsSurvey,
        ids: Ids,
    ) -> None:
        self._store = store
        self._directory = directory
        self._suffixes = suffixes
        self._rate_limits = rate_limits
        self._survey = survey
        self._ids = ids

    def look(
        self,
        *,
        account_id: str,
        domains: Sequence[str],
        challenge_type: str,
        key_type: KeyType | None,
        csr_pem: str | None,
        profile: str | None,
        dns_provider_id: str | None,
        caller: Caller,
    ) -> Report:
        """Raises what placing the order would of its words: InvalidFields, NotFound (account, provider), Denied."""
        dns_names = names_for_certificate(domains, self._suffixes.is_public_suffix)
        require_challenge_type(challenge_type, dns_names)
        account = self._store.load(Account, account_id, caller.tenant_id)
        caller.require_names(dns_names)
        caller.require_certificate(self._ids.new("cert"))  # whose token begins no lines has nothing to prepare
        require_profile(account, profile)
        wanted_key(csr_pem, key_type, dns_names)
        if dns_provider_id is not None:
            self._store.load(DnsProvider, dns_provider_id, caller.tenant_id)
        managed = tuple(self._directory.managed_zones(caller.tenant_id))
        chosen = {name: provider_for(name, managed, dns_provider_id) for name in dns_names}
        providers = {
            provider_id: self._store.load(DnsProvider, provider_id, caller.tenant_id)
            for provider_id in dict.fromkeys(each for each in chosen.values() if each is not None)
        }
        running = self._directory.running_order(account_id, dns_names)
        wanted = Wanted(
            dns_names=dns_names,
            applicant=Applicant(account.offer.caa_identities, account.account_url, challenge_type),
            directory_url=account.directory_url,
            profile=profile,
            standing=account.status,
            providers=managed,
            dns_provider_id=dns_provider_id,
            embedded_ids=frozenset(each.id for each in providers.values() if each.provider_type == EMBEDDED),
            limit=self._limit(account, dns_names) if running is None else None,
            running_order_id=running,
        )
        base_names = list(dict.fromkeys(map(base_name, dns_names)))
        seen = self._survey.look(base_names, _nameservers(chosen, providers))
        return judge(wanted, seen, self._suffixes.is_public_suffix)

    def _limit(self, account: Account, dns_names: Sequence[str]) -> tuple[str, datetime] | None:
        try:
            self._rate_limits.require_room(self._rate_limits.cost(account, dns_names))
        except CaLimitReached as reached:
            return reached.bucket.limit, reached.ready_at
        return None


def _nameservers(chosen: Mapping[str, str | None], providers: Mapping[str, DnsProvider]) -> Mapping[str, Sequence[str]]:
    """By base name those that its provider's settings name to be asked."""
    return {
        base_name(name): common_config(providers[provider_id].config).nameservers
        for name, provider_id in chosen.items()
        if provider_id is not None
    }
