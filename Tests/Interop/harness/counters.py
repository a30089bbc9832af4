"""What the kernel has counted in a namespace: checksums that were wrong, segments sent again."""

import dataclasses
import pathlib

from .namespace import Namespace

WRONG = ("Ip.InHdrErrors", "Tcp.InCsumErrors", "Udp.InCsumErrors", "Icmp.InCsumErrors",
         "Udp6InCsumErrors", "Icmp6InCsumErrors", "Ip6InHdrErrors")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Counters:
    """The values at one moment, by names like "Tcp.RetransSegs" and "Udp6InCsumErrors"."""

    values: dict[str, int]

    @classmethod
    def of(cls, namespace: Namespace) -> "Counters":
        values: dict[str, int] = {}
        with namespace.entered():
            # /proc/net would be that of the process's first thread.
            folder = pathlib.Path("/proc/thread-self/net")
            for table in ("snmp", "netstat"):
                lines = folder.joinpath(table).read_text().splitlines()
                for names, numbers in zip(lines[::2], lines[1::2]):
                    group = names.partition(":")[0]
                    for name, number in zip(names.split()[1:], numbers.split()[1:]):
                        values[f"{group}.{name}"] = int(number)
            for line in folder.joinpath("snmp6").read_text().splitlines():
                name, number = line.split()
                values[name] = int(number)
        return cls(values)

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    def since(self, earlier: "Counters") -> "Counters":
        # Some of the kernel's lines come with their first count.
        return Counters(
            {name: value - earlier.values.get(name, 0) for name, value in self.values.items()}
        )

    @property
    def wrong(self) -> dict[str, int]:
        """Of packets whose headers or checksums were wrong, the counters that are not 0."""
        return {name: self[name] for name in WRONG if self[name] != 0}

    @property
    def retransmitted_share(self) -> float:
        """Of the TCP segments that were sent, those that were sent again."""
        return self["Tcp.RetransSegs"] / max(1, self["Tcp.OutSegs"])
