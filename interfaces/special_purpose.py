"""Addresses that lead into one's own network or nowhere: IANA's special-purpose registries (RFC 6890), as a table.

Not `ipaddress.is_global`, whose answer differs between Python's patch releases and does not look into embedded forms."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host service: a public address, answered from inside
        "169.254.0.0/16",  # link-local, with the clouds' metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_V6_GLOBAL_UNICAST = IPv6Network("2000::/3")
_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, with Teredo
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""What DNS64 makes of public IPv4 addresses (RFC 6052). Its sister 64:ff9b:1::/48 is for private ones (RFC 8215)."""


def is_special_purpose(ip: IPv4Address | IPv6Address) -> bool:
    """Judges IPv4-mapped and NAT64 forms by the address inside; every other embedding is special by itself."""
    if isinstance(ip, IPv4Address):
        return any(ip in network for network in _V4)
    if ip.ipv4_mapped or ip in _NAT64:
        return is_special_purpose(IPv4Address(int(ip) & 0xFFFFFFFF))
    return ip not in _V6_GLOBAL_UNICAST or any(ip in network for network in _V6)
