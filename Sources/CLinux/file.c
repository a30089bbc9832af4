#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <stdio.h> // renameat
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

int clinux_file_close(int descriptor) {
  // Linux closes the descriptor even if close fails with EINTR.
  return close(descriptor) == 0 || errno == EINTR ? 0 : -errno;
}

intptr_t clinux_file_read(int descriptor, void *bytes, size_t byte_count) {
  ssize_t count;
  do {
    count = read(descriptor, bytes, byte_count);
  } while (count < 0 && errno == EINTR);
  return count < 0 ? -errno : count;
}

intptr_t clinux_file_write(int descriptor, const void *bytes, size_t byte_count) {
  ssize_t count;
  do {
    count = write(descriptor, bytes, byte_count);
  } while (count < 0 && errno == EINTR);
  return count < 0 ? -errno : count;
}

// A program has one standard output, and any number of functions that write to it.
static int output_error;

void clinux_file_note_output(int error) {
  if (output_error == 0) output_error = error;
}

int clinux_file_end_output(void) {
  // NFS and some others report a full disk only here.
  if (close(1) != 0) clinux_file_note_output(-errno);
  return output_error;
}

_Static_assert(sizeof(struct clinux_slice) == sizeof(struct iovec), "slice");
_Static_assert(offsetof(struct clinux_slice, byte_count) == offsetof(struct iovec, iov_len), "");

intptr_t clinux_file_write_pieces(
    int descriptor, const struct clinux_slice *pieces, int count) {
  ssize_t written;
  do {
    written = writev(descriptor, (const struct iovec *)pieces, count);
  } while (written < 0 && errno == EINTR);
  return written < 0 ? -errno : written;
}

int clinux_file_adopt(int descriptor) {
  int flags = fcntl(descriptor, F_GETFL);
  if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) < 0) return -errno;
  return fcntl(descriptor, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

// The mode of the directory that contains `path`; 0 on failure.
static mode_t mode_of_parent(const char *path) {
  char parent[4096];
  size_t length = strnlen(path, sizeof parent);
  if (length == sizeof parent) return 0;
  memcpy(parent, path, length + 1);
  char *slash = strrchr(parent, '/');
  if (slash == parent)
    slash[1] = 0;
  else if (slash)
    *slash = 0;
  struct stat status;
  return stat(slash ? parent : ".", &status) == 0 ? status.st_mode : 0;
}

int clinux_file_open(const char *path, uint32_t *traits) {
  *traits = 0;
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (file < 0) return -errno;
  struct stat status;
  if (fstat(file, &status) != 0) {
    int error = -errno;
    close(file);
    return error;
  }
  if (S_ISDIR(status.st_mode)) *traits |= CLINUX_FILE_DIRECTORY;
  if (S_ISREG(status.st_mode)) {
    *traits |= CLINUX_FILE_SEEKABLE;
    if (status.st_mode & mode_of_parent(path) & 07) *traits |= CLINUX_FILE_EXPOSED;
  }
  return file;
}

int clinux_file_rewind(int descriptor) {
  return lseek(descriptor, 0, SEEK_SET) == 0 ? 0 : -errno;
}

static int open_directory(const char *directory) {
  int descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return descriptor < 0 ? -errno : descriptor;
}

intptr_t clinux_state_read(
    const char *directory, const char *name, void *bytes, size_t capacity) {
  int parent = open_directory(directory);
  if (parent < 0) return parent;
  int file = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  intptr_t result = file < 0 ? -errno : 0;
  close(parent);
  if (file < 0) return result;

  size_t total = 0;
  uint8_t beyond;
  do {
    int is_full = total == capacity;
    result = clinux_file_read(
        file, is_full ? &beyond : (uint8_t *)bytes + total, is_full ? 1 : capacity - total);
    if (is_full && result > 0) result = -EMSGSIZE;
    if (result > 0) total += (size_t)result;
  } while (result > 0);
  close(file);
  return result < 0 ? result : (intptr_t)total;
}

static int write_whole(int file, const uint8_t *bytes, size_t byte_count) {
  while (byte_count > 0) {
    intptr_t count = clinux_file_write(file, bytes, byte_count);
    if (count < 0) return (int)count;
    bytes += count;
    byte_count -= (size_t)count;
  }
  return fsync(file) == 0 ? 0 : -errno;
}

int clinux_state_write(
    const char *directory, const char *name, const void *bytes, size_t byte_count) {
  static const char suffix[] = ".new";
  char temporary[256];
  // Avoids snprintf, which adds 10 KB to a static binary.
  size_t length = strlen(name);
  if (length + sizeof suffix > sizeof temporary) return -ENAMETOOLONG;
  memcpy(temporary, name, length);
  memcpy(temporary + length, suffix, sizeof suffix);
  if (mkdir(directory, 0700) != 0 && errno != EEXIST) return -errno;
  int parent = open_directory(directory);
  if (parent < 0) return parent;

  // A state file belongs to one process, because it is named after the interface. The temporary
  // name therefore needs no randomness. A file that a crash left behind is overwritten.
  int file = openat(
      parent, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
  int error = file < 0 ? -errno : write_whole(file, bytes, byte_count);
  if (file >= 0) close(file);
  if (error == 0 && renameat(parent, temporary, parent, name) != 0) error = -errno;
  if (error == 0 && fsync(parent) != 0) error = -errno;
  if (error != 0 && file >= 0) unlinkat(parent, temporary, 0);
  close(parent);
  return error;
}
