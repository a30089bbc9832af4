#define _GNU_SOURCE
#include "CLinux.h"

#include <arpa/inet.h>
#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  IPV4_BYTE_COUNT = 20,
  IPV6_BYTE_COUNT = 40,
  UDP_BYTE_COUNT = 8,
  ICMP_BYTE_COUNT = 8,
  PORT_UNREACHABLE_V4 = 3,
  PORT_UNREACHABLE_V6 = 4,
};

static void store(uint8_t *bytes, uint64_t value, int byte_count) {
  while (byte_count-- > 0) {
    bytes[byte_count] = (uint8_t)value;
    value >>= 8;
  }
}

// RFC 1071. The byte count is even.
static uint16_t checksum(const uint8_t *bytes, size_t byte_count) {
  uint32_t sum = 0;
  for (size_t i = 0; i < byte_count; i += 2) sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
  sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~(sum + (sum >> 16));
}

int clinux_refusal_open(int family) {
  int is_v4 = family == 4;
  int raw = socket(is_v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
      is_v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
  if (raw < 0) return -errno;
  // Otherwise the socket would hold a copy of each ICMP message that the host receives.
  struct icmp_filter none_v4 = {.data = ~0u};
  struct icmp6_filter none_v6;
  ICMP6_FILTER_SETBLOCKALL(&none_v6);
  int result = is_v4 ? setsockopt(raw, SOL_RAW, ICMP_FILTER, &none_v4, sizeof none_v4)
                     : setsockopt(raw, IPPROTO_ICMPV6, ICMP6_FILTER, &none_v6, sizeof none_v6);
  if (result == 0) return raw;
  int error = -errno;
  close(raw);
  return error;
}

// Writes the headers of a UDP datagram without payload from the client. Returns their size.
static size_t quote(uint8_t *bytes, const struct clinux_datagram *client, uint16_t port) {
  uint8_t *udp;
  if (client->family == 4) {
    bytes[0] = 0x45;
    store(bytes + 2, IPV4_BYTE_COUNT + UDP_BYTE_COUNT, 2);
    bytes[8] = 64;
    bytes[9] = IPPROTO_UDP;
    store(bytes + 12, client->address_high >> 32, 4);
    store(bytes + 16, client->source_high >> 32, 4);
    store(bytes + 10, checksum(bytes, IPV4_BYTE_COUNT), 2);
    udp = bytes + IPV4_BYTE_COUNT;
  } else {
    bytes[0] = 0x60;
    store(bytes + 4, UDP_BYTE_COUNT, 2);
    bytes[6] = IPPROTO_UDP;
    bytes[7] = 64;
    store(bytes + 8, client->address_high, 8);
    store(bytes + 16, client->address_low, 8);
    store(bytes + 24, client->source_high, 8);
    store(bytes + 32, client->source_low, 8);
    udp = bytes + IPV6_BYTE_COUNT;
  }
  store(udp, client->port, 2);
  store(udp + 2, port, 2);
  store(udp + 4, UDP_BYTE_COUNT, 2);
  return (size_t)(udp - bytes) + UDP_BYTE_COUNT;
}

int clinux_refusal_send(int raw, const struct clinux_datagram *client, uint16_t port) {
  uint8_t message[ICMP_BYTE_COUNT + IPV6_BYTE_COUNT + UDP_BYTE_COUNT] = {0};
  size_t byte_count = ICMP_BYTE_COUNT + quote(message + ICMP_BYTE_COUNT, client, port);
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  // The port must be 0: a raw socket takes it for a protocol.
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_scope_id = client->scope};
  const void *target = &v6;
  socklen_t length = sizeof v6;
  if (client->family == 4) {
    message[0] = ICMP_DEST_UNREACH;
    message[1] = PORT_UNREACHABLE_V4;
    store(message + 2, checksum(message, byte_count), 2);
    store((uint8_t *)&v4.sin_addr, client->address_high >> 32, 4);
    target = &v4;
    length = sizeof v4;
  } else {
    // The kernel computes the checksum of ICMPv6.
    message[0] = ICMP6_DST_UNREACH;
    message[1] = PORT_UNREACHABLE_V6;
    memcpy(&v6.sin6_addr, message + ICMP_BYTE_COUNT + 8, sizeof v6.sin6_addr);
  }
  ssize_t sent;
  do {
    sent = sendto(raw, message, byte_count, 0, target, length);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : 0;
}

int clinux_forward_close(int udp) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } own = {0};
  socklen_t length = sizeof own;
  if (getsockname(udp, &own.any, &length) != 0) return -errno;
  if (own.any.sa_family == AF_INET && own.v4.sin_addr.s_addr == htonl(INADDR_ANY))
    own.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (own.any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&own.v6.sin6_addr))
    own.v6.sin6_addr = in6addr_loopback;
  return connect(udp, &own.any, length) == 0 ? 0 : -errno;
}

int clinux_forward_reopen(int udp) {
  struct sockaddr nobody = {.sa_family = AF_UNSPEC};
  return connect(udp, &nobody, sizeof nobody) == 0 ? 0 : -errno;
}
