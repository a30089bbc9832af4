#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

int clinux_process_prepare(void) {
  if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) return -errno;
  for (int descriptor = 0; descriptor <= 2; descriptor++) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    // open returns the lowest free number, which is this one, because all below it are open. Not
    // close-on-exec. Output must fail where there is none (R64), so it is not opened for writing.
    if (open("/dev/null", descriptor == 0 ? O_RDWR : O_RDONLY) < 0) return -errno;
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

const char *clinux_process_absolute_path(const char *path) {
  if (path[0] == '/') return path;
  char folder[4096];
  // Linux returns a path without a leading slash if the directory cannot be reached.
  if (!getcwd(folder, sizeof folder) || folder[0] != '/') return NULL;
  size_t folder_length = strlen(folder), length = strlen(path);
  char *absolute = malloc(folder_length + length + 2);
  if (!absolute) return NULL;
  memcpy(absolute, folder, folder_length);
  absolute[folder_length] = '/';
  memcpy(absolute + folder_length + 1, path, length + 1);
  return absolute;
}

int clinux_process_kernel_release(char *release, size_t capacity) {
  struct utsname system;
  if (uname(&system) != 0) return -errno;
  size_t length = strnlen(system.release, sizeof system.release);
  if (length >= capacity) length = capacity - 1;
  memcpy(release, system.release, length);
  release[length] = 0;
  return 0;
}

// MARK: Inherited descriptors

static int is_kept(unsigned descriptor, const int *kept, int count) {
  for (int i = 0; i < count; i++) {
    if (kept[i] >= 0 && (unsigned)kept[i] == descriptor) return 1;
  }
  return 0;
}

// Without close_range (Linux 5.9), /proc is read. Not with readdir, which allocates.
static void close_listed(unsigned first, const int *kept, int count) {
  int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  _Alignas(8) char entries[1024];
  long size;
  while ((size = syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0) {
    // struct linux_dirent64: inode, offset (8 bytes each), length (2), type (1), name.
    uint16_t length;
    for (long offset = 0; offset < size; offset += length) {
      memcpy(&length, entries + offset + 16, sizeof length);
      unsigned descriptor = 0;
      const char *name = entries + offset + 19;
      // "." and ".." become 0, which is kept.
      for (; *name >= '0' && *name <= '9'; name++) descriptor = descriptor * 10 + (*name - '0');
      if (descriptor >= first && (int)descriptor != folder && !is_kept(descriptor, kept, count))
        close((int)descriptor);
    }
  }
  close(folder);
}

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

void clinux_process_close_inherited(const int *kept, int count) {
  unsigned first = 3;
  while (1) {
    // The lowest kept descriptor from `first` on ends this range.
    unsigned end = UINT_MAX;
    for (int i = 0; i < count; i++) {
      if (kept[i] >= 0 && (unsigned)kept[i] >= first && (unsigned)kept[i] < end)
        end = (unsigned)kept[i];
    }
    unsigned last = end == UINT_MAX ? end : end - 1;
    if (first <= last && syscall(SYS_close_range, first, last, 0) != 0) {
      close_listed(first, kept, count);
      return;
    }
    if (end == UINT_MAX) return;
    first = end + 1;
  }
}

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
    // The file system of the caller's directory can then be unmounted.
    if (chdir("/") != 0) error = -errno;
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
