"""The Public Suffix List, as packaged with its library.

By the registries' section a CA judges what it may issue for; by the whole list it counts for its rate limits."""

from __future__ import annotations

from functools import cached_property

from publicsuffixlist import PublicSuffixList


class PackagedPublicSuffixes:
    @cached_property
    def _registries(self) -> PublicSuffixList:
        return PublicSuffixList(accept_unknown=False, only_icann=True)

    @cached_property
    def _all(self) -> PublicSuffixList:
        return PublicSuffixList(accept_unknown=True)

    def is_public_suffix(self, dns_name: str) -> bool:
        return bool(self._registries.is_public(dns_name))

    def registered_domain(self, dns_name: str) -> str:
        return self._all.privatesuffix(dns_name) or dns_name
