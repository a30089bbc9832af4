#define _GNU_SOURCE
#include "CLinux.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(struct clinux_datagram) == 48, "datagram");
_Static_assert(offsetof(struct clinux_datagram, port) == 40, "datagram.port");

// Missing in headers older than Linux 5.0.
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

// A socket address of either family.
union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

// Room for the packet information and the traffic class of either family, and a segment size.
union ancillary {
  size_t aligned;
  uint8_t bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + 2 * CMSG_SPACE(sizeof(int))];
};

static uint64_t load64(const uint8_t *bytes) {
  uint64_t value = 0;
  for (int i = 0; i < 8; i++) value = value << 8 | bytes[i];
  return value;
}

static void store64(uint8_t *bytes, uint64_t value) {
  for (int i = 7; i >= 0; i--, value >>= 8) bytes[i] = (uint8_t)value;
}

static uint64_t high_of(struct in_addr address) { return (uint64_t)ntohl(address.s_addr) << 32; }

static struct in_addr v4_of(uint64_t high) {
  return (struct in_addr){htonl((uint32_t)(high >> 32))};
}

static struct in6_addr v6_of(uint64_t high, uint64_t low) {
  struct in6_addr address;
  store64(address.s6_addr, high);
  store64(address.s6_addr + 8, low);
  return address;
}

// Writes the address, port and scope of `datagram` to `address`, which must be zeroed. Returns the
// length of the socket address.
static socklen_t write_address(union address *address, const struct clinux_datagram *datagram) {
  if (datagram->family == 4) {
    address->v4.sin_family = AF_INET;
    address->v4.sin_addr = v4_of(datagram->address_high);
    address->v4.sin_port = htons(datagram->port);
    return sizeof address->v4;
  }
  address->v6.sin6_family = AF_INET6;
  address->v6.sin6_addr = v6_of(datagram->address_high, datagram->address_low);
  address->v6.sin6_port = htons(datagram->port);
  address->v6.sin6_scope_id = datagram->scope;
  return sizeof address->v6;
}

// MARK: Opening

static int set(int udp, int level, int option, int value) {
  return setsockopt(udp, level, option, &value, sizeof value) == 0 ? 0 : -errno;
}

enum { MAX_SEND_BUFFER = 1 << 20 };

