// Everything that Culvert needs from Linux, with plain C types, so that Swift imports the same
// declarations with glibc and with musl. Rules for every function here:
//
// - A failure is returned as -errno. errno is read right after the call that failed. Success is 0,
//   a descriptor or a byte count.
// - Descriptors are opened close-on-exec, and non-blocking unless the comment says otherwise.
// - Addresses are two 64-bit words in host order, left-aligned like Culvert's IPAddress: an IPv4
//   address fills the upper 32 bits of `high`.
// - No function allocates. GNU-only calls and macros stay in the .c files.
#ifndef CLINUX_H
#define CLINUX_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "helper.h"

// Error numbers differ between architectures (MIPS), so they come from the target's own header.
enum {
  CLINUX_EPERM = EPERM,
  CLINUX_ENOENT = ENOENT,
  CLINUX_EINTR = EINTR,
  CLINUX_EIO = EIO,
  CLINUX_EBADF = EBADF,
  CLINUX_EAGAIN = EAGAIN,
  CLINUX_ENOMEM = ENOMEM,
  CLINUX_EACCES = EACCES,
  CLINUX_EBUSY = EBUSY,
  CLINUX_EEXIST = EEXIST,
  CLINUX_ENODEV = ENODEV,
  CLINUX_EINVAL = EINVAL,
  CLINUX_ENOSPC = ENOSPC,
  CLINUX_EROFS = EROFS,
  CLINUX_EPIPE = EPIPE,
  CLINUX_ERANGE = ERANGE,
  CLINUX_ENAMETOOLONG = ENAMETOOLONG,
  CLINUX_EPROTO = EPROTO,
  CLINUX_EBADFD = EBADFD,
  CLINUX_EMSGSIZE = EMSGSIZE,
  CLINUX_ENOPROTOOPT = ENOPROTOOPT,
  CLINUX_EOPNOTSUPP = EOPNOTSUPP,
  CLINUX_ENOSYS = ENOSYS,
  CLINUX_EAFNOSUPPORT = EAFNOSUPPORT,
  CLINUX_EADDRINUSE = EADDRINUSE,
  CLINUX_EADDRNOTAVAIL = EADDRNOTAVAIL,
  CLINUX_ENETDOWN = ENETDOWN,
  CLINUX_ENETUNREACH = ENETUNREACH,
  CLINUX_ECONNRESET = ECONNRESET,
  CLINUX_ENOBUFS = ENOBUFS,
  CLINUX_ECONNREFUSED = ECONNREFUSED,
  CLINUX_EHOSTUNREACH = EHOSTUNREACH,
};

// error.c

/// The text of strerror(3), in static memory.
const char *clinux_error_text(int error_number);
/// The symbolic name, such as "EPERM"; NULL for a number that is not in the list above.
const char *clinux_error_name(int error_number);

// memory.c

/// Maps zeroed, page-aligned, private memory. NULL on failure, with -errno in `error`.
void *clinux_memory_map(size_t byte_count, int *error);
int clinux_memory_unmap(void *start, size_t byte_count);
/// mlock(2). `start` is page-aligned.
int clinux_memory_lock(void *start, size_t byte_count);
/// madvise(MADV_DONTDUMP). `start` is page-aligned.
int clinux_memory_exclude_from_dumps(void *start, size_t byte_count);

/// Makes one page inaccessible, so that a stack overflow into it causes a fault.
int clinux_memory_guard(void *start);

// thread.c

/// A mutual exclusion lock, in memory that the caller provides.
struct clinux_lock {
  uint64_t opaque[8];
};

void clinux_lock_prepare(struct clinux_lock *lock);
void clinux_lock_acquire(struct clinux_lock *lock);
void clinux_lock_release(struct clinux_lock *lock);

/// Lets threads pass one at a time, in the order of their tickets: 0, 1, 2...
struct clinux_turnstile {
  uint64_t opaque[16];
};

void clinux_turnstile_prepare(struct clinux_turnstile *turnstile);
/// Waits until all tickets before this one have left.
void clinux_turnstile_enter(struct clinux_turnstile *turnstile, uint64_t ticket);
/// 1 if `enter` would not wait, else 0.
int clinux_turnstile_is_open(struct clinux_turnstile *turnstile, uint64_t ticket);
/// Ends the turn of the current ticket, so that the next one may enter.
void clinux_turnstile_leave(struct clinux_turnstile *turnstile);

/// Starts a thread on a stack that the caller provides and keeps until `join`. Writes the thread's
/// identifier to `thread`.
int clinux_thread_start(
    void *stack, size_t stack_byte_count, void *(*body)(void *), void *context, uint64_t *thread);
