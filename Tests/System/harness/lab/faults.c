// Makes system calls of a program fail: LD_PRELOAD for the ordinary, dynamic build.
//
// CULVERT_FAULTS   rules, CALL[@PORT]:ERROR:WHEN separated by ";"
//   CALL   sendmsg (one datagram), segments (sendmsg with UDP_SEGMENT), sendmmsg, recvmsg,
//          recvmmsg, set-gro, set-segment (setsockopt), vnet (TUNSETIFF with IFF_VNET_HDR),
//          offload (TUNSETOFFLOAD with anything), uso (with USO), writev
//   PORT   only datagrams to this port
//   ERROR  an errno name; or, for sendmmsg, PARTIAL: half of the messages are sent
//   WHEN   always, first, nth/N (that call alone), every/N (each Nth)
// CULVERT_FAULTS_REPORT   the file for the counts, a `struct count` for each CALL
//
// CULVERT_FAULTS_RELEASE   what uname(2) reports as the kernel's release
//
// The datagrams in a failing call are counted as well: they are lost unless the program sends them
// again.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

// In the order of CALLS in faults.py.
enum call {
  SENDMSG, SEGMENTS, SENDMMSG, RECVMSG, RECVMMSG, SET_GRO, SET_SEGMENT, VNET, OFFLOAD, USO, WRITEV,
  CALLS
};
static const char *const names[CALLS] = {
    "sendmsg", "segments", "sendmmsg", "recvmsg", "recvmmsg", "set-gro", "set-segment",
    "vnet", "offload", "uso", "writev"};

static const struct { const char *name; int value; } errors[] = {
    {"EIO", EIO}, {"EINVAL", EINVAL}, {"EMSGSIZE", EMSGSIZE}, {"ENOPROTOOPT", ENOPROTOOPT},
    {"ENOSYS", ENOSYS}, {"ENOBUFS", ENOBUFS}, {"EAGAIN", EAGAIN}, {"EPERM", EPERM},
    {"ENOMEM", ENOMEM}, {"ECONNREFUSED", ECONNREFUSED}, {"EOPNOTSUPP", EOPNOTSUPP},
    {"PARTIAL", -1}};

struct rule {
  enum call call;
  uint16_t port;  // 0: any
  int error;
  enum { ALWAYS, FIRST, NTH, EVERY } when;
  uint64_t number;
  _Atomic uint64_t seen;
};

// Calls of one kind. The packets are those in calls that failed.
struct count {
  _Atomic uint64_t calls, failures, packets;
};

enum { MOST_RULES = 16, MOST_PORTS = 65536 };

static struct rule rules[MOST_RULES];
static int rule_count;
// One for each kind of call, then one for the segmented sends to each port.
static struct count nowhere[CALLS + MOST_PORTS];
static struct count *counts = nowhere;

static void fail(const char *what, const char *rule) {
  dprintf(2, "faults: %s in \"%s\"\n", what, rule);
  _exit(99);
}

static void parse(const char *text) {
  struct rule *rule = &rules[rule_count];
  char call[32] = "", error[32] = "", when[32] = "";
  unsigned port = 0;
  unsigned long number = 0;
  if (sscanf(text, "%31[^:@]@%u:%31[^:]:%31[^/]/%lu", call, &port, error, when, &number) < 4 &&
      sscanf(text, "%31[^:@]:%31[^:]:%31[^/]/%lu", call, error, when, &number) < 3)
    fail("no rule", text);
  rule->call = CALLS;
  for (int i = 0; i < CALLS; i++)
    if (strcmp(call, names[i]) == 0) rule->call = (enum call)i;
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (strcmp(error, errors[i].name) == 0) rule->error = errors[i].value;
  if (rule->call == CALLS || rule->error == 0) fail("no such call or error", text);
  rule->port = (uint16_t)port;
  rule->number = number;
  rule->when = strcmp(when, "always") == 0  ? ALWAYS
               : strcmp(when, "first") == 0 ? FIRST
               : strcmp(when, "nth") == 0   ? NTH
                                            : EVERY;
  if (rule->when == EVERY && (strcmp(when, "every") != 0 || number == 0)) fail("when", text);
  rule_count++;
}

__attribute__((constructor)) static void prepare(void) {
  const char *path = getenv("CULVERT_FAULTS_REPORT");
  if (path) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, sizeof nowhere) != 0) fail("no report", path);
    counts = mmap(NULL, sizeof nowhere, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counts == MAP_FAILED) fail("no report", path);
    close(file);
  }
  static char text[1024];
  const char *given = getenv("CULVERT_FAULTS");
  strncpy(text, given ? given : "", sizeof text - 1);
  for (char *rule = strtok(text, ";"); rule; rule = strtok(NULL, ";")) {
    if (rule_count == MOST_RULES) fail("too many rules", rule);
    parse(rule);
  }
}

