#define _GNU_SOURCE
#include "CLinux.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert(sizeof(struct clinux_link) == 28, "link");

int clinux_netlink_open(int network_namespace) {
  int type = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC;
  int netlink = network_namespace < 0
      ? socket(AF_NETLINK, type, NETLINK_ROUTE)
      : clinux_socket_in_namespace(network_namespace, AF_NETLINK, type, NETLINK_ROUTE);
  if (netlink < 0) return network_namespace < 0 ? -errno : netlink;
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
  if (bind(netlink, (struct sockaddr *)&address, sizeof address) != 0) {
    int error = -errno;
    close(netlink);
    return error;
  }
  return netlink;
}

static void read_attributes(struct nlmsghdr *message, struct clinux_link *link) {
  struct ifinfomsg *body = NLMSG_DATA(message);
  int left = (int)IFLA_PAYLOAD(message);
  for (struct rtattr *attribute = IFLA_RTA(body); RTA_OK(attribute, left);
       attribute = RTA_NEXT(attribute, left)) {
    size_t length = RTA_PAYLOAD(attribute);
    if (attribute->rta_type == IFLA_MTU && length >= sizeof link->mtu) {
      memcpy(&link->mtu, RTA_DATA(attribute), sizeof link->mtu);
    } else if (attribute->rta_type == IFLA_IFNAME) {
      if (length > sizeof link->name - 1) length = sizeof link->name - 1;
      memset(link->name, 0, sizeof link->name);
      memcpy(link->name, RTA_DATA(attribute), length);
    }
  }
}

static void read_message(struct nlmsghdr *message, uint32_t index, struct clinux_link *link) {
  if (message->nlmsg_type != RTM_NEWLINK && message->nlmsg_type != RTM_DELLINK) return;
  if (message->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg))) return;
  struct ifinfomsg *body = NLMSG_DATA(message);
  // Other families than AF_UNSPEC speak of bridge ports and the like, not of the interface.
  if (body->ifi_family != AF_UNSPEC || (uint32_t)body->ifi_index != index) return;
  if (message->nlmsg_type == RTM_DELLINK) {
    link->event = CLINUX_LINK_DELETED;
    return;
  }
  link->event = CLINUX_LINK_CHANGED;
  link->is_up = (body->ifi_flags & IFF_UP) != 0;
  read_attributes(message, link);
}

int clinux_netlink_next(int netlink, uint32_t index, struct clinux_link *link) {
  // A link's message is 1-2 KB; one that is cut counts as lost.
  _Alignas(struct nlmsghdr) uint8_t buffer[8192];
  struct sockaddr_nl sender = {0};
  struct iovec vector = {buffer, sizeof buffer};
  struct msghdr header = {
      .msg_name = &sender, .msg_namelen = sizeof sender, .msg_iov = &vector, .msg_iovlen = 1};
  memset(link, 0, sizeof *link);
  ssize_t count;
  do {
    count = recvmsg(netlink, &header, 0);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return errno == EAGAIN ? 0 : -errno;
  // Any process may send to a netlink socket; the kernel's number is 0.
  if (sender.nl_pid != 0) return 1;
  if (header.msg_flags & MSG_TRUNC) return -ENOBUFS;

  unsigned left = (unsigned)count;
  for (struct nlmsghdr *message = (struct nlmsghdr *)buffer; NLMSG_OK(message, left);
       message = NLMSG_NEXT(message, left)) {
    read_message(message, index, link);
  }
  return 1;
}
