#include "CLinux.h"

#include <string.h>

const char *clinux_error_text(int error_number) { return strerror(error_number); }

#define NAME(name) \
  case name:       \
    return #name

const char *clinux_error_name(int error_number) {
  switch (error_number) {
    NAME(EPERM);
    NAME(ENOENT);
    NAME(EINTR);
    NAME(EIO);
    NAME(EBADF);
    NAME(EAGAIN);
    NAME(ENOMEM);
    NAME(EACCES);
    NAME(EBUSY);
    NAME(EEXIST);
    NAME(ENODEV);
    NAME(EINVAL);
    NAME(ENOSPC);
    NAME(EROFS);
    NAME(EPIPE);
    NAME(ERANGE);
    NAME(ENAMETOOLONG);
    NAME(EPROTO);
    NAME(EBADFD);
    NAME(EMSGSIZE);
    NAME(ENOPROTOOPT);
    NAME(EOPNOTSUPP);
    NAME(ENOSYS);
    NAME(EAFNOSUPPORT);
    NAME(EADDRINUSE);
    NAME(EADDRNOTAVAIL);
    NAME(ENETDOWN);
    NAME(ENETUNREACH);
    NAME(ECONNRESET);
    NAME(ENOBUFS);
    NAME(ECONNREFUSED);
    NAME(EHOSTUNREACH);
    default:
      return NULL;
  }
}
