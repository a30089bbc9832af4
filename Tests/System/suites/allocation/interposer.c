// Counts the calls that allocate and free memory. This file has three uses:
//
// - preloaded into the ordinary build (LD_PRELOAD): the functions below replace libc's;
// - linked into a test variant of the static build with the linker's --wrap (-DWRAPPED), because
//   nothing can be preloaded into a static program;
// - linked into a test program, which calls `allocation_count` itself.
//
// The counts are in a page that is shared through the file named by ALLOCATION_COUNTS, so that
// another process can read them at any time. Nothing here allocates.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/// Read by tunnel.py (CountPage) as six little-endian 64-bit words.
struct counts {
  _Atomic uint64_t magic;
  /// malloc, calloc, realloc, posix_memalign, aligned_alloc, memalign.
  _Atomic uint64_t allocations;
  _Atomic uint64_t frees;
  _Atomic uint64_t bytes;
  /// The return address of the last allocation, for addr2line, and the address of a function in
  /// this file as a reference.
  _Atomic uint64_t last_caller;
  _Atomic uint64_t reference;
};

static struct counts before_mapping;
static struct counts *counts = &before_mapping;

static const uint64_t magic = 0x53434f4c4c41;

__attribute__((constructor)) static void map_counts(void) {
  before_mapping.magic = magic;
  before_mapping.reference = (uint64_t)(uintptr_t)&map_counts;
  const char *path = getenv("ALLOCATION_COUNTS");
  if (path == NULL) return;
  int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (page == MAP_FAILED) return;
  memcpy(page, &before_mapping, sizeof before_mapping);
  counts = page;
}

uint64_t allocation_count(void) { return counts->allocations; }
uint64_t free_count(void) { return counts->frees; }

static void count_allocation(size_t size, void *caller) {
  counts->allocations++;
  counts->bytes += size;
  counts->last_caller = (uint64_t)(uintptr_t)caller;
}

#define CALLER __builtin_return_address(0)

#ifdef WRAPPED
// The linker turns a call of NAME into one of __wrap_NAME, and __real_NAME into NAME.
#define DOOR(name) __wrap_##name
#define LIBC(type, name, parameters) \
  extern type __real_##name parameters; \
  static type (*const name##_real) parameters = __real_##name
#define REAL(name) name##_real
#else
#define DOOR(name) name
#define LIBC(type, name, parameters) \
  static type (*name##_real) parameters; \
  static type (*name##_find(void)) parameters { \
    if (name##_real == NULL) *(void **)&name##_real = dlsym(RTLD_NEXT, #name); \
    return name##_real; \
  }
#define REAL(name) name##_find()
#endif

LIBC(void *, malloc, (size_t));
LIBC(void *, realloc, (void *, size_t));
LIBC(void, free, (void *));
LIBC(int, posix_memalign, (void **, size_t, size_t));
LIBC(void *, aligned_alloc, (size_t, size_t));

// glibc's dlsym may call calloc to report an error. To avoid recursion in any case, this calloc
// does not look up libc's: it calls malloc and clears the memory.
void *DOOR(calloc)(size_t number, size_t size) {
  size_t whole;
  if (__builtin_mul_overflow(number, size, &whole)) {
    errno = ENOMEM;
    return NULL;
  }
  count_allocation(whole, CALLER);
  void *memory = REAL(malloc)(whole);
  if (memory != NULL) memset(memory, 0, whole);
  return memory;
}

#ifdef WRAPPED
// The names by which musl's own functions (locales, time zones, atexit) allocate memory.
LIBC(void *, __libc_malloc, (size_t));
LIBC(void *, __libc_calloc, (size_t, size_t));

void *DOOR(__libc_malloc)(size_t size) {
  count_allocation(size, CALLER);
  return REAL(__libc_malloc)(size);
}

void *DOOR(__libc_calloc)(size_t number, size_t size) {
  count_allocation(number * size, CALLER);
  return REAL(__libc_calloc)(number, size);
}
#endif

void *DOOR(malloc)(size_t size) {
  count_allocation(size, CALLER);
  return REAL(malloc)(size);
}

void *DOOR(realloc)(void *memory, size_t size) {
  count_allocation(size, CALLER);
  return REAL(realloc)(memory, size);
}

int DOOR(posix_memalign)(void **memory, size_t alignment, size_t size) {
  count_allocation(size, CALLER);
  return REAL(posix_memalign)(memory, alignment, size);
}

void *DOOR(aligned_alloc)(size_t alignment, size_t size) {
  count_allocation(size, CALLER);
  return REAL(aligned_alloc)(alignment, size);
}

void DOOR(free)(void *memory) {
  if (memory != NULL) counts->frees++;
  REAL(free)(memory);
}
