"""Finds the address of this machine that the servers reach."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address


def own_address(hosts: Iterable[str]) -> str:
    """Return an address of this machine that all hosts can reach; loopback only if all are this machine.

    Raises:
        OSError: a host has no address, or cannot be reached.
    """
    addresses = [_address_for(host) for host in hosts]
    return next((a for a in addresses if not ip_address(a.partition("%")[0]).is_loopback), addresses[0])


def _address_for(host: str) -> str:
    """Return the address of this machine on the route to a host."""
    family, kind, _, _, where = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(where)  # sends nothing; it only chooses the route
        return str(probe.getsockname()[0])
