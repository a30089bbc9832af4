#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

_Static_assert(sizeof(struct clinux_uapi) == 24, "uapi");

static int make_path(const char *directory, const char *name, struct sockaddr_un *address) {
  const char *const parts[] = {directory, "/", name, ".sock"};
  size_t used = 0;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  // Avoids snprintf, which adds 10 KB to a static binary.
  for (size_t part = 0; part < sizeof parts / sizeof parts[0]; part++) {
    size_t length = strlen(parts[part]);
    if (length >= sizeof address->sun_path - used) return -ENAMETOOLONG;
    memcpy(address->sun_path + used, parts[part], length);
    used += length;
  }
  return 0;
}

// 1 if a process listens on the socket, 0 if none does, -errno if that cannot be determined.
static int is_live(const struct sockaddr_un *address) {
  int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (probe < 0) return -errno;
  int result = 1;
  if (connect(probe, (const struct sockaddr *)address, sizeof *address) != 0) {
    // EAGAIN: the listener's queue is full.
    result = errno == EAGAIN ? 1 : errno == ECONNREFUSED || errno == ENOENT ? 0 : -errno;
  }
  close(probe);
  return result;
}

int clinux_uapi_connect(const char *directory, const char *name) {
  struct sockaddr_un address;
  int error = make_path(directory, name, &address);
  if (error != 0) return error;
  int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (client < 0) return -errno;
  if (connect(client, (const struct sockaddr *)&address, sizeof address) == 0) return client;
  error = -errno;
  close(client);
  return error;
}

static int bind_privately(int listener, const struct sockaddr_un *address) {
  // bind creates the file with mode 0777 minus the umask, so 0177 gives 0600. With a chmod
  // afterwards, others could connect in between.
  mode_t before = umask(0177);
  int error = bind(listener, (const struct sockaddr *)address, sizeof *address) == 0 ? 0 : -errno;
  umask(before);
  return error;
}

// Records the file's identity and watches the file. Without inotify, its identity can still be
// compared.
static int watch_file(const struct sockaddr_un *address, struct clinux_uapi *uapi) {
  struct stat status;
  if (lstat(address->sun_path, &status) != 0) return -errno;
  uapi->device = status.st_dev;
  uapi->inode = status.st_ino;
  uapi->watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (uapi->watch < 0) {
    uapi->watch = -1;
    return 0;
  }
  // After an unlink, the inode exists as long as the socket is bound. IN_ATTRIB reports the change
  // of the link count.
  uint32_t mask = IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;
  if (inotify_add_watch(uapi->watch, address->sun_path, mask) < 0) {
    close(uapi->watch);
    uapi->watch = -1;
  }
  return 0;
}

int clinux_uapi_open(const char *directory, const char *name, struct clinux_uapi *uapi) {
  struct sockaddr_un address;
  int error = make_path(directory, name, &address);
  if (error != 0) return error;
  if (mkdir(directory, 0700) != 0 && errno != EEXIST) return -errno;
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener < 0) return -errno;

  error = bind_privately(listener, &address);
  if (error == -EADDRINUSE) {
    int live = is_live(&address);
    if (live < 0) error = live;
    if (live == 0) {
      unlink(address.sun_path);
      error = bind_privately(listener, &address);
    }
  }
  int is_bound = error == 0;
  if (error == 0 && listen(listener, 16) != 0) error = -errno;
  *uapi = (struct clinux_uapi){.listener = listener, .watch = -1};
  if (error == 0) error = watch_file(&address, uapi);
  if (error != 0) {
    if (is_bound) unlink(address.sun_path);
    close(listener);
  }
  return error;
}

int clinux_uapi_adopt(
    int listener, const char *directory, const char *name, struct clinux_uapi *uapi) {
  struct sockaddr_un address;
  int is_listening = 0;
  socklen_t length = sizeof is_listening;
  if (getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &length) != 0) return -errno;
  if (!is_listening) return -EINVAL;
  int error = clinux_file_adopt(listener);
  if (error == 0) error = make_path(directory, name, &address);
  if (error != 0) return error;
  *uapi = (struct clinux_uapi){.listener = listener, .watch = -1};
  // The socket's file may be elsewhere. Then nothing is watched or removed.
  watch_file(&address, uapi);
  return 0;
}

int clinux_uapi_accept(int listener) {
  int connection;
  do {
    connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  } while (connection < 0 && (errno == EINTR || errno == ECONNABORTED));
  return connection < 0 ? -errno : connection;
}

int clinux_uapi_has_client(int connection) {
  // POLLHUP: both ends are closed. After shutdown(SHUT_WR) the client can still read.
  struct pollfd state = {.fd = connection, .events = 0};
  return poll(&state, 1, 0) >= 0 && (state.revents & (POLLHUP | POLLERR)) == 0;
}

static int is_ours(const struct clinux_uapi *uapi, const struct sockaddr_un *address) {
  struct stat status;
  return lstat(address->sun_path, &status) == 0 && status.st_dev == uapi->device &&
      status.st_ino == uapi->inode;
}

int clinux_uapi_is_present(
    const struct clinux_uapi *uapi, const char *directory, const char *name) {
  struct sockaddr_un address;
  _Alignas(struct inotify_event) uint8_t events[512];
  // The content of the events does not matter: they only trigger the check of the file below.
  while (uapi->watch >= 0 && clinux_file_read(uapi->watch, events, sizeof events) > 0) {
  }
  // An adopted socket may have no file.
  if (uapi->inode == 0) return 1;
  return make_path(directory, name, &address) == 0 && is_ours(uapi, &address);
}

int clinux_uapi_remove(
    const struct clinux_uapi *uapi, const char *directory, const char *name) {
  struct sockaddr_un address;
  int error = make_path(directory, name, &address);
  if (error != 0) return error;
  if (uapi->inode == 0 || !is_ours(uapi, &address)) return -ENOENT;
  return unlink(address.sun_path) == 0 ? 0 : -errno;
}
