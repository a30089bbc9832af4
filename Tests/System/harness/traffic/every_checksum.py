"""every_checksum.py ADDRESS PORT: datagrams with every value of one 16-bit word, as segments.

The computed checksum of one of them is zero, which must be written as 0xffff (RFC 768).
"""

import socket
import struct
import sys
import time

UDP_SEGMENT = 103
SEGMENTS, PAYLOAD = 32, 16


def main() -> None:
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, PAYLOAD)
        for first in range(0, 0x10000, SEGMENTS):
            words = range(first, first + SEGMENTS)
            data = b"".join(struct.pack(">H", word) + bytes(PAYLOAD - 2) for word in words)
            sender.sendto(data, (address, port))
            time.sleep(0.0005)


if __name__ == "__main__":
    main()
