#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int clinux_socket_in_namespace(int network_namespace, int domain, int type, int protocol) {
  // A namespace belongs to the thread, so it must be this thread's own, not the process's.
  int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (home < 0) return -errno;
  int result;
  struct stat ours, theirs;
  // To enter a namespace takes CAP_SYS_ADMIN, also where we are in it already.
  if (fstat(home, &ours) == 0 && fstat(network_namespace, &theirs) == 0 &&
      ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino) {
    result = socket(domain, type, protocol);
    if (result < 0) result = -errno;
  } else if (setns(network_namespace, CLONE_NEWNET) != 0) {
    result = -errno;
  } else {
    result = socket(domain, type, protocol);
    if (result < 0) result = -errno;
    // Going on in the wrong namespace would send encrypted packets out of the wrong network, or
    // a later tunnel's plaintext: no error to be handled.
    if (setns(home, CLONE_NEWNET) != 0) abort();
  }
  close(home);
  return result;
}
