// The helper process: it does what can block for the process that carries packets. It writes the
// log and reads and writes state files. It only makes system calls and only uses its stack, because
// a second helper is forked while the program has threads (fork(2)). Its child that reads
// configuration files may use the heap too: no thread was using it, because the program allocates
// nothing after the start. The arena with the keys is not inherited: the first helper is forked
// before it is mapped, and then MADV_DONTFORK excludes it.
#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  // The kernel doubles it. It holds about 250 lines, more than SIGUSR1 prints.
  LOG_QUEUE_BYTE_COUNT = 96 * 1024,
  LINE_BYTE_COUNT = 512,
  // How long the helper tries to write the last lines after the program has ended.
  LAST_MILLISECONDS = 500,
  // Between two restarts: whatever ends helpers all the time must not keep the program busy.
  RESTART_MILLISECONDS = 60 * 1000,
  // How long an ended process may take to become a zombie.
  REAP_MILLISECONDS = 5,
};

// In shared memory: lines that did not fit the queue and have not been reported yet.
struct shared {
  _Atomic uint32_t omitted;
};

static struct {
  int is_started;
  // -1 without a helper. Text is then written directly before the start, and left out after it.
  int lines;
  int requests;
  pid_t pid; // 0 once its end is known
  uint32_t unanswered; // requests
  uint64_t earliest_restart;
  const char *directory;
  clinux_reload reload;
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

// Writes text after poll has found room for it: a pipe with room takes 512 bytes at once. It may
// still block, for example on a disk or if other processes write to the pipe; requests then wait.
// Returns how much of the text is done with: less than `byte_count` if the descriptor is full and
// does not block, and all of it after an error.
static size_t write_text(int output, const char *text, size_t byte_count) {
  size_t used = 0;
  while (used < byte_count) {
    intptr_t count = clinux_file_write(output, text + used, byte_count - used);
    if (count == -EAGAIN) break;
    if (count <= 0) return byte_count;
    used += (size_t)count;
  }
  return used;
}

static size_t describe_omitted(uint32_t count, char *text) {
  static const char end[] = " log lines were left out, because they could not be written in time\n";
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
static int start_reload(int requests, struct clinux_request *request) {
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
  request->result = self.reload(request->name);
  _exit(clinux_helper_reply(request) == 0 ? 0 : 1);
}

// A name comes from the process that talks to the network: it must not lead out of the directory.
static int is_file_name(const char *name, size_t capacity) {
  size_t length = strnlen(name, capacity);
  return length > 0 && length < capacity && !memchr(name, '/', length) &&
         strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static void reply(int requests, const struct clinux_request *request) {
  send(requests, request, sizeof *request, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void serve(int requests, struct clinux_request *request, const char *directory) {
  int has_name = is_file_name(request->name, sizeof request->name);
  request->result = -EINVAL;
  switch (request->kind) {
    case CLINUX_REQUEST_READ:
      if (!has_name) break;
      request->result = (int32_t)clinux_state_read(
          directory, request->name, request->bytes, sizeof request->bytes);
      break;
    case CLINUX_REQUEST_WRITE:
      if (!has_name) break;
      request->result = clinux_state_write(
          directory, request->name, request->bytes, CLINUX_STATE_BYTE_COUNT);
      break;
    case CLINUX_REQUEST_RELOAD:
      if (!has_name) break;
      request->result = start_reload(requests, request);
      if (request->result == 0) return;
      break;
  }
  reply(requests, request);
}

static uint64_t milliseconds(void) { return clinux_clock_boottime() / 1000000; }

static _Noreturn void run(int lines, int requests, struct shared *shared, const char *directory) {
  struct line line = {.output = 1};
  struct clinux_request request, discard = {.kind = 0};
  size_t first = 0, last = 0; // the part of `line` that waits to be written
  int has_lines = 1, has_requests = 1;
  uint64_t end = 0; // when to give up, once the program has ended
  for (;;) {
    // If everything queued has been written, the omitted lines are reported, where the last line
    // was written.
    if (first == last && (!has_lines || !is_ready(lines, POLLIN, 0))) {
      uint32_t omitted = atomic_exchange(&shared->omitted, 0);
      if (omitted > 0) first = 0, last = describe_omitted(omitted, line.text);
    }
    // Lines that were sent before the request are written first.
    if (first == last && discard.kind == CLINUX_REQUEST_DISCARD && !is_ready(lines, POLLIN, 0)) {
      discard_output();
      reply(requests, &discard);
      discard.kind = 0;
    }
    if (first == last && !has_lines && !has_requests) _exit(0);
    if (end == 0 && !has_requests) end = milliseconds() + LAST_MILLISECONDS;
    uint64_t now = end == 0 ? 0 : milliseconds();
    if (end != 0 && now >= end) _exit(0);
    int output = line.output == 2 ? 2 : 1;
    struct pollfd entries[] = {
        {.fd = has_requests ? requests : -1, .events = POLLIN},
        {.fd = first < last ? output : has_lines ? lines : -1,
         .events = first < last ? POLLOUT : POLLIN},
    };
    if (poll(entries, 2, end == 0 ? -1 : (int)(end - now)) < 0) continue;
    if (entries[0].revents != 0) {
      ssize_t count = recv(requests, &request, sizeof request, MSG_DONTWAIT);
      if (count == sizeof request && request.kind == CLINUX_REQUEST_DISCARD)
        discard = request;
      else if (count == sizeof request)
        serve(requests, &request, directory);
      else if (count >= 0 || (errno != EAGAIN && errno != EINTR))
        has_requests = 0;
    }
    if (entries[1].revents == 0) continue;
    if (first < last) {
      first += write_text(output, line.text + first, last - first);
      continue;
    }
    ssize_t count = recv(lines, &line, sizeof line, MSG_DONTWAIT);
    if (count > 1)
      first = 0, last = (size_t)count - 1;
    else if (count >= 0 || (errno != EAGAIN && errno != EINTR))
      has_lines = 0;
  }
}

static _Noreturn void become_helper(int lines, int requests) {
  // Ctrl-C and a service manager's signals reach the helper too. It ends after the program, so
  // that the last lines are written.
  sigset_t set;
  sigfillset(&set);
  sigprocmask(SIG_SETMASK, &set, NULL);
  signal(SIGCHLD, SIG_IGN);
  prctl(PR_SET_NAME, "culvert-helper", 0, 0, 0);
  const int kept[] = {lines, requests};
  clinux_process_close_inherited(kept, 2);
  // Neither the caller's standard input nor its directory may stay in use (R61).
  close(0);
  open("/dev/null", O_RDWR);
  if (self.directory[0] == '/' && chdir("/") != 0) _exit(1);
  run(lines, requests, self.shared, self.directory);
}

// MARK: In the program

static int start(void) {
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
  pid_t pid = fork();
  if (pid < 0) {
    int error = -errno;
    for (int end = 0; end < 2; end++) {
      close(lines[end]);
      close(requests[end]);
    }
    return error;
  }
  if (pid == 0) become_helper(lines[1], requests[1]);
  close(lines[1]);
  close(requests[1]);
  self.lines = lines[0];
  self.requests = requests[0];
  self.pid = pid;
  self.unanswered = 0;
  return 0;
}

int clinux_helper_start(const char *directory, clinux_reload reload) {
  struct shared *shared = mmap(
      NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return -errno;
  self.directory = directory;
  self.reload = reload;
  self.shared = shared;
  int error = start();
  self.is_started = error == 0;
  return error;
}

// Closes our ends, so that the helper ends if it has not yet.
static void disconnect(void) {
  int lines = self.lines, requests = self.requests;
  self.lines = self.requests = -1;
  if (lines >= 0) close(lines);
  if (requests >= 0) close(requests);
}

// Collects a helper that has closed its sockets. It is not waited for if closing a file hangs.
static void reap(void) {
  for (int i = 0; self.pid > 0 && i < REAP_MILLISECONDS; i++) {
    pid_t ended;
    do {
      ended = waitpid(self.pid, NULL, WNOHANG);
    } while (ended < 0 && errno == EINTR);
    if (ended != 0) break;
    clinux_process_pause(1);
  }
  self.pid = 0;
}

int clinux_helper_restart(void) {
  disconnect();
  reap();
  uint64_t now = milliseconds();
  if (now < self.earliest_restart) return -EAGAIN;
  self.earliest_restart = now + RESTART_MILLISECONDS;
  return start();
}

void clinux_helper_abandon(void) {
  static const char text[] =
      "culvert: the helper process was killed again; nothing is logged or stored any more\n";
  disconnect();
  reap();
  // Only if it cannot block.
  if (is_ready(2, POLLOUT, 0)) write_text(2, text, sizeof text - 1);
}

int clinux_helper_write(int output, const void *bytes, size_t byte_count) {
  if (!self.is_started || (output != 1 && output != 2)) return 0;
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
  if (count < 0) return -errno;
  self.unanswered++;
  return 0;
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
    if (count == sizeof *request) {
      int is_answer =
          request->kind != CLINUX_REQUEST_FORGET_NAMES && request->kind != CLINUX_REQUEST_NAME;
      if (is_answer && self.unanswered > 0) self.unanswered--;
      return 1;
    }
    if (count >= 0) return -EPIPE;
    if (errno != EAGAIN && errno != EINTR) return -errno;
    uint64_t now = milliseconds();
    if (now >= end) return 0;
    is_ready(self.requests, POLLIN, (int)(end - now));
  }
}

// Ends the helper: gives it time to write the last lines, and then kills it. A process that waits
// for a disk cannot be killed, and is not waited for.
void clinux_helper_end(int timeout_milliseconds) {
  if (self.lines < 0) return;
  // The program has already waited for the replies, so the helper hangs.
  if (self.unanswered > 0) timeout_milliseconds /= 4;
  close(self.lines);
  self.lines = -1;
  shutdown(self.requests, SHUT_WR);
  // The helper's end of the socket closes when it exits.
  struct clinux_request late;
  uint64_t end = milliseconds() + (uint64_t)timeout_milliseconds;
  int result = 0;
  for (uint64_t now = milliseconds(); result >= 0 && now < end; now = milliseconds())
    result = clinux_helper_receive(&late, (int)(end - now));
  if (result >= 0 && self.pid > 0) kill(self.pid, SIGKILL);
  disconnect();
  reap();
}
