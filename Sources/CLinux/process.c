#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int clinux_process_prepare(void) {
  if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) return -errno;
  for (int descriptor = 0; descriptor <= 2; descriptor++) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    // open returns the lowest free number, which is this one, because all below it are open. Not
    // close-on-exec.
    if (open("/dev/null", O_RDWR) < 0) return -errno;
  }
  return 0;
}

int clinux_process_forbid_dumps(void) {
  struct rlimit none = {0, 0};
  int error = prlimit(0, RLIMIT_CORE, &none, NULL) == 0 ? 0 : -errno;
  // A core_pattern with a pipe ignores the limit, so the process attribute is needed too.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) error = -errno;
  return error;
}

void clinux_process_pause(int milliseconds) { poll(NULL, 0, milliseconds); }

const char *clinux_process_environment(const char *name) { return getenv(name); }

// MARK: Daemon

// The parent waits until the child is running or has failed, and exits with the reported status.
static _Noreturn void follow(pid_t child, int report) {
  uint8_t status = 0;
  intptr_t count = clinux_file_read(report, &status, 1);
  if (count == 1 && status == 0) _exit(0);
  // The child has failed, or has died without a report. Wait until it has exited.
  int outcome = 0;
  pid_t ended;
  do {
    ended = waitpid(child, &outcome, 0);
  } while (ended < 0 && errno == EINTR);
  if (count == 1) _exit(status);
  if (ended == child && WIFEXITED(outcome)) _exit(WEXITSTATUS(outcome));
  if (ended == child && WIFSIGNALED(outcome)) _exit(128 + WTERMSIG(outcome));
  _exit(1);
}

int clinux_daemon_fork(void) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
  pid_t child = fork();
  if (child < 0) {
    int error = -errno;
    close(ends[0]);
    close(ends[1]);
    return error;
  }
  if (child > 0) {
    close(ends[1]);
    follow(child, ends[0]);
  }
  close(ends[0]);
  // The parent may be gone when the child reports.
  signal(SIGPIPE, SIG_IGN);
  // Cannot fail: a new child is not the leader of a process group.
  setsid();
  return ends[1];
}

int clinux_daemon_report(int report, int status, int keeps_output) {
  int error = 0;
  if (status == 0) {
    // Done before the report, so that the caller's pipes are closed when its command returns.
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) error = -errno;
    int last = keeps_output ? 0 : 2;
    for (int descriptor = 0; null >= 0 && descriptor <= last; descriptor++) {
      if (dup2(null, descriptor) < 0) error = -errno;
    }
    if (null > 2) close(null);
  }
  uint8_t byte = (uint8_t)status;
  intptr_t count = clinux_file_write(report, &byte, 1);
  if (count < 0) error = (int)count;
  close(report);
  return error;
}
