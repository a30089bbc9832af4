#define _GNU_SOURCE
#include "CLinux.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(struct clinux_lock), "lock");
_Static_assert(sizeof(pthread_t) <= sizeof(uint64_t), "thread");

static pthread_mutex_t *mutex_of(struct clinux_lock *lock) { return (pthread_mutex_t *)lock; }

void clinux_lock_prepare(struct clinux_lock *lock) { pthread_mutex_init(mutex_of(lock), NULL); }

void clinux_lock_acquire(struct clinux_lock *lock) { pthread_mutex_lock(mutex_of(lock)); }

void clinux_lock_release(struct clinux_lock *lock) { pthread_mutex_unlock(mutex_of(lock)); }

struct turnstile {
  // Written under the mutex, but also read without it, to check whether a turn has come. It counts
  // modulo 2^32, because every board has 32-bit atomics.
  _Atomic uint32_t turn;
  uint32_t waiting;
  pthread_mutex_t mutex;
  pthread_cond_t moved;
};

_Static_assert(sizeof(struct turnstile) <= sizeof(struct clinux_turnstile), "turnstile");

void clinux_turnstile_prepare(struct clinux_turnstile *turnstile) {
  struct turnstile *self = (struct turnstile *)turnstile;
  atomic_init(&self->turn, 0);
  self->waiting = 0;
  pthread_mutex_init(&self->mutex, NULL);
  pthread_cond_init(&self->moved, NULL);
}

int clinux_turnstile_is_open(struct clinux_turnstile *turnstile, uint64_t ticket) {
  struct turnstile *self = (struct turnstile *)turnstile;
  return atomic_load_explicit(&self->turn, memory_order_acquire) == (uint32_t)ticket;
}

void clinux_turnstile_enter(struct clinux_turnstile *turnstile, uint64_t ticket) {
  struct turnstile *self = (struct turnstile *)turnstile;
  uint32_t wanted = (uint32_t)ticket;
  if (clinux_turnstile_is_open(turnstile, ticket)) return;
  pthread_mutex_lock(&self->mutex);
  self->waiting++;
  while (atomic_load_explicit(&self->turn, memory_order_relaxed) != wanted)
    pthread_cond_wait(&self->moved, &self->mutex);
  self->waiting--;
  pthread_mutex_unlock(&self->mutex);
}

void clinux_turnstile_leave(struct clinux_turnstile *turnstile) {
  struct turnstile *self = (struct turnstile *)turnstile;
  pthread_mutex_lock(&self->mutex);
  uint32_t next = atomic_load_explicit(&self->turn, memory_order_relaxed) + 1;
  atomic_store_explicit(&self->turn, next, memory_order_release);
  // Each thread waits for a different number, so all of them must wake up and check.
  if (self->waiting > 0) pthread_cond_broadcast(&self->moved);
  pthread_mutex_unlock(&self->mutex);
}

int clinux_thread_start(
    void *stack, size_t stack_byte_count, void *(*body)(void *), void *context, uint64_t *thread) {
  // fork(2) of any thread uses the stack of that thread and what libc stores on all stacks.
  madvise(stack, stack_byte_count, MADV_DOFORK);
  pthread_attr_t attributes;
  pthread_t identity;
  int error = pthread_attr_init(&attributes);
  if (error != 0) return -error;
  error = pthread_attr_setstack(&attributes, stack, stack_byte_count);
  if (error == 0) error = pthread_create(&identity, &attributes, body, context);
  pthread_attr_destroy(&attributes);
  if (error != 0) return -error;
  *thread = 0;
  memcpy(thread, &identity, sizeof identity);
  return 0;
}

void clinux_thread_join(uint64_t thread) {
  pthread_t identity;
  memcpy(&identity, &thread, sizeof identity);
  pthread_join(identity, NULL);
}

int clinux_cpu_count(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  // This fails on a machine with more than 1024 CPUs.
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  int count = CPU_COUNT(&set);
  return count > 0 ? count : 1;
}
