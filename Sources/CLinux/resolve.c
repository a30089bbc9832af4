#define _GNU_SOURCE
#include "CLinux.h"

#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// A socket address of either family.
union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

static socklen_t fill(union address *address, const struct clinux_datagram *target) {
  memset(address, 0, sizeof *address);
  if (target->family == 4) {
    address->v4.sin_family = AF_INET;
    address->v4.sin_addr.s_addr = htonl((uint32_t)(target->address_high >> 32));
    address->v4.sin_port = htons(target->port);
    return sizeof address->v4;
  }
  address->v6.sin6_family = AF_INET6;
  for (int i = 0; i < 8; i++) {
    address->v6.sin6_addr.s6_addr[i] = (uint8_t)(target->address_high >> (56 - 8 * i));
    address->v6.sin6_addr.s6_addr[8 + i] = (uint8_t)(target->address_low >> (56 - 8 * i));
  }
  address->v6.sin6_port = htons(target->port);
  address->v6.sin6_scope_id = target->scope;
  return sizeof address->v6;
}

int clinux_resolve_open(const struct clinux_datagram *target) {
  union address address;
  socklen_t length = fill(&address, target);
  int udp = socket(address.any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
  if (udp < 0) return -errno;
  // The kernel chooses the local port at random, and then delivers what comes from there alone.
  if (connect(udp, &address.any, length) == 0) return udp;
  int error = -errno;
  close(udp);
  return error;
}

int clinux_resolve_wait(int udp, int timeout_milliseconds) {
  struct pollfd ready = {.fd = udp, .events = POLLIN};
  int count = poll(&ready, 1, timeout_milliseconds);
  if (count < 0) return errno == EINTR ? 0 : -errno;
  return count > 0;
}
