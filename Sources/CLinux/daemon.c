#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

// The parent: waits until the child is in service or has failed, and exits as it says.
static _Noreturn void follow(pid_t child, int report) {
  uint8_t status = 0;
  intptr_t count = clinux_file_read(report, &status, 1);
  if (count == 1 && status == 0) _exit(0);
  // Failed, or died without a word. The caller's command ends when the child has.
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
  // The report may come when nobody waits for it any more.
  signal(SIGPIPE, SIG_IGN);
  // Cannot fail: a fresh child leads no process group.
  setsid();
  return ends[1];
}

int clinux_daemon_report(int report, int status, int keeps_output) {
  int error = 0;
  if (status == 0) {
    // Before the report, so that the caller's pipes are let go when its command returns.
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
