"""Hosts with several uplinks, whose routers drop datagrams with another uplink's source address.

    near -- up1 --\\            /-- up3 -- far
                   >- router -<
    near -- up2 --/            \\-- up4 -- far

Uplink N has the networks 192.168.N.0/24 and 2001:db8:N::/64; the host is 2 there, the router 1.
"""

import pathlib

from harness.lab.lab import Lab
from harness.lab.namespace import Namespace, join

# What rp_filter=1 is for IPv4. Neighbour discovery may use any address.
STRICT_IPV6 = """
    table ip6 uplinks {
        chain prerouting {
            type filter hook prerouting priority -300;
            meta l4proto ipv6-icmp accept
            fib saddr . iif oif missing drop
        }
    }
"""


class Uplinks:
    """The router, and the uplinks of both hosts; datagrams leave by the first of each at first."""

    def __init__(
        self,
        lab: Lab,
        near: Namespace,
        far: Namespace,
        near_links: tuple[int, ...] = (1, 2),
        far_links: tuple[int, ...] = (3,),
    ):
        router = lab.namespace("router")
        for host, links in ((near, near_links), (far, far_links)):
            loosen(host)
            for link in links:
                join(host, router, f"up{link}", f"up{link}")
                for number, namespace in ((2, host), (1, router)):
                    namespace.ip(
                        f"addr add 192.168.{link}.{number}/24 dev up{link}",
                        f"addr add 2001:db8:{link}::{number}/64 dev up{link} nodad",
                    )
            leave_by(host, links[0])
        router.set_sysctl("net/ipv4/ip_forward", "1")
        router.set_sysctl("net/ipv6/conf/all/forwarding", "1")
        tighten(router)


def address(link: int, outer: int) -> str:
    """The host's address on an uplink."""
    return f"192.168.{link}.2" if outer == 4 else f"2001:db8:{link}::2"


def loosen(host: Namespace) -> None:
    """Accept datagrams by any interface."""
    for scope in ("all", "default"):
        host.set_sysctl(f"net/ipv4/conf/{scope}/rp_filter", "0")


def tighten(host: Namespace) -> None:
    """Drop a datagram unless the route to its source leaves by the interface where it arrived."""
    with host.entered():
        scopes = [it.name for it in pathlib.Path("/proc/sys/net/ipv4/conf").iterdir()]
    for scope in scopes:
        host.set_sysctl(f"net/ipv4/conf/{scope}/rp_filter", "1")
    host.nft(STRICT_IPV6)


def leave_by(host: Namespace, link: int) -> None:
    """Move the default routes of both families to an uplink."""
    host.run("ip", "-4", *f"route replace default via 192.168.{link}.1 dev up{link}".split())
    # `replace` would add a second next hop for IPv6.
    host.attempt("ip", "-6", "route", "del", "default")
    host.run("ip", "-6", *f"route add default via 2001:db8:{link}::1 dev up{link}".split())


def switch(host: Namespace, old: int, new: int) -> None:
    """Set one uplink down and the other up, and move the default routes to that."""
    host.ip(
        f"link set up{new} up",
        # When a link goes down, the kernel removes its IPv6 addresses.
        f"addr replace 2001:db8:{new}::2/64 dev up{new} nodad",
        f"link set up{old} down",
    )
    leave_by(host, new)
