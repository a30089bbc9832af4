#define _GNU_SOURCE
#include "CLinux.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(struct clinux_link) == 28, "link");

// MARK: Clocks

uint64_t clinux_clock_boottime(void) {
  struct timespec now;
  if (clock_gettime(CLOCK_BOOTTIME, &now) != 0) clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clinux_clock_monotonic(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clinux_clock_thread(void) {
  struct timespec used;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) != 0) return clinux_clock_boottime();
  return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

void clinux_clock_realtime(uint64_t *seconds, uint32_t *nanoseconds) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *seconds = now.tv_sec < 0 ? 0 : (uint64_t)now.tv_sec;
  *nanoseconds = (uint32_t)now.tv_nsec;
}

// MARK: epoll

// Swift's EpollEvent has the same layout.
_Static_assert(sizeof(struct clinux_event) == 16, "event");
_Static_assert(offsetof(struct clinux_event, readiness) == 8, "event.readiness");

int clinux_epoll_open(void) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  return epoll < 0 ? -errno : epoll;
}

static int control(int epoll, int operation, int descriptor, uint32_t interest, uint64_t token) {
  struct epoll_event event = {.events = 0, .data.u64 = token};
  if (interest & CLINUX_READABLE) event.events |= EPOLLIN;
  if (interest & CLINUX_WRITABLE) event.events |= EPOLLOUT;
  if (interest & CLINUX_ONCE) event.events |= EPOLLONESHOT;
  if (interest & CLINUX_EDGE) event.events |= EPOLLET;
  return epoll_ctl(epoll, operation, descriptor, &event) == 0 ? 0 : -errno;
}

int clinux_epoll_add(int epoll, int descriptor, uint32_t interest, uint64_t token) {
  return control(epoll, EPOLL_CTL_ADD, descriptor, interest, token);
}

int clinux_epoll_modify(int epoll, int descriptor, uint32_t interest, uint64_t token) {
  return control(epoll, EPOLL_CTL_MOD, descriptor, interest, token);
}

int clinux_epoll_remove(int epoll, int descriptor) {
  return control(epoll, EPOLL_CTL_DEL, descriptor, 0, 0);
}

int clinux_epoll_wait(
    int epoll, struct clinux_event *events, int capacity, int timeout_milliseconds) {
  struct epoll_event ready[32];
  if (capacity > 32) capacity = 32;
  int count = epoll_wait(epoll, ready, capacity, timeout_milliseconds);
  if (count < 0) return errno == EINTR ? 0 : -errno;
  for (int i = 0; i < count; i++) {
    uint32_t readiness = 0;
    if (ready[i].events & EPOLLIN) readiness |= CLINUX_READABLE;
    if (ready[i].events & EPOLLOUT) readiness |= CLINUX_WRITABLE;
    if (ready[i].events & (EPOLLERR | EPOLLHUP)) readiness |= CLINUX_FAILED;
    events[i] = (struct clinux_event){ready[i].data.u64, readiness, 0};
  }
  return count;
}

// MARK: Timers

int clinux_timer_open(int *is_boottime) {
  *is_boottime = 1;
  int timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
  if (timer < 0 && errno == EINVAL) {
    // Linux before 3.15. This timer does not advance while the machine sleeps.
    *is_boottime = 0;
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  }
  return timer < 0 ? -errno : timer;
}

int clinux_timer_arm(int timer, int is_boottime, uint64_t nanoseconds) {
  if (!is_boottime) {
    uint64_t now = clinux_clock_boottime();
    nanoseconds = nanoseconds > now ? nanoseconds - now : 0;
  }
  uint64_t seconds = nanoseconds / 1000000000u;
  // 68 years, which fits a 32-bit time_t.
  if (seconds > INT32_MAX) seconds = INT32_MAX;
  struct itimerspec when = {0};
  when.it_value.tv_sec = (time_t)seconds;
  when.it_value.tv_nsec = (long)(nanoseconds % 1000000000u);
  // Zero would disarm the timer.
  if (nanoseconds == 0) when.it_value.tv_nsec = 1;
  int flags = is_boottime ? TFD_TIMER_ABSTIME : 0;
  return timerfd_settime(timer, flags, &when, NULL) == 0 ? 0 : -errno;
}

int clinux_timer_disarm(int timer) {
  struct itimerspec never = {0};
  return timerfd_settime(timer, 0, &never, NULL) == 0 ? 0 : -errno;
}

int clinux_timer_acknowledge(int timer) {
  uint64_t count;
  return clinux_file_read(timer, &count, sizeof count) == sizeof count;
}

// MARK: Signals

static int block(sigset_t *set) {
  static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
  sigemptyset(set);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    // A signal that the caller ignores stays ignored (nohup, "&" in a script). If it were blocked,
    // it would be reported all the same.
    struct sigaction action;
    int is_ignored = sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler == SIG_IGN;
    if (!is_ignored) sigaddset(set, numbers[i]);
  }
  return sigprocmask(SIG_BLOCK, set, NULL) == 0 ? 0 : -errno;
}

int clinux_signals_hold(void) {
  sigset_t set;
  return block(&set);
}

int clinux_signals_open(void) {
  sigset_t set;
  int result = block(&set);
  if (result < 0) return result;
  int signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  return signals < 0 ? -errno : signals;
}

int clinux_signals_next(int signals) {
  struct signalfd_siginfo information;
  intptr_t count = clinux_file_read(signals, &information, sizeof information);
  if (count != sizeof information) return CLINUX_SIGNAL_NONE;
  switch (information.ssi_signo) {
    case SIGTERM:
      return CLINUX_SIGNAL_TERMINATE;
    case SIGINT:
      return CLINUX_SIGNAL_INTERRUPT;
    case SIGHUP:
      return CLINUX_SIGNAL_HANGUP;
    case SIGUSR1:
      return CLINUX_SIGNAL_USER1;
    default:
      return CLINUX_SIGNAL_NONE;
  }
}

// MARK: Link events

int clinux_netlink_open(int network_namespace) {
  int type = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC;
  int netlink = clinux_socket_in_namespace(network_namespace, AF_NETLINK, type, NETLINK_ROUTE);
  if (netlink < 0) return netlink;
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
  // Messages of families other than AF_UNSPEC describe bridge ports and the like, not the
  // interface.
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
  // A link message has 1-2 KB. A truncated message counts as lost.
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
  // Any process may send to a netlink socket; the kernel's own messages have pid 0.
  if (sender.nl_pid != 0) return 1;
  if (header.msg_flags & MSG_TRUNC) return -ENOBUFS;

  unsigned left = (unsigned)count;
  for (struct nlmsghdr *message = (struct nlmsghdr *)buffer; NLMSG_OK(message, left);
       message = NLMSG_NEXT(message, left)) {
    read_message(message, index, link);
  }
  return 1;
}
