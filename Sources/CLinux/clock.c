#define _GNU_SOURCE
#include "CLinux.h"

#include <time.h>

uint64_t clinux_clock_boottime(void) {
  struct timespec now;
  if (clock_gettime(CLOCK_BOOTTIME, &now) != 0) clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clinux_clock_thread(void) {
  struct timespec used;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) != 0) return clinux_clock_boottime();
  return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

void clinux_clock_realtime(uint64_t *seconds, uint32_t *nanoseconds) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *seconds = now.tv_sec < 0 ? 0 : (uint64_t)now.tv_sec;
  *nanoseconds = (uint32_t)now.tv_nsec;
}
