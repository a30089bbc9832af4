#define _GNU_SOURCE
#include "CLinux.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(IFNAMSIZ == CLINUX_NAME_BYTE_COUNT, "interface name");

// Each thread has its own namespace, so this must be the thread's entry, not the process's.
static int open_own_namespace(void) {
  int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  return home < 0 ? -errno : home;
}

static int is_same_namespace(int one, int other) {
  struct stat ours, theirs;
  return fstat(one, &ours) == 0 && fstat(other, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
         ours.st_ino == theirs.st_ino;
}

int clinux_namespace_is_own(int network_namespace) {
  int home = open_own_namespace();
  if (home < 0) return home;
  int result = is_same_namespace(home, network_namespace);
  close(home);
  return result;
}

int clinux_socket_in_namespace(int network_namespace, int domain, int type, int protocol) {
  int result;
  if (network_namespace < 0) {
    result = socket(domain, type, protocol);
    return result < 0 ? -errno : result;
  }
  int home = open_own_namespace();
  if (home < 0) return home;
  // setns needs CAP_SYS_ADMIN even for the current namespace, so it is skipped for that one.
  if (is_same_namespace(home, network_namespace)) {
    result = socket(domain, type, protocol);
    if (result < 0) result = -errno;
  } else if (setns(network_namespace, CLONE_NEWNET) != 0) {
    result = -errno;
  } else {
    result = socket(domain, type, protocol);
    if (result < 0) result = -errno;
    // There is no safe way to continue: in the wrong namespace, packets would be sent to the wrong
    // network.
    if (setns(home, CLONE_NEWNET) != 0) abort();
  }
  close(home);
  return result;
}

// MARK: Interface ioctls

int clinux_link_open(int network_namespace) {
  // A unix socket accepts interface ioctls like any other, and does not need IPv4.
  return clinux_socket_in_namespace(network_namespace, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static int request(int control, unsigned long operation, const char *name, struct ifreq *ifr) {
  size_t length = strnlen(name, IFNAMSIZ);
  if (length == IFNAMSIZ) return -ENAMETOOLONG;
  memcpy(ifr->ifr_name, name, length);
  // musl's ioctl takes an int and glibc's an unsigned long. No number used here has bit 31 set.
  return ioctl(control, operation, ifr) == 0 ? 0 : -errno;
}

int clinux_link_index(int control, const char *name, uint32_t *index) {
  struct ifreq ifr = {0};
  int error = request(control, SIOCGIFINDEX, name, &ifr);
  if (error == 0) *index = (uint32_t)ifr.ifr_ifindex;
  return error;
}

int clinux_link_mtu(int control, const char *name, uint32_t *mtu) {
  struct ifreq ifr = {0};
  int error = request(control, SIOCGIFMTU, name, &ifr);
  if (error == 0) *mtu = (uint32_t)ifr.ifr_mtu;
  return error;
}

int clinux_link_set_mtu(int control, const char *name, uint32_t mtu) {
  struct ifreq ifr = {0};
  if (mtu > INT32_MAX) return -EINVAL;
  ifr.ifr_mtu = (int)mtu;
  return request(control, SIOCSIFMTU, name, &ifr);
}

int clinux_link_is_up(int control, const char *name) {
  struct ifreq ifr = {0};
  int error = request(control, SIOCGIFFLAGS, name, &ifr);
  return error == 0 ? (ifr.ifr_flags & IFF_UP) != 0 : error;
}

int clinux_link_set_up(int control, const char *name, int is_up) {
  struct ifreq ifr = {0};
  int error = request(control, SIOCGIFFLAGS, name, &ifr);
  if (error != 0) return error;
  ifr.ifr_flags = (short)(is_up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
  return request(control, SIOCSIFFLAGS, name, &ifr);
}

// MARK: Requests to route netlink

// A header, one of three bodies, and attributes.
struct route_request {
  struct nlmsghdr header;
  union {
    struct ifaddrmsg address;
    struct ifinfomsg link;
    struct rtmsg route;
  } body;
  uint8_t attributes[96];
};

static void append(struct route_request *request, uint16_t type, const void *bytes, size_t count) {
  size_t start = NLMSG_ALIGN(request->header.nlmsg_len);
  struct rtattr attribute = {.rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(count)};
  memcpy((uint8_t *)request + start, &attribute, sizeof attribute);
  memcpy((uint8_t *)request + start + RTA_LENGTH(0), bytes, count);
  request->header.nlmsg_len = (uint32_t)(start + RTA_LENGTH(count));
}

// Reads the answer to a request: 0 or -errno. The kernel queues it before sendto returns.
static int read_acknowledgement(int netlink) {
  _Alignas(struct nlmsghdr) uint8_t answer[1024];
  ssize_t count;
  do {
    count = recv(netlink, answer, sizeof answer, MSG_DONTWAIT);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return -errno;
  struct nlmsghdr *header = (struct nlmsghdr *)answer;
  if ((size_t)count < NLMSG_LENGTH(sizeof(struct nlmsgerr)) || header->nlmsg_type != NLMSG_ERROR)
    return -EPROTO;
  return ((struct nlmsgerr *)NLMSG_DATA(header))->error;
}

static int send_request(int netlink, const struct route_request *request) {
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  ssize_t count;
  do {
    count = sendto(netlink, request, request->header.nlmsg_len, 0, (struct sockaddr *)&kernel,
        sizeof kernel);
  } while (count < 0 && errno == EINTR);
  return count >= 0 ? 0 : -errno;
}

// Makes a request in a namespace; -1 means this thread's own.
static int ask(const struct route_request *request, int network_namespace) {
  int netlink =
      clinux_socket_in_namespace(
          network_namespace, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (netlink < 0) return netlink;
  int error = send_request(netlink, request);
  if (error == 0) error = read_acknowledgement(netlink);
  close(netlink);
  return error;
}

static void write_address(uint8_t address[16], uint64_t high, uint64_t low) {
  for (int i = 0; i < 8; i++) {
    address[i] = (uint8_t)(high >> (56 - 8 * i));
    address[8 + i] = (uint8_t)(low >> (56 - 8 * i));
  }
}

int clinux_link_add_address(int network_namespace, uint32_t index, int family, uint64_t high,
    uint64_t low, uint8_t prefix_length) {
  struct route_request request = {
      .header = {.nlmsg_len = NLMSG_LENGTH(sizeof request.body.address),
          .nlmsg_type = RTM_NEWADDR,
          .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL},
      .body.address = {.ifa_family = family == 4 ? AF_INET : AF_INET6,
          .ifa_prefixlen = prefix_length,
          // A tunnel's link has no neighbours. Without the flag, an IPv6 address is tentative until
          // a work queue of the kernel has run, and connections made before that have another
          // source address.
          .ifa_flags = family == 4 ? 0 : IFA_F_NODAD,
          .ifa_index = index}};
  uint8_t address[16];
  write_address(address, high, low);
  size_t count = family == 4 ? 4 : 16;
  append(&request, IFA_LOCAL, address, count);
  append(&request, IFA_ADDRESS, address, count);
  return ask(&request, network_namespace);
}

int clinux_link_start(int network_namespace, uint32_t index, uint32_t mtu) {
  struct route_request request = {
      .header = {.nlmsg_len = NLMSG_LENGTH(sizeof request.body.link),
          .nlmsg_type = RTM_NEWLINK,
          .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
      .body.link = {.ifi_family = AF_UNSPEC,
          .ifi_index = (int)index,
          .ifi_flags = IFF_UP,
          .ifi_change = IFF_UP}};
  if (mtu != 0) append(&request, IFLA_MTU, &mtu, sizeof mtu);
  return ask(&request, network_namespace);
}

// MARK: Routes

// The routing table's entry for a destination: the interface index, the route's MTU, 0 if it has
// none, and the source address of datagrams that do not name one.
struct route {
  uint32_t index;
  uint32_t mtu;
  int is_local;
  uint8_t source[16];
};

static void read_route(const struct nlmsghdr *header, struct route *route) {
  struct rtmsg *message = (struct rtmsg *)NLMSG_DATA(header);
  int length = (int)RTM_PAYLOAD(header);
  for (struct rtattr *attribute = RTM_RTA(message); RTA_OK(attribute, length);
      attribute = RTA_NEXT(attribute, length)) {
    if (attribute->rta_type == RTA_OIF && RTA_PAYLOAD(attribute) >= sizeof route->index)
      memcpy(&route->index, RTA_DATA(attribute), sizeof route->index);
    if (attribute->rta_type == RTA_PREFSRC && RTA_PAYLOAD(attribute) <= sizeof route->source)
      memcpy(route->source, RTA_DATA(attribute), RTA_PAYLOAD(attribute));
    if (attribute->rta_type != RTA_METRICS) continue;
    int rest = (int)RTA_PAYLOAD(attribute);
    for (struct rtattr *metric = (struct rtattr *)RTA_DATA(attribute); RTA_OK(metric, rest);
        metric = RTA_NEXT(metric, rest)) {
      if (metric->rta_type == RTAX_MTU && RTA_PAYLOAD(metric) >= sizeof route->mtu)
        memcpy(&route->mtu, RTA_DATA(metric), sizeof route->mtu);
    }
  }
}

// A question about a route. A source of zero in `target`, a mark of zero and a local port of zero
// are not part of it; without a local port, it is not about UDP in particular.
struct route_question {
  const struct clinux_datagram *target;
  uint32_t mark;
  uint32_t flags;
  uint16_t local_port;
};

static struct route_request request_of(const struct route_question *question) {
  const struct clinux_datagram *target = question->target;
  struct route_request request = {
      .header = {.nlmsg_len = NLMSG_LENGTH(sizeof request.body.route),
          .nlmsg_type = RTM_GETROUTE,
          .nlmsg_flags = NLM_F_REQUEST},
      .body.route = {.rtm_family = target->family == 4 ? AF_INET : AF_INET6,
          .rtm_dst_len = target->family == 4 ? 32 : 128,
          .rtm_flags = question->flags}};
  uint8_t address[16];
  size_t size = target->family == 4 ? 4 : 16;
  write_address(address, target->address_high, target->address_low);
  append(&request, RTA_DST, address, size);
  if (target->source_high | target->source_low) {
    write_address(address, target->source_high, target->source_low);
    append(&request, RTA_SRC, address, size);
    request.body.route.rtm_src_len = (uint8_t)(8 * size);
  }
  if (question->mark != 0) append(&request, RTA_MARK, &question->mark, sizeof question->mark);
  if (target->scope != 0) append(&request, RTA_OIF, &target->scope, sizeof target->scope);
  if (question->local_port == 0) return request;
  // Rules and the choice among several next hops may depend on these (Linux 4.19; ignored before).
  uint8_t protocol = IPPROTO_UDP;
  uint16_t ports[2] = {htons(question->local_port), htons(target->port)};
  append(&request, RTA_IP_PROTO, &protocol, sizeof protocol);
  append(&request, RTA_SPORT, &ports[0], sizeof ports[0]);
  append(&request, RTA_DPORT, &ports[1], sizeof ports[1]);
  return request;
}

static int read_answer(int netlink, uint32_t sequence, struct route *route) {
  _Alignas(struct nlmsghdr) uint8_t answer[4096];
  struct nlmsghdr *header = (struct nlmsghdr *)answer;
  // The kernel queues the answer before sendto returns. An answer to an earlier question may be
  // left only after an error.
  for (int attempts = 0; attempts < 4; attempts++) {
    ssize_t count;
    do {
      count = recv(netlink, answer, sizeof answer, MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    if (count < 0) return -errno;
    if (!NLMSG_OK(header, (size_t)count)) return -EPROTO;
    if (header->nlmsg_seq != sequence) continue;
    if (header->nlmsg_type == NLMSG_ERROR)
      return ((struct nlmsgerr *)NLMSG_DATA(header))->error;
    if (header->nlmsg_type != RTM_NEWROUTE) return -EPROTO;
    unsigned type = ((struct rtmsg *)NLMSG_DATA(header))->rtm_type;
    if (type != RTN_UNICAST && type != RTN_LOCAL) return -ENETUNREACH;
    route->is_local = type == RTN_LOCAL;
    read_route(header, route);
    return route->index == 0 ? -ENETUNREACH : 0;
  }
  return -EPROTO;
}

static int find_route(int netlink, const struct route_question *question, struct route *route) {
  static _Atomic uint32_t last_sequence;
  struct route_request request = request_of(question);
  request.header.nlmsg_seq = ++last_sequence;
  int error = send_request(netlink, &request);
  return error != 0 ? error : read_answer(netlink, request.header.nlmsg_seq, route);
}

int clinux_route_open(void) {
  return clinux_socket_in_namespace(-1, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
}

int clinux_link_route_mtu(
    const struct clinux_datagram *target, uint32_t mark, uint32_t skipped_index) {
  int netlink = clinux_route_open();
  if (netlink < 0) return netlink;
  struct route route = {0};
  // Requests the table's entry itself, without MTUs learned from ICMP, which anybody can forge.
  struct route_question question = {.target = target, .mark = mark, .flags = RTM_F_FIB_MATCH};
  int error = find_route(netlink, &question, &route);
  close(netlink);
  if (error != 0) return error;
  if (route.index == skipped_index) return -ENETUNREACH;
  struct ifreq ifr = {.ifr_ifindex = (int)route.index};
  int control = clinux_link_open(-1);
  if (control < 0) return control;
  error = ioctl(control, SIOCGIFNAME, &ifr) == 0 && ioctl(control, SIOCGIFMTU, &ifr) == 0 ? 0
                                                                                         : -errno;
  close(control);
  if (error != 0) return error;
  return route.mtu != 0 && (int)route.mtu < ifr.ifr_mtu ? (int)route.mtu : ifr.ifr_mtu;
}

static int leaves_by(const struct route *route, uint32_t interface) {
  return route->is_local || route->index == interface;
}

int clinux_route_judge_source(
    int netlink, const struct clinux_datagram *target, uint16_t local_port, uint32_t mark) {
  struct clinux_datagram without_source = *target;
  without_source.source_high = without_source.source_low = 0;
  struct route_question question = {
      .target = &without_source, .mark = mark, .local_port = local_port};
  struct route route = {0};
  int has_route = find_route(netlink, &question, &route) == 0;
  uint8_t source[16];
  write_address(source, target->source_high, target->source_low);
  if (has_route && leaves_by(&route, target->interface) &&
      memcmp(source, route.source, target->family == 4 ? 4 : 16) == 0)
    return CLINUX_SOURCE_IMPLIED;
  question.target = target;
  int error = find_route(netlink, &question, &route);
  if (error == 0)
    return leaves_by(&route, target->interface) ? CLINUX_SOURCE_NEEDED : CLINUX_SOURCE_REFUSED;
  // If only the question with the source fails, it is not, or no longer, an address of this host
  // (-EINVAL, or -ENETUNREACH on Linux 6.18), or rules reject it.
  if (has_route) return CLINUX_SOURCE_REFUSED;
  // A source that is named now could be wrong for the next route.
  return error == -ENETUNREACH || error == -EHOSTUNREACH ? CLINUX_SOURCE_IMPLIED : error;
}

// MARK: Network news

int clinux_news_open(void) {
  int type = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC;
  int netlink = clinux_socket_in_namespace(-1, AF_NETLINK, type, NETLINK_ROUTE);
  if (netlink < 0) return netlink;
  // Links too: when a link goes down, the kernel removes its IPv4 routes without a message.
  struct sockaddr_nl address = {.nl_family = AF_NETLINK,
      .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
                   RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_RULE | 1u << (RTNLGRP_IPV6_RULE - 1) |
                   1u << (RTNLGRP_NEXTHOP - 1)};
  if (bind(netlink, (struct sockaddr *)&address, sizeof address) != 0) {
    int error = -errno;
    close(netlink);
    return error;
  }
  return netlink;
}

// The interface of a route's first next hop; 0 if it has none, or several.
static uint32_t route_interface(struct nlmsghdr *message) {
  struct route route = {0};
  read_route(message, &route);
  return route.index;
}

// Whether a message may mean that datagrams leave another way.
static int is_news(struct nlmsghdr *message, uint32_t skipped_index) {
  void *body = NLMSG_DATA(message);
  size_t size = message->nlmsg_len - NLMSG_LENGTH(0);
  switch (message->nlmsg_type) {
  case RTM_NEWLINK:
  case RTM_DELLINK: {
    struct ifinfomsg *link = body;
    return size >= sizeof *link && link->ifi_family == AF_UNSPEC &&
           (uint32_t)link->ifi_index != skipped_index;
  }
  case RTM_NEWADDR:
  case RTM_DELADDR: {
    struct ifaddrmsg *address = body;
    return size >= sizeof *address && address->ifa_index != skipped_index;
  }
  case RTM_NEWROUTE:
  case RTM_DELROUTE: {
    struct rtmsg *route = body;
    if (size < sizeof *route || route->rtm_flags & RTM_F_CLONED) return 0;
    // The tunnel's own datagrams do not leave through the tunnel.
    return skipped_index == 0 || route_interface(message) != skipped_index;
  }
  case RTM_NEWRULE:
  case RTM_DELRULE:
  case RTM_NEWNEXTHOP:
  case RTM_DELNEXTHOP: return 1;
  default: return 0;
  }
}

int clinux_news_in(const void *bytes, size_t byte_count, uint32_t skipped_index) {
  unsigned left = (unsigned)byte_count;
  for (struct nlmsghdr *message = (struct nlmsghdr *)bytes; NLMSG_OK(message, left);
       message = NLMSG_NEXT(message, left)) {
    if (is_news(message, skipped_index)) return 1;
  }
  return 0;
}

int clinux_news_next(int netlink, uint32_t skipped_index) {
  _Alignas(struct nlmsghdr) uint8_t buffer[8192];
  struct sockaddr_nl sender = {0};
  struct iovec vector = {buffer, sizeof buffer};
  struct msghdr header = {
      .msg_name = &sender, .msg_namelen = sizeof sender, .msg_iov = &vector, .msg_iovlen = 1};
  ssize_t count;
  do {
    count = recvmsg(netlink, &header, 0);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return errno == EAGAIN ? -EAGAIN : 1;
  if (sender.nl_pid != 0) return 0;
  if (header.msg_flags & MSG_TRUNC) return 1;
  return clinux_news_in(buffer, (size_t)count, skipped_index);
}
