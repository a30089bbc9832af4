#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

int clinux_process_prepare(void) {
  if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) return -errno;
  for (int descriptor = 0; descriptor <= 2; descriptor++) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    // The lowest free number is taken, and those below are open by now. Not close-on-exec.
    if (open("/dev/null", O_RDWR) < 0) return -errno;
  }
  return 0;
}

int clinux_process_forbid_dumps(void) {
  struct rlimit none = {0, 0};
  int error = prlimit(0, RLIMIT_CORE, &none, NULL) == 0 ? 0 : -errno;
  // A core_pattern that pipes ignores the limit, so the attribute is needed too.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) error = -errno;
  return error;
}

void clinux_process_pause(int milliseconds) { poll(NULL, 0, milliseconds); }

const char *clinux_process_environment(const char *name) { return getenv(name); }