// The error for this call, -1 for PARTIAL, or 0 for none. Counts it.
static int fault(enum call call, uint16_t port, uint64_t packets) {
  counts[call].calls++;
  if (call == SEGMENTS) counts[CALLS + port].calls++;
  for (int i = 0; i < rule_count; i++) {
    struct rule *rule = &rules[i];
    if (rule->call != call || (rule->port != 0 && rule->port != port)) continue;
    uint64_t number = ++rule->seen;
    int is_due = rule->when == ALWAYS || (rule->when == FIRST && number == 1) ||
                 (rule->when == NTH && number == rule->number) ||
                 (rule->when == EVERY && number % rule->number == 0);
    if (!is_due) continue;
    counts[call].failures++;
    if (rule->error > 0) counts[call].packets += packets;
    if (call == SEGMENTS) counts[CALLS + port].failures++;
    return rule->error;
  }
  return 0;
}

// The function that this library interposes.
#define NEXT(function) ((typeof(&function))dlsym(RTLD_NEXT, #function))

int uname(struct utsname *system) {
  int result = NEXT(uname)(system);
  const char *release = getenv("CULVERT_FAULTS_RELEASE");
  if (result == 0 && release) snprintf(system->release, sizeof system->release, "%s", release);
  return result;
}

static int refuse(int error) {
  errno = error;
  return -1;
}

static uint16_t port_of(const struct msghdr *header) {
  const struct sockaddr *address = header->msg_name;
  if (!address) return 0;
  return ntohs(address->sa_family == AF_INET ? ((const struct sockaddr_in *)address)->sin_port
                                             : ((const struct sockaddr_in6 *)address)->sin6_port);
}

static int is_udp(int socket) {
  int domain = 0, type = 0;
  socklen_t length = sizeof domain;
  int errno_before = errno;
  getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &length);
  getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &length);
  errno = errno_before;
  return (domain == AF_INET || domain == AF_INET6) && type == SOCK_DGRAM;
}

// The segment size of UDP_SEGMENT; 0 if there is none.
static uint16_t segment_of(const struct msghdr *header) {
  struct msghdr copy = *header;
  for (struct cmsghdr *item = CMSG_FIRSTHDR(&copy); item; item = CMSG_NXTHDR(&copy, item)) {
    if (item->cmsg_level != IPPROTO_UDP || item->cmsg_type != UDP_SEGMENT) continue;
    uint16_t size;
    memcpy(&size, CMSG_DATA(item), sizeof size);
    return size;
  }
  return 0;
}

// Sending

ssize_t sendmsg(int socket, const struct msghdr *header, int flags) {
  uint16_t segment = segment_of(header);
  uint64_t packets = segment ? (header->msg_iov[0].iov_len + segment - 1) / segment : 1;
  int error = fault(segment ? SEGMENTS : SENDMSG, port_of(header), packets);
  return error ? refuse(error) : NEXT(sendmsg)(socket, header, flags);
}

// Culvert calls sendmmsg through syscall().
long syscall(long number, ...) {
  long words[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) words[i] = va_arg(list, long);
  va_end(list);
  if (number == SYS_sendmmsg) {
    const struct mmsghdr *messages = (const struct mmsghdr *)words[1];
    // Only the first datagram counts as refused: the program then sends it alone.
    int error = fault(SENDMMSG, port_of(&messages[0].msg_hdr), 1);
    if (error > 0) return refuse(error);
    if (error < 0 && words[2] > 1) words[2] /= 2;
  }
  return NEXT(syscall)(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}

// Receiving

ssize_t recvmsg(int socket, struct msghdr *header, int flags) {
  int error = is_udp(socket) ? fault(RECVMSG, 0, 0) : 0;
  return error ? refuse(error) : NEXT(recvmsg)(socket, header, flags);
}

int recvmmsg(
    int socket, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
  int error = fault(RECVMMSG, 0, 0);
  return error ? refuse(error) : NEXT(recvmmsg)(socket, messages, count, flags, timeout);
}

// Setting up

int setsockopt(int socket, int level, int name, const void *value, socklen_t length) {
  int error = 0;
  if (level == IPPROTO_UDP && name == UDP_GRO) error = fault(SET_GRO, 0, 0);
  if (level == IPPROTO_UDP && name == UDP_SEGMENT) error = fault(SET_SEGMENT, 0, 0);
  return error ? refuse(error) : NEXT(setsockopt)(socket, level, name, value, length);
}

int ioctl(int file, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void *argument = va_arg(list, void *);
  va_end(list);
  int error = 0;
  unsigned long flags = (unsigned long)argument;
  if (request == TUNSETOFFLOAD && flags != 0) error = fault(OFFLOAD, 0, 0);
  if (request == TUNSETOFFLOAD && !error && (flags & (TUN_F_USO4 | TUN_F_USO6)))
    error = fault(USO, 0, 0);
  if (request == TUNSETIFF && (((struct ifreq *)argument)->ifr_flags & IFF_VNET_HDR))
    error = fault(VNET, 0, 0);
  return error ? refuse(error) : NEXT(ioctl)(file, request, argument);
}

// The interface

ssize_t writev(int file, const struct iovec *pieces, int count) {
  // One piece for each packet; Culvert uses writev only for packets.
  int error = fault(WRITEV, 0, (uint64_t)count);
  return error ? refuse(error) : NEXT(writev)(file, pieces, count);
}