void clinux_thread_join(uint64_t thread);
/// The number of CPUs that this thread may run on; at least 1.
int clinux_cpu_count(void);

// process.c

/// Opens /dev/null for each of the descriptors 0, 1 and 2 that is closed, so that no socket gets
/// one of these numbers, and ignores SIGPIPE. Writing to 1 or 2 then still fails. Call it before
/// anything is opened.
int clinux_process_prepare(void);
/// Sets PR_SET_DUMPABLE and RLIMIT_CORE to 0.
int clinux_process_forbid_dumps(void);
/// Sleeps. Only used during startup.
void clinux_process_pause(int milliseconds);
/// The value of an environment variable, or NULL.
const char *clinux_process_environment(const char *name);

/// `path`, or a copy on the heap that begins with the working directory; NULL if that is unknown.
const char *clinux_process_absolute_path(const char *path);
/// The release of the running kernel, such as "6.12.57+deb13-amd64", NUL-terminated.
int clinux_process_kernel_release(char *release, size_t capacity);
/// Closes every descriptor from 3 on, except those in `kept` (in any order; negative ones are
/// skipped).
void clinux_process_close_inherited(const int *kept, int count);

/// Forks. Does not return in the parent, which exits with the byte that the child reports, or with
/// the child's exit status if it ends without a report. Returns the (blocking) descriptor for the
/// report in the child, which is in a new session.
int clinux_daemon_fork(void);
/// Reports `status` to the parent and closes `report`. With status 0, stdin and, unless
/// `keeps_output`, stdout and stderr become /dev/null, and the working directory becomes "/".
int clinux_daemon_report(int report, int status, int keeps_output);

// file.c

int clinux_file_close(int descriptor);
/// read(2) and write(2), restarted after a signal. Also for non-blocking descriptors.
intptr_t clinux_file_read(int descriptor, void *bytes, size_t byte_count);
intptr_t clinux_file_write(int descriptor, const void *bytes, size_t byte_count);

/// Records an error of writing to standard output, for `clinux_file_end_output`.
void clinux_file_note_output(int error);
/// Closes standard output. Returns the first error of writing to it (-errno), or 0.
int clinux_file_end_output(void);

/// A piece of a buffer: the layout of struct iovec.
struct clinux_slice {
  void *bytes;
  size_t byte_count;
};

/// writev(2), restarted after a signal. At most 1024 pieces.
intptr_t clinux_file_write_pieces(
    int descriptor, const struct clinux_slice *pieces, int count);
/// Makes an inherited descriptor non-blocking and close-on-exec.
int clinux_file_adopt(int descriptor);

enum {
  CLINUX_FILE_DIRECTORY = 1,
  /// Can be read more than once.
  CLINUX_FILE_SEEKABLE = 2,
  /// Other users have a permission on the file that they also have on its directory: the condition
  /// of the warning in wg-quick(8).
  CLINUX_FILE_EXPOSED = 4,
};

/// Opens a file for reading, blocking, and reports its traits.
int clinux_file_open(const char *path, uint32_t *traits);
/// Seeks to the first byte.
int clinux_file_rewind(int descriptor);

/// Reads a small file completely. Returns its byte count, or -EMSGSIZE if it does not fit.
intptr_t clinux_state_read(
    const char *directory, const char *name, void *bytes, size_t capacity);
/// Replaces a small file atomically: after a crash, it has either the old or the new contents.
/// Creates the last component of `directory` (0700) if it is missing. Waits for the disk.
int clinux_state_write(
    const char *directory, const char *name, const void *bytes, size_t byte_count);

// events.c

/// Nanoseconds of CLOCK_BOOTTIME, or of CLOCK_MONOTONIC if the kernel lacks it.
uint64_t clinux_clock_boottime(void);
/// CLOCK_MONOTONIC in nanoseconds, which does not advance while the system is suspended.
uint64_t clinux_clock_monotonic(void);
/// CLOCK_THREAD_CPUTIME_ID: the processor time of the calling thread, in nanoseconds.
uint64_t clinux_clock_thread(void);
/// CLOCK_REALTIME. A clock set before 1970 reads as 0.
void clinux_clock_realtime(uint64_t *seconds, uint32_t *nanoseconds);

