// The helper process: it does what can block for the process that carries packets. It writes the
// log and reads and writes state files. Everything here is system calls on the stack: the helper
// is a fork of the program before the arena is mapped, and uses nothing else of it.
#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  // The kernel doubles it. It holds about a hundred lines.
  LOG_QUEUE_BYTE_COUNT = 48 * 1024,
  LINE_BYTE_COUNT = 512,
  // How long the helper tries to write the last lines after the program has ended.
  LAST_MILLISECONDS = 500,
};

// In shared memory: lines that did not fit the queue and have not been reported yet.
struct shared {
  _Atomic uint32_t omitted;
};

static struct {
  int lines; // -1 without a helper
  int requests;
  pid_t pid;
  struct shared *shared;
} self = {.lines = -1, .requests = -1};

struct line {
  uint8_t output;
  char text[LINE_BYTE_COUNT];
};

// MARK: In the helper

static int is_ready(int descriptor, short events, int timeout_milliseconds) {
  struct pollfd entry = {.fd = descriptor, .events = events};
  return poll(&entry, 1, timeout_milliseconds) == 1;
}

// Writes a line that poll has found room for. A pipe with room takes 512 bytes at once.
static void write_line(int output, const char *text, size_t byte_count) {
  while (byte_count > 0) {
    intptr_t count = clinux_file_write(output, text, byte_count);
    if (count <= 0) return;
    text += count;
    byte_count -= (size_t)count;
  }
}

static size_t describe_omitted(uint32_t count, char *text) {
  static const char end[] = " log lines were left out, because nobody read them\n";
  char digits[10];
  size_t used = 0, first = sizeof digits;
  do {
    digits[--first] = (char)('0' + count % 10);
    count /= 10;
  } while (count > 0);
  memcpy(text, "culvert: ", 9);
  used = 9;
  memcpy(text + used, digits + first, sizeof digits - first);
  used += sizeof digits - first;
  memcpy(text + used, end, sizeof end - 1);
  return used + sizeof end - 1;
}

static void discard_output(void) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  dup2(null, 1);
  dup2(null, 2);
  if (null > 2) close(null);
}

// Starts a process that reads the configuration files: that may block, and the helper must go on.
// It sends the reply. 0, or -EBUSY if there is already one.
static int start_reload(int requests, struct clinux_request *request, clinux_reload reload) {
  static pid_t last = 0;
  // SIGCHLD is ignored, so a process that has ended is not found.
  if (last > 0 && waitpid(last, NULL, WNOHANG) == 0) return -EBUSY;
  pid_t helper = getpid();
  last = fork();
  if (last < 0) return -errno;
  if (last > 0) return 0;
  prctl(PR_SET_NAME, "culvert-reload", 0, 0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != helper) _exit(1);
  self.requests = requests;
  request->result = reload(request->name);
  _exit(clinux_helper_reply(request) == 0 ? 0 : 1);
}

static void serve(
    int requests, struct clinux_request *request, const char *directory, clinux_reload reload
) {
  request->result = 0;
  switch (request->kind) {
    case CLINUX_REQUEST_READ:
      request->result = (int32_t)clinux_state_read(
          directory, request->name, request->bytes, sizeof request->bytes);
      break;
    case CLINUX_REQUEST_WRITE:
      request->result = clinux_state_write(
          directory, request->name, request->bytes, CLINUX_STATE_BYTE_COUNT);
      break;
    case CLINUX_REQUEST_DISCARD:
      discard_output();
      break;
    case CLINUX_REQUEST_RELOAD:
      request->result = start_reload(requests, request, reload);
      if (request->result == 0) return;
      break;
  }
  send(requests, request, sizeof *request, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static uint64_t milliseconds(void) { return clinux_clock_boottime() / 1000000; }

static _Noreturn void run(
    int lines, int requests, struct shared *shared, const char *directory, clinux_reload reload
) {
  struct line line = {.output = 1};
  struct clinux_request request;
  size_t pending = 0; // bytes of `line` that wait to be written
  int has_lines = 1, has_requests = 1;
  uint64_t end = 0; // when to give up, once the program has ended
  for (;;) {
    // If everything queued has been written, the omitted lines are reported, where the last line
    // was written.
    if (pending == 0 && (!has_lines || !is_ready(lines, POLLIN, 0))) {
      uint32_t omitted = atomic_exchange(&shared->omitted, 0);
      if (omitted > 0) pending = describe_omitted(omitted, line.text);
    }
    if (pending == 0 && !has_lines && !has_requests) _exit(0);
    if (end == 0 && !has_requests) end = milliseconds() + LAST_MILLISECONDS;
    uint64_t now = end == 0 ? 0 : milliseconds();
    if (end != 0 && now >= end) _exit(0);
    struct pollfd entries[] = {
        {.fd = has_requests ? requests : -1, .events = POLLIN},
        {.fd = pending > 0 ? line.output : has_lines ? lines : -1,
         .events = pending > 0 ? POLLOUT : POLLIN},
    };
    if (poll(entries, 2, end == 0 ? -1 : (int)(end - now)) < 0) continue;
    if (entries[0].revents != 0) {
      ssize_t count = recv(requests, &request, sizeof request, MSG_DONTWAIT);
      if (count == sizeof request)
        serve(requests, &request, directory, reload);
      else if (count >= 0 || (errno != EAGAIN && errno != EINTR))
        has_requests = 0;
    }
    if (entries[1].revents == 0) continue;
    if (pending > 0) {
      write_line(line.output, line.text, pending);
      pending = 0;
      continue;
    }
    ssize_t count = recv(lines, &line, sizeof line, MSG_DONTWAIT);
    if (count > 1)
      pending = (size_t)count - 1;
    else if (count >= 0 || (errno != EAGAIN && errno != EINTR))
      has_lines = 0;
  }
}

static void close_all_but(int first, int second) {
  struct rlimit limit = {.rlim_cur = 1024};
  getrlimit(RLIMIT_NOFILE, &limit);
  int low = first < second ? first : second, high = first < second ? second : first;
  int last = limit.rlim_cur > 65536 ? 65536 : (int)limit.rlim_cur;
#ifdef SYS_close_range
  if (low > 3) syscall(SYS_close_range, 3u, (unsigned)low - 1, 0);
  if (high > low + 1) syscall(SYS_close_range, (unsigned)low + 1, (unsigned)high - 1, 0);
  if (syscall(SYS_close_range, (unsigned)high + 1, ~0u, 0) == 0) return;
#endif
  for (int descriptor = 3; descriptor < last; descriptor++) {
    if (descriptor != low && descriptor != high) close(descriptor);
  }
}

// MARK: In the program

int clinux_helper_start(const char *directory, clinux_reload reload) {
  int lines[2], requests[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, lines) != 0) return -errno;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, requests) != 0) {
    int error = -errno;
    close(lines[0]);
    close(lines[1]);
    return error;
  }
  int byte_count = LOG_QUEUE_BYTE_COUNT;
  setsockopt(lines[0], SOL_SOCKET, SO_SNDBUF, &byte_count, sizeof byte_count);
  struct shared *shared = mmap(
      NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t pid = shared == MAP_FAILED ? -1 : fork();
  if (pid < 0) {
    int error = -errno;
    for (int end = 0; end < 2; end++) {
      close(lines[end]);
      close(requests[end]);
    }
    return error;
  }
  if (pid == 0) {
    // Ctrl-C and a service manager's signals reach the helper too. It ends after the program, so
    // that the last lines are written.
    sigset_t set;
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    signal(SIGCHLD, SIG_IGN);
    // A working directory would keep its file system mounted.
    if (chdir("/") != 0) _exit(1);
    prctl(PR_SET_NAME, "culvert-helper", 0, 0, 0);
    close_all_but(lines[1], requests[1]);
    // The caller's standard input must not stay open.
    close(0);
    open("/dev/null", O_RDWR);
    run(lines[1], requests[1], shared, directory, reload);
  }
  close(lines[1]);
  close(requests[1]);
  self.lines = lines[0];
  self.requests = requests[0];
  self.shared = shared;
  self.pid = pid;
  return 0;
}

