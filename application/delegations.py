"""Challenges whose names are aliases: `_acme-challenge` may lead by CNAME into a zone that exists for nothing else, and the
value is written there."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from application.dns_providers import DnsProviders
from application.errors import ResolverFailed
from application.orders import Directory
from application.ports import Alias, Resolver
from application.provider_config import CommonConfig, common_config
from domain.challenge import dns01_record_name
from domain.dns_provider import provider_for
from domain.names import base_name
from domain.order import Home, Order

MOST_LOOKS = 5  # over some 15 s


class Delegations:
    def __init__(self, directory: Directory, providers: DnsProviders, resolver: Resolver) -> None:
        self._directory = directory
        self._providers = providers
        self._resolver = resolver

    def homes(self, order: Order, base_names: Collection[str]) -> Mapping[str, Home]:
        """Of those names that have one elsewhere. A name that nobody could look up for long is taken for no alias, and at
        once where the provider's settings have us ask nobody (`skip`). Raises ResolverFailed: to be asked again."""
        homes: dict[str, Home] = {}
        for provider_id, names in self._by_provider(order, base_names).items():
            config = common_config(self._providers.load(provider_id).config)
            aliases = self._aliases(names, config, is_last=config.propagation == "skip" or order.setbacks >= MOST_LOOKS)
            for name in names:
                record_name = dns01_record_name(name)
                alias = aliases.get(record_name)
                if alias is not None and alias.end != record_name:
                    homes[name] = self._home(order, record_name, alias, provider_id)
        return homes

    def _aliases(self, names: Collection[str], config: CommonConfig, *, is_last: bool) -> Mapping[str, Alias]:
        wanted = [dns01_record_name(name) for name in names]
        aliases = self._resolver.aliases(wanted, config.nameservers)
        unknown = [name for name in wanted if name not in aliases]
        if unknown and not is_last:
            raise ResolverFailed(f"nobody can look up {', '.join(unknown)}")
        return aliases

    def _home(self, order: Order, record_name: str, alias: Alias, provider_id: str) -> Home:
        if alias.end is None:
            return Home(record_name, None, alias.obstacle)
        target_id = provider_for(alias.end, self._directory.managed_zones(order.tenant_id), provider_id)
        leads = f"{record_name} leads to {alias.end}, which no active DNS provider manages"
        return Home(alias.end, target_id, "" if target_id else leads)

    def _by_provider(self, order: Order, base_names: Collection[str]) -> Mapping[str, Collection[str]]:
        """Each name once, with the provider that it was ordered for."""
        names: dict[str, dict[str, None]] = {}
        for assignment in order.assignments:
            name = base_name(assignment.dns_name)
            if name in base_names and assignment.dns_provider_id is not None:
                names.setdefault(assignment.dns_provider_id, {})[name] = None
        return names
