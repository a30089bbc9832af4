#define _GNU_SOURCE
#include "CLinux.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int set(int udp, int level, int option, int value) {
  return setsockopt(udp, level, option, &value, sizeof value) == 0 ? 0 : -errno;
}

// Which of our addresses was asked, and its traffic class. Answers larger than a link's MTU are
// fragmented rather than refused.
static int set_options_v4(int udp) {
  set(udp, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
  set(udp, IPPROTO_IP, IP_RECVTOS, 1);
  return set(udp, IPPROTO_IP, IP_PKTINFO, 1);
}

static int set_options_v6(int udp) {
  set(udp, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
  set(udp, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
  int error = set(udp, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  return error != 0 ? error : set(udp, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
}

static int bind_v4(int udp, const struct clinux_datagram *local) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(local->port)};
  address.sin_addr.s_addr = htonl((uint32_t)(local->address_high >> 32));
  return bind(udp, (const struct sockaddr *)&address, sizeof address) == 0 ? 0 : -errno;
}

static int bind_v6(int udp, const struct clinux_datagram *local) {
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(local->port)};
  address.sin6_scope_id = local->scope;
  for (int i = 0; i < 8; i++) {
    address.sin6_addr.s6_addr[i] = (uint8_t)(local->address_high >> (56 - 8 * i));
    address.sin6_addr.s6_addr[8 + i] = (uint8_t)(local->address_low >> (56 - 8 * i));
  }
  return bind(udp, (const struct sockaddr *)&address, sizeof address) == 0 ? 0 : -errno;
}

int clinux_forward_open(const struct clinux_datagram *local, int buffer_byte_count) {
  int is_v4 = local->family == 4;
  int domain = is_v4 ? AF_INET : AF_INET6;
  int udp = socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
  if (udp < 0) return -errno;
  // Up to net.core.rmem_max and wmem_max: nothing here needs a right.
  set(udp, SOL_SOCKET, SO_RCVBUF, buffer_byte_count);
  set(udp, SOL_SOCKET, SO_SNDBUF, buffer_byte_count);
  int error = is_v4 ? set_options_v4(udp) : set_options_v6(udp);
  if (error == 0) error = is_v4 ? bind_v4(udp, local) : bind_v6(udp, local);
  if (error == 0) return udp;
  close(udp);
  return error;
}