enum {
  CLINUX_READABLE = 1,
  CLINUX_WRITABLE = 2,
  /// Error or hang-up; always reported.
  CLINUX_FAILED = 4,
  /// Only as interest: report one event, then none until the entry is modified.
  CLINUX_ONCE = 8,
  /// Only as interest: report changes of readiness (edge-triggered), not the state.
  CLINUX_EDGE = 16,
};

/// One ready descriptor. Unlike `struct epoll_event`, which is packed on x86-64, it has the same
/// layout on every architecture.
struct clinux_event {
  uint64_t token;
  uint32_t readiness;
  uint32_t reserved;
};

int clinux_epoll_open(void);
int clinux_epoll_add(int epoll, int descriptor, uint32_t interest, uint64_t token);
int clinux_epoll_modify(int epoll, int descriptor, uint32_t interest, uint64_t token);
int clinux_epoll_remove(int epoll, int descriptor);
/// Waits up to `timeout_milliseconds`; -1 means without limit. Returns the number of events, at
/// most 32; also 0 after a signal.
int clinux_epoll_wait(
    int epoll, struct clinux_event *events, int capacity, int timeout_milliseconds);

/// A timer on CLOCK_BOOTTIME, or on CLOCK_MONOTONIC (`is_boottime` 0) if that is missing.
int clinux_timer_open(int *is_boottime);
/// Fires once at a time of `clinux_clock_boottime`, or immediately if that has passed.
int clinux_timer_arm(int timer, int is_boottime, uint64_t nanoseconds);
int clinux_timer_disarm(int timer);
/// Clears the expiry. Returns 1 if the timer had fired, else 0.
int clinux_timer_acknowledge(int timer);

enum {
  CLINUX_SIGNAL_NONE = 0,
  CLINUX_SIGNAL_TERMINATE = 1,
  CLINUX_SIGNAL_INTERRUPT = 2,
  CLINUX_SIGNAL_HANGUP = 3,
  CLINUX_SIGNAL_USER1 = 4,
};

/// Blocks SIGTERM, SIGINT, SIGHUP and SIGUSR1 in this thread and in threads that it starts, except
/// those that are ignored, and returns a descriptor that reports them.
int clinux_signals_open(void);
/// Only blocks these signals. They stay pending until a descriptor reports them.
int clinux_signals_hold(void);
/// The next signal, or CLINUX_SIGNAL_NONE.
int clinux_signals_next(int signals);

// link.c

/// 1 if this thread is in this network namespace, 0 if it is in another one, or -errno.
int clinux_namespace_is_own(int network_namespace);
/// Opens a socket in a network namespace and switches back; -1 means this thread's own. Needs
/// CAP_SYS_ADMIN for another one.
int clinux_socket_in_namespace(int network_namespace, int domain, int type, int protocol);

/// Bytes of an interface name, including its terminating NUL.
#define CLINUX_NAME_BYTE_COUNT 16

/// A socket for the ioctls below, in the namespace of a descriptor; -1 means this thread's own.
int clinux_link_open(int network_namespace);
int clinux_link_index(int control, const char *name, uint32_t *index);
int clinux_link_mtu(int control, const char *name, uint32_t *mtu);
int clinux_link_set_mtu(int control, const char *name, uint32_t mtu);
/// 1 if the interface is administratively up, 0 if it is down.
int clinux_link_is_up(int control, const char *name);
int clinux_link_set_up(int control, const char *name, int is_up);

/// Adds an address of family 4 or 6, and thus the route to its network, to interface `index` of a
/// namespace; -1 means this thread's own. -EEXIST if the interface already has the address.
int clinux_link_add_address(int network_namespace, uint32_t index, int family, uint64_t high,
    uint64_t low, uint8_t prefix_length);
/// Sets the MTU, unless it is 0, and brings the interface up, in one request.
int clinux_link_start(int network_namespace, uint32_t index, uint32_t mtu);
struct clinux_datagram;
/// The MTU of the route to `target` for datagrams with this mark, ignoring path MTUs learned from
/// ICMP. -ENETUNREACH if there is no route, or if it uses the interface `skipped_index`.
int clinux_link_route_mtu(
    const struct clinux_datagram *target, uint32_t mark, uint32_t skipped_index);

/// A route netlink socket for `clinux_route_judge_source`, which costs little if it stays open.
int clinux_route_open(void);
enum {
  /// Datagrams with this source leave by another interface than `interface`, or not at all.
  CLINUX_SOURCE_REFUSED = 0,
  /// They leave by `interface` or stay on this host, but if they named none, it would be another.
  CLINUX_SOURCE_NEEDED = 1,
  /// They have this source even if they name none; or there is no route.
  CLINUX_SOURCE_IMPLIED = 2,
};
/// Judges the source of datagrams from `local_port` to `target` with this mark. -errno if the
/// routing table cannot be asked.
int clinux_route_judge_source(
    int netlink, const struct clinux_datagram *target, uint16_t local_port, uint32_t mark);

