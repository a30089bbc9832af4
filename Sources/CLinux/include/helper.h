#ifndef CLINUX_HELPER_H
#define CLINUX_HELPER_H

#include <stddef.h>
#include <stdint.h>

// helper.c

enum {
  CLINUX_STATE_BYTE_COUNT = 12,

  CLINUX_REQUEST_READ = 1,
  CLINUX_REQUEST_WRITE = 2,
  /// From now on, standard output and standard error of the helper are /dev/null.
  CLINUX_REQUEST_DISCARD = 3,
  /// Read the configuration files of the interface `name` again.
  CLINUX_REQUEST_RELOAD = 4,
  /// A reply only: the peers of the tunnel `tag` have no host names any more.
  CLINUX_REQUEST_FORGET_NAMES = 5,
  /// A reply only: a peer's host name.
  CLINUX_REQUEST_NAME = 6,
};

/// A request to the helper process, which returns it as the reply.
struct clinux_request {
  uint32_t kind;
  /// Of the caller's choice.
  uint32_t tag;
  /// The name of a state file.
  char name[16];
  /// Its contents; the last four are only used by files that are longer than they should be.
  uint8_t bytes[CLINUX_STATE_BYTE_COUNT + 4];
  /// The result of clinux_state_read, clinux_state_write or clinux_reload.
  int32_t result;
  /// Of a peer's host name: the peer, the name and the port.
  uint8_t public_key[32];
  uint16_t port;
  uint16_t text_byte_count;
  uint8_t text[256];
};

/// Reads the configuration files again. Runs in a process of its own, which may block.
///
/// - Parameter name: of the interface.
/// Returns 0, -errno of the configuration socket, or 1 if the reason has been printed.
typedef int32_t (*clinux_reload)(const char *name);

/// Forks the helper process, which does what may block: it writes to standard output and standard
/// error, and reads and writes the state files in `directory`, which must stay valid. Call it once,
/// before secrets are in memory.
int clinux_helper_start(const char *directory, clinux_reload reload);
/// Queues text for descriptor 1 or 2, and never waits. If the queue is full, the text is left out,
/// and the helper prints the number of omissions later. Returns 0 if there is no helper or if the
/// descriptor is another one: the caller then writes directly.
int clinux_helper_write(int output, const void *bytes, size_t byte_count);
/// The descriptor on which replies arrive.
int clinux_helper_descriptor(void);
/// Sends a request, and never waits. -EAGAIN if too many are pending.
int clinux_helper_send(const struct clinux_request *request);
/// For `clinux_reload`: sends a reply to the program, and waits until there is room for it.
int clinux_helper_reply(const struct clinux_request *reply);
/// 1 with a reply, 0 after the timeout, -EPIPE if the helper has ended.
int clinux_helper_receive(struct clinux_request *request, int timeout_milliseconds);
/// Forks another helper after the last one has ended; its descriptor is a new one. The process may
/// have threads. -EAGAIN within a minute of the last call.
int clinux_helper_restart(void);
/// Call it if the helper has ended and cannot be restarted. Lines are left out from now on.
void clinux_helper_abandon(void);
/// Ends the helper, which may use that long to write the last lines.
void clinux_helper_end(int timeout_milliseconds);

#endif