// Sets options that are not essential. The kernel may refuse them, as qemu-user does.
static void set_optional(int udp, int family, int buffer_byte_count) {
  // With CAP_NET_ADMIN, FORCE may exceed net.core.rmem_max.
  if (set(udp, SOL_SOCKET, SO_RCVBUFFORCE, buffer_byte_count) != 0)
    set(udp, SOL_SOCKET, SO_RCVBUF, buffer_byte_count);
  // A long send queue delays all packets, so it is limited. A long receive queue keeps datagrams
  // that would otherwise be lost while the CPU is busy.
  if (buffer_byte_count > MAX_SEND_BUFFER) buffer_byte_count = MAX_SEND_BUFFER;
  if (set(udp, SOL_SOCKET, SO_SNDBUFFORCE, buffer_byte_count) != 0)
    set(udp, SOL_SOCKET, SO_SNDBUF, buffer_byte_count);
  // Outer datagrams carry no DF and may be fragmented, as with the kernel's WireGuard: the user
  // sets the tunnel's MTU, and a forged ICMP error must not cause losses.
  if (family == 4) {
    set(udp, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
    set(udp, IPPROTO_IP, IP_PKTINFO, 1);
    set(udp, IPPROTO_IP, IP_RECVTOS, 1);
  } else {
    set(udp, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
    set(udp, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    set(udp, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
  }
}

int clinux_udp_set_gro(int udp, int is_on) { return set(udp, IPPROTO_UDP, UDP_GRO, is_on); }

int clinux_udp_has_segmentation(int udp) {
  // Sets the default segment size to 0, which means none.
  return set(udp, IPPROTO_UDP, UDP_SEGMENT, 0);
}

int clinux_udp_set_mark(int udp, uint32_t mark) {
  return set(udp, SOL_SOCKET, SO_MARK, (int)mark);
}

int clinux_udp_open(int family, uint16_t port, uint32_t mark, int buffer_byte_count) {
  int domain = family == 4 ? AF_INET : AF_INET6;
  int udp = socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
  if (udp < 0) return -errno;
  int error = family == 4 ? 0 : set(udp, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (error == 0 && mark != 0) error = clinux_udp_set_mark(udp, mark);
  set_optional(udp, family, buffer_byte_count);

  union address local = {0};
  socklen_t length = family == 4 ? sizeof local.v4 : sizeof local.v6;
  local.any.sa_family = (sa_family_t)domain;
  if (family == 4)
    local.v4.sin_port = htons(port);
  else
    local.v6.sin6_port = htons(port);
  if (error == 0 && bind(udp, &local.any, length) != 0) error = -errno;
  if (error == 0) return udp;
  close(udp);
  return error;
}

int clinux_udp_port(int udp) {
  union address local = {0};
  socklen_t length = sizeof local;
  if (getsockname(udp, &local.any, &length) != 0) return -errno;
  return ntohs(local.any.sa_family == AF_INET ? local.v4.sin_port : local.v6.sin6_port);
}

// MARK: Receiving

static void read_sender(const union address *sender, struct clinux_datagram *datagram) {
  if (sender->any.sa_family == AF_INET) {
    datagram->family = 4;
    datagram->address_high = high_of(sender->v4.sin_addr);
    datagram->port = ntohs(sender->v4.sin_port);
  } else {
    datagram->family = 6;
    datagram->address_high = load64(sender->v6.sin6_addr.s6_addr);
    datagram->address_low = load64(sender->v6.sin6_addr.s6_addr + 8);
    datagram->port = ntohs(sender->v6.sin6_port);
    // The kernel sets the scope for link-local addresses only.
    datagram->scope = sender->v6.sin6_scope_id;
  }
}

static void read_ancillary(const struct cmsghdr *item, struct clinux_datagram *datagram) {
  const uint8_t *data = CMSG_DATA(item);
  if (item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_PKTINFO) {
    struct in_pktinfo information;
    memcpy(&information, data, sizeof information);
    // The address to answer from. For a broadcast it differs from the destination.
    datagram->source_high = high_of(information.ipi_spec_dst);
    datagram->interface = (uint32_t)information.ipi_ifindex;
  } else if (item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_TOS) {
    datagram->traffic_class = data[0];
  } else if (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_PKTINFO) {
    struct in6_pktinfo information;
    memcpy(&information, data, sizeof information);
    // A multicast address cannot be the source of an answer.
    if (IN6_IS_ADDR_MULTICAST(&information.ipi6_addr)) return;
    datagram->source_high = load64(information.ipi6_addr.s6_addr);
    datagram->source_low = load64(information.ipi6_addr.s6_addr + 8);
    datagram->interface = (uint32_t)information.ipi6_ifindex;
  } else if (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_TCLASS) {
    int value;
    memcpy(&value, data, sizeof value);
    datagram->traffic_class = (uint8_t)value;
  } else if (item->cmsg_level == IPPROTO_UDP && item->cmsg_type == UDP_GRO) {
    int value;
    memcpy(&value, data, sizeof value);
    datagram->segment_byte_count = value > 0 && value <= UINT16_MAX ? (uint16_t)value : 0;
  }
}

// musl's macro compares a size with a pointer difference.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
static struct cmsghdr *next_ancillary(struct msghdr *header, struct cmsghdr *item) {
  return CMSG_NXTHDR(header, item);
}
#pragma GCC diagnostic pop

// The buffers of one message of a receive call.
struct reception {
  union address sender;
  union ancillary ancillary;
  struct iovec vector;
};

static void prepare_reception(
    struct reception *reception, struct msghdr *header, void *bytes, size_t capacity) {
  memset(header, 0, sizeof *header);
  reception->vector = (struct iovec){bytes, capacity};
  reception->sender.any.sa_family = AF_UNSPEC;
  header->msg_name = &reception->sender;
  header->msg_namelen = sizeof reception->sender;
  header->msg_iov = &reception->vector;
  header->msg_iovlen = 1;
  header->msg_control = &reception->ancillary;
  header->msg_controllen = sizeof reception->ancillary;
}

static void read_reception(
    const struct reception *reception, struct msghdr *header, struct clinux_datagram *datagram) {
  memset(datagram, 0, sizeof *datagram);
  read_sender(&reception->sender, datagram);
  datagram->is_truncated = (header->msg_flags & MSG_TRUNC) != 0;
  struct cmsghdr *item = CMSG_FIRSTHDR(header);
  while (item) {
    read_ancillary(item, datagram);
    item = next_ancillary(header, item);
  }
}

intptr_t clinux_udp_receive(
    int udp, void *bytes, size_t capacity, struct clinux_datagram *datagram) {
  struct reception reception;
  struct msghdr header;
  ssize_t count;
  do {
    prepare_reception(&reception, &header, bytes, capacity);
    count = recvmsg(udp, &header, 0);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return -errno;
  read_reception(&reception, &header, datagram);
  return count;
}

int clinux_udp_receive_many(
    int udp, void *bytes, size_t stride, size_t capacity, int count,
    struct clinux_datagram *datagrams, uint32_t *byte_counts) {
  struct reception receptions[CLINUX_MESSAGES_PER_CALL];
  struct mmsghdr messages[CLINUX_MESSAGES_PER_CALL];
  if (count > CLINUX_MESSAGES_PER_CALL) count = CLINUX_MESSAGES_PER_CALL;
  int received;
  do {
    for (int i = 0; i < count; i++)
      prepare_reception(
          &receptions[i], &messages[i].msg_hdr, (uint8_t *)bytes + i * stride, capacity);
    received = recvmmsg(udp, messages, (unsigned)count, 0, NULL);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return -errno;
  for (int i = 0; i < received; i++) {
    read_reception(&receptions[i], &messages[i].msg_hdr, &datagrams[i]);
    byte_counts[i] = messages[i].msg_len;
  }
  return received;
}

// MARK: Sending

static void *begin(struct cmsghdr *item, int level, int type, size_t byte_count) {
  item->cmsg_level = level;
  item->cmsg_type = type;
  item->cmsg_len = CMSG_LEN(byte_count);
  return CMSG_DATA(item);
}

// Fills `ancillary`, which must be zeroed. Returns the number of bytes used.
static size_t write_ancillary(
    const struct clinux_datagram *datagram, uint16_t segment, union ancillary *ancillary) {
  struct cmsghdr *item = (struct cmsghdr *)ancillary;
  size_t used = 0;
  int is_v4 = datagram->family == 4;
  if ((datagram->source_high | datagram->source_low) && is_v4) {
    struct in_pktinfo information = {.ipi_spec_dst = v4_of(datagram->source_high)};
    memcpy(begin(item, IPPROTO_IP, IP_PKTINFO, sizeof information), &information,
        sizeof information);
    used = CMSG_SPACE(sizeof information);
  } else if (datagram->source_high | datagram->source_low) {
    struct in6_pktinfo information = {
        .ipi6_addr = v6_of(datagram->source_high, datagram->source_low)};
    // Only a link-local address needs its interface. Other addresses stay valid when the route
    // moves to another interface, so it is left out for them, as in the kernel's WireGuard.
    if (IN6_IS_ADDR_LINKLOCAL(&information.ipi6_addr))
      information.ipi6_ifindex = datagram->interface;
    memcpy(begin(item, IPPROTO_IPV6, IPV6_PKTINFO, sizeof information), &information,
        sizeof information);
    used = CMSG_SPACE(sizeof information);
  }
  if (datagram->traffic_class != 0) {
    int value = datagram->traffic_class;
    item = (struct cmsghdr *)(ancillary->bytes + used);
    memcpy(begin(item, is_v4 ? IPPROTO_IP : IPPROTO_IPV6, is_v4 ? IP_TOS : IPV6_TCLASS,
               sizeof value), &value, sizeof value);
    used += CMSG_SPACE(sizeof value);
  }
  if (segment != 0) {
    item = (struct cmsghdr *)(ancillary->bytes + used);
    memcpy(begin(item, IPPROTO_UDP, UDP_SEGMENT, sizeof segment), &segment, sizeof segment);
    used += CMSG_SPACE(sizeof segment);
  }
  return used;
}

// The parts that all messages of one send call share.
struct transmission {
  union address target;
  union ancillary ancillary;
  struct msghdr header;
};

static void prepare_transmission(
    struct transmission *transmission, const struct clinux_datagram *datagram, uint16_t segment) {
  memset(transmission, 0, sizeof *transmission);
  struct msghdr *header = &transmission->header;
  header->msg_name = &transmission->target;
  header->msg_namelen = write_address(&transmission->target, datagram);
  size_t used = write_ancillary(datagram, segment, &transmission->ancillary);
  header->msg_control = used > 0 ? &transmission->ancillary : NULL;
  header->msg_controllen = used;
}

int clinux_udp_send_segments(
    int udp, const void *bytes, size_t byte_count, uint16_t segment_byte_count,
    const struct clinux_datagram *datagram) {
  struct transmission transmission;
  struct iovec vector = {(void *)bytes, byte_count};
  prepare_transmission(&transmission, datagram, segment_byte_count);
  transmission.header.msg_iov = &vector;
  transmission.header.msg_iovlen = 1;
  ssize_t count;
  do {
    count = sendmsg(udp, &transmission.header, 0);
  } while (count < 0 && errno == EINTR);
  return count < 0 ? -errno : 0;
}

int clinux_udp_send(
    int udp, const void *bytes, size_t byte_count, const struct clinux_datagram *datagram) {
  return clinux_udp_send_segments(udp, bytes, byte_count, 0, datagram);
}

int clinux_udp_send_many(
    int udp, const struct clinux_slice *datagrams, int count,
    const struct clinux_datagram *datagram) {
  struct transmission transmission;
  struct mmsghdr messages[CLINUX_MESSAGES_PER_CALL];
  if (count > CLINUX_MESSAGES_PER_CALL) count = CLINUX_MESSAGES_PER_CALL;
  prepare_transmission(&transmission, datagram, 0);
  for (int i = 0; i < count; i++) {
    messages[i].msg_hdr = transmission.header;
    messages[i].msg_hdr.msg_iov = (struct iovec *)&datagrams[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    messages[i].msg_len = 0;
  }
  long sent;
  do {
    // musl's sendmmsg makes one call per message, because padding may not be zero. Here it is zero.
    sent = syscall(SYS_sendmmsg, udp, messages, (unsigned)count, 0);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : (int)sent;
}

// MARK: Sockets of `culvert forward`

// The kernel reports the local address and the traffic class of received datagrams. Answers that
// exceed a link's MTU are fragmented, not refused.
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

int clinux_forward_open(const struct clinux_datagram *local, int buffer_byte_count) {
  int is_v4 = local->family == 4;
  int domain = is_v4 ? AF_INET : AF_INET6;
  int udp = socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
  if (udp < 0) return -errno;
  // Limited to net.core.rmem_max and wmem_max; this needs no capability.
  set(udp, SOL_SOCKET, SO_RCVBUF, buffer_byte_count);
  set(udp, SOL_SOCKET, SO_SNDBUF, buffer_byte_count);
  int error = is_v4 ? set_options_v4(udp) : set_options_v6(udp);
  union address address = {0};
  socklen_t length = write_address(&address, local);
  if (error == 0 && bind(udp, &address.any, length) != 0) error = -errno;
  if (error == 0) return udp;
  close(udp);
  return error;
}

// MARK: Sockets of the resolver

int clinux_resolve_open(const struct clinux_datagram *target, uint32_t mark, int is_stream) {
  union address address = {0};
  socklen_t length = write_address(&address, target);
  int type = (is_stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  int resolver = socket(address.any.sa_family, type, is_stream ? IPPROTO_TCP : IPPROTO_UDP);
  if (resolver < 0) return -errno;
  // Without CAP_NET_ADMIN the mark is refused, and the query takes the ordinary route.
  if (mark != 0) setsockopt(resolver, SOL_SOCKET, SO_MARK, &mark, sizeof mark);
  // The kernel chooses a random local port, and then only delivers what the target sends.
  if (connect(resolver, &address.any, length) == 0 || errno == EINPROGRESS) return resolver;
  int error = -errno;
  close(resolver);
  return error;
}