/// A route netlink socket, in this thread's own namespace, that reports changes of links,
/// addresses, routes, next hops and rules.
int clinux_news_open(void);
/// Reads one datagram. 1 if datagrams may now leave another way, also if messages were lost; 0 if
/// it reports only the interface `skipped_index` or nothing of interest; -EAGAIN if there is none.
int clinux_news_next(int netlink, uint32_t skipped_index);
/// As above, for a datagram that was read. `bytes` has the alignment of `struct nlmsghdr`.
int clinux_news_in(const void *bytes, size_t byte_count, uint32_t skipped_index);

// events.c, which also reads the events of one link

enum {
  CLINUX_LINK_NOTHING = 0,
  CLINUX_LINK_CHANGED = 1,
  CLINUX_LINK_DELETED = 2,
};

struct clinux_link {
  uint32_t event;
  uint32_t mtu;
  uint32_t is_up;
  char name[CLINUX_NAME_BYTE_COUNT];
};

/// A route netlink socket for link events, in the namespace of a descriptor; -1 means this thread's
/// own.
int clinux_netlink_open(int network_namespace);
/// Reads one datagram and summarises what it reports about interface `index`. 1 if a datagram was
/// read, 0 if there is none, -ENOBUFS if events were lost.
int clinux_netlink_next(int netlink, uint32_t index, struct clinux_link *link);

// tun.c

enum {
  CLINUX_TUN_TUN = 1,
  CLINUX_TUN_NO_PI = 2,
  CLINUX_TUN_VNET_HDR = 4,
  CLINUX_TUN_PERSISTENT = 8,
  CLINUX_TUN_MULTI_QUEUE = 16,
};

/// Attaches to the TUN `name`, or creates it (the kernel replaces "%d" in the name with a number).
/// `features` may contain CLINUX_TUN_VNET_HDR. -EBUSY if another process is attached to the TUN.
int clinux_tun_open(const char *name, uint32_t features);
/// Writes the current name, CLINUX_NAME_BYTE_COUNT bytes, and the CLINUX_TUN flags. -EBADFD if the
/// interface was deleted.
int clinux_tun_identify(int tun, char *name, uint32_t *flags);
/// Bytes of the virtio header before each packet, for a TUN that has these headers: 10-16.
int clinux_tun_header_byte_count(int tun);

enum {
  CLINUX_TUN_CHECKSUM = 1,
  /// TCP segments of either family.
  CLINUX_TUN_TSO = 2,
  /// UDP segments of either family (Linux 6.2).
  CLINUX_TUN_USO = 4,
};

/// Sets the offloads, that is the work that the kernel may leave to the reader of a TUN with virtio
/// headers. -EINVAL if the kernel does not know one of them.
int clinux_tun_set_offloads(int tun, uint32_t offloads);
/// A descriptor of the interface's network namespace (Linux 5.0 and later; CAP_NET_ADMIN).
int clinux_tun_namespace(int tun);

// udp.c

/// The metadata of a datagram: its path, traffic class and more.
struct clinux_datagram {
  uint64_t address_high, address_low;
  /// Local address; zero leaves the choice to the routing table.
  uint64_t source_high, source_low;
  /// sin6_scope_id.
  uint32_t scope;
  /// Index of the interface that received the datagram; 0 if unknown.
  uint32_t interface;
  /// Host order.
  uint16_t port;
  /// 4 or 6.
  uint8_t family;
  /// TOS or traffic class.
  uint8_t traffic_class;
  /// Received datagrams only: the datagram was longer than the buffer.
  uint8_t is_truncated;
  uint8_t reserved;
  /// Received datagrams only: the buffer holds several datagrams of this size, the last of which
  /// may be shorter (UDP_GRO); 0 for a single datagram.
  uint16_t segment_byte_count;
};

