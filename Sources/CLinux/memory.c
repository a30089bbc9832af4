#define _GNU_SOURCE
#include "CLinux.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef CULVERT_MARK_HEAP
#include <pthread.h>
#endif

void *clinux_memory_map(size_t byte_count, int *error) {
  // No MAP_NORESERVE, so that a lack of memory is detected at startup and not by a later packet.
  void *start = mmap(
      NULL, byte_count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *error = start == MAP_FAILED ? -errno : 0;
  // A helper process that is forked later gets neither keys nor packets. The stacks of threads are
  // inherited (thread.c).
  if (start != MAP_FAILED) madvise(start, byte_count, MADV_DONTFORK);
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

// MARK: The heap

// The heap of the static binary. All memory is allocated once at startup and kept, so a bump
// allocator is enough. It saves the 7 KB of musl's allocator. Other builds use the libc's heap.
#ifdef CULVERT_MARK_HEAP

enum { CHUNK = 64 * 1024 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/// The heap's state. Tests find it in a running program by its name, and check from the count that
/// nothing was allocated or freed. Without `used`, the compiler would keep only parts of it.
__attribute__((used)) static struct {
  char name[8];
  size_t calls;
  /// The free part of the current chunk. Before each block is the mark as it was before the block's
  /// allocation.
  uintptr_t mark, end;
  /// The newest block, which is the only one that can be freed; 0 if it has been freed.
  uintptr_t newest;
} heap = {.name = {'m', 'a', 'r', 'k', 'h', 'e', 'a', 'p'}};

/// The lowest address for a block above the mark. It cannot overflow, because the mark is inside a
/// mapping.
static uintptr_t place(size_t alignment) {
  return (heap.mark + sizeof(uintptr_t) + alignment - 1) & ~(uintptr_t)(alignment - 1);
}

int posix_memalign(void **block, size_t alignment, size_t byte_count) {
  if (alignment < _Alignof(max_align_t)) alignment = _Alignof(max_align_t);
  if (alignment > CHUNK / 2 || byte_count > PTRDIFF_MAX - 3 * CHUNK) return ENOMEM;
  int error = 0;
  pthread_mutex_lock(&lock);
  heap.calls++;
  uintptr_t start = place(alignment);
  if (start > heap.end || byte_count > heap.end - start) {
    // The rest of the old chunk stays unused. Untouched pages take no memory.
    size_t chunk = (byte_count + 2 * CHUNK) & ~(size_t)(CHUNK - 1);
    void *memory = mmap(NULL, chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      error = ENOMEM;
      goto done;
    }
    heap.mark = (uintptr_t)memory;
    heap.end = heap.mark + chunk;
    start = place(alignment);
  }
  ((uintptr_t *)start)[-1] = heap.mark;
  heap.mark = start + byte_count;
  heap.newest = start;
  *block = (void *)start;
done:
  pthread_mutex_unlock(&lock);
  return error;
}

/// Frees the newest block. The memory of any other block is lost: at most a few hundred bytes in
/// total.
void free(void *block) {
  if (block == NULL) return;
  pthread_mutex_lock(&lock);
  heap.calls++;
  if ((uintptr_t)block == heap.newest) {
    heap.mark = ((uintptr_t *)block)[-1];
    heap.newest = 0;
  }
  pthread_mutex_unlock(&lock);
}

#endif
