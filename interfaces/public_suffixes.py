"""The Public Suffix List, as packaged with its library: the registries' section only, as CAs judge by it."""

from __future__ import annotations

from functools import cached_property

from publicsuffixlist import PublicSuffixList


class PackagedPublicSuffixes:
    @cached_property
    def _list(self) -> PublicSuffixList:
        return PublicSuffixList(accept_unknown=False, only_icann=True)

    def is_public_suffix(self, dns_name: str) -> bool:
        return bool(self._list.is_public(dns_name))
