#define _GNU_SOURCE
#include "CLinux.h"

#include <sys/mman.h>
#include <unistd.h>

void *clinux_memory_map(size_t byte_count, int *error) {
  // No MAP_NORESERVE, so that a lack of memory is detected at startup and not by a later packet.
  void *start = mmap(
      NULL, byte_count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *error = start == MAP_FAILED ? -errno : 0;
  return start == MAP_FAILED ? NULL : start;
}

int clinux_memory_unmap(void *start, size_t byte_count) {
  return munmap(start, byte_count) == 0 ? 0 : -errno;
}

int clinux_memory_lock(void *start, size_t byte_count) {
  return mlock(start, byte_count) == 0 ? 0 : -errno;
}

int clinux_memory_exclude_from_dumps(void *start, size_t byte_count) {
  return madvise(start, byte_count, MADV_DONTDUMP) == 0 ? 0 : -errno;
}

int clinux_memory_guard(void *start) {
  return mprotect(start, (size_t)sysconf(_SC_PAGESIZE), PROT_NONE) == 0 ? 0 : -errno;
}