int clinux_helper_write(int output, const void *bytes, size_t byte_count) {
  if (self.lines < 0 || (output != 1 && output != 2)) return 0;
  const uint8_t *text = bytes;
  while (byte_count > 0) {
    struct line line = {.output = (uint8_t)output};
    size_t part = byte_count < sizeof line.text ? byte_count : sizeof line.text;
    memcpy(line.text, text, part);
    if (send(self.lines, &line, part + 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
      atomic_fetch_add(&self.shared->omitted, 1);
    text += part;
    byte_count -= part;
  }
  return 1;
}

int clinux_helper_descriptor(void) { return self.requests; }

int clinux_helper_send(const struct clinux_request *request) {
  if (self.requests < 0) return -EPIPE;
  ssize_t count = send(self.requests, request, sizeof *request, MSG_DONTWAIT | MSG_NOSIGNAL);
  return count < 0 ? -errno : 0;
}

int clinux_helper_reply(const struct clinux_request *reply) {
  ssize_t count;
  do {
    count = send(self.requests, reply, sizeof *reply, MSG_NOSIGNAL);
  } while (count < 0 && errno == EINTR);
  return count < 0 ? -errno : 0;
}

int clinux_helper_receive(struct clinux_request *request, int timeout_milliseconds) {
  if (self.requests < 0) return -EPIPE;
  uint64_t end = milliseconds() + (uint64_t)timeout_milliseconds;
  for (;;) {
    ssize_t count = recv(self.requests, request, sizeof *request, MSG_DONTWAIT);
    if (count == sizeof *request) return 1;
    if (count >= 0) return -EPIPE;
    if (errno != EAGAIN && errno != EINTR) return -errno;
    uint64_t now = milliseconds();
    if (now >= end) return 0;
    is_ready(self.requests, POLLIN, (int)(end - now));
  }
}

static void reap(void) {
  int status;
  if (self.pid > 0) waitpid(self.pid, &status, WNOHANG);
  self.pid = 0;
}

// Ends the helper: gives it time to write the last lines, and then kills it. A process that waits
// for a disk cannot be killed, and is not waited for.
void clinux_helper_end(int timeout_milliseconds) {
  if (self.lines < 0) return;
  close(self.lines);
  self.lines = -1;
  shutdown(self.requests, SHUT_WR);
  // The helper's end of the socket closes when it exits.
  struct clinux_request late;
  uint64_t end = milliseconds() + (uint64_t)timeout_milliseconds;
  for (uint64_t now = milliseconds(); now < end; now = milliseconds()) {
    if (clinux_helper_receive(&late, (int)(end - now)) < 0) break;
  }
  close(self.requests);
  self.requests = -1;
  if (self.pid > 0) kill(self.pid, SIGKILL);
  reap();
}

void clinux_helper_abandon(void) {
  static const char text[] = "culvert: the helper process has ended; nothing is logged or stored\n";
  if (self.lines < 0) return;
  // Only if it cannot block.
  if (is_ready(2, POLLOUT, 0)) write_line(2, text, sizeof text - 1);
  close(self.lines);
  close(self.requests);
  reap();
  // Lines are still dropped, not written directly.
  self.requests = -1;
  self.lines = INT32_MAX;
}