/// A bound socket of family 4 or 6 (family 6 never carries mapped IPv4). Port 0 means any free
/// port, and `mark` 0 means none. The receive buffer is set to `buffer_byte_count`, and the send
/// buffer to the same, but to at most a megabyte; the system's limits apply without CAP_NET_ADMIN.
int clinux_udp_open(int family, uint16_t port, uint32_t mark, int buffer_byte_count);
/// The bound port, in host order.
int clinux_udp_port(int udp);
int clinux_udp_set_mark(int udp, uint32_t mark);
/// Receives several datagrams of one sender in one buffer (Linux 5.0). -ENOPROTOOPT before that.
int clinux_udp_set_gro(int udp, int is_on);
/// 0 if the kernel has `clinux_udp_send_segments` (Linux 4.18), else -ENOPROTOOPT.
int clinux_udp_has_segmentation(int udp);
intptr_t clinux_udp_receive(
    int udp, void *bytes, size_t capacity, struct clinux_datagram *datagram);
int clinux_udp_send(
    int udp, const void *bytes, size_t byte_count, const struct clinux_datagram *datagram);
/// Sends the buffer as datagrams of `segment_byte_count` bytes each, the last one with the rest, in
/// one call (UDP_SEGMENT). All are sent or none. Up to 64 datagrams and 65,487 bytes.
int clinux_udp_send_segments(
    int udp, const void *bytes, size_t byte_count, uint16_t segment_byte_count,
    const struct clinux_datagram *datagram);

enum {
  /// The most datagrams in one call of the next two functions.
  CLINUX_MESSAGES_PER_CALL = 32,
};

/// Receives up to `count` (1-32) datagrams, the one at index i to `bytes` + i * `stride`, each of
/// up to `capacity` bytes (recvmmsg). Returns how many; their sizes go to `byte_counts`.
int clinux_udp_receive_many(
    int udp, void *bytes, size_t stride, size_t capacity, int count,
    struct clinux_datagram *datagrams, uint32_t *byte_counts);
/// Sends up to `count` (1-32) datagrams on one path (sendmmsg). Returns how many were sent, at
/// least 1, or -errno for the first.
int clinux_udp_send_many(
    int udp, const struct clinux_slice *datagrams, int count,
    const struct clinux_datagram *datagram);

/// A non-blocking socket on a random port that is connected to `target`, or is being connected: it
/// exchanges data with that address only. Uses the address, scope, port and family of `target`.
/// UDP, or TCP if `is_stream`. Its packets carry the firewall mark, if that is permitted.
/// -ENETUNREACH if there is no route.
int clinux_resolve_open(const struct clinux_datagram *target, uint32_t mark, int is_stream);

/// A socket bound to one address and port: the datagram's `family`, `address_high`, `address_low`,
/// `port` and, for link-local IPv6, `scope`. Needs no capability unless the port does. Use the
/// functions above to receive and send.
int clinux_forward_open(const struct clinux_datagram *local, int buffer_byte_count);

// refusal.c

/// A raw socket for `clinux_refusal_send` that receives nothing. -EPERM without CAP_NET_RAW.
int clinux_refusal_open(int family);
/// Sends an ICMP "port unreachable" to a client, about a datagram from its address and port to the
/// source address and `port`. Uses the address, scope, port, family and source of `client`.
int clinux_refusal_send(int raw, const struct clinux_datagram *client, uint16_t port);
/// The socket keeps its port, but the kernel refuses all datagrams to it, until `reopen`.
int clinux_forward_close(int udp);
int clinux_forward_reopen(int udp);

// uapi.c

/// A listening UAPI socket, and the identity of its file, which another process may replace.
struct clinux_uapi {
  uint64_t device;
  uint64_t inode;
  int32_t listener;
  /// inotify descriptor; -1 if the file cannot be watched.
  int32_t watch;
};

/// Connects to the configuration socket DIRECTORY/NAME.sock. Returns the descriptor, which blocks,
/// or -errno.
int clinux_uapi_connect(const char *directory, const char *name);

/// Listens on DIRECTORY/NAME.sock. Replaces a socket on which no process listens; -EADDRINUSE if
/// one does.
int clinux_uapi_open(const char *directory, const char *name, struct clinux_uapi *uapi);
/// Takes over a listening socket. Its file is assumed to be DIRECTORY/NAME.sock, if that exists.
int clinux_uapi_adopt(
    int listener, const char *directory, const char *name, struct clinux_uapi *uapi);
/// A connection, or -EAGAIN.
int clinux_uapi_accept(int listener);
/// 0 if the client has closed the connection, 1 if it can still read.
int clinux_uapi_has_client(int connection);
/// Drains the watch. 1 if the file is still the one that was bound, else 0.
int clinux_uapi_is_present(
    const struct clinux_uapi *uapi, const char *directory, const char *name);
/// Unlinks the file if it is still the one that was bound.
int clinux_uapi_remove(
    const struct clinux_uapi *uapi, const char *directory, const char *name);

#endif
