#define _GNU_SOURCE
#include "CLinux.h"

#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert(IFNAMSIZ == CLINUX_NAME_BYTE_COUNT, "interface name");

int clinux_link_open(int network_namespace) {
  // A unix socket: it takes interface ioctls as any other does, and is there without IPv4.
  int type = SOCK_DGRAM | SOCK_CLOEXEC;
  if (network_namespace >= 0) {
    return clinux_socket_in_namespace(network_namespace, AF_UNIX, type, 0);
  }
  int control = socket(AF_UNIX, type, 0);
  return control < 0 ? -errno : control;
}

static int request(int control, unsigned long operation, const char *name, struct ifreq *ifr) {
  size_t length = strnlen(name, IFNAMSIZ);
  if (length == IFNAMSIZ) return -ENAMETOOLONG;
  memcpy(ifr->ifr_name, name, length);
  // musl's ioctl takes an int, glibc's an unsigned long; none of these numbers reaches bit 31.
  return ioctl(control, operation, ifr) == 0 ? 0 : -errno;
}

int clinux_link_index(int control, const char *name, uint32_t *index) {
  struct ifreq ifr = {0};
  int error = request(control, SIOCGIFINDEX, name, &ifr);
  if (error == 0) *index = (uint32_t)ifr.ifr_ifindex;
  return error;
}

int clinux_link_mtu(int control, const char *name, uint32_t *mtu) {
  struct ifreq ifr = {0};
  int error = request(control, SIOCGIFMTU, name, &ifr);
  if (error == 0) *mtu = (uint32_t)ifr.ifr_mtu;
  return error;
}

int clinux_link_set_mtu(int control, const char *name, uint32_t mtu) {
  struct ifreq ifr = {0};
  if (mtu > INT32_MAX) return -EINVAL;
  ifr.ifr_mtu = (int)mtu;
  return request(control, SIOCSIFMTU, name, &ifr);
}

int clinux_link_is_up(int control, const char *name) {
  struct ifreq ifr = {0};
  int error = request(control, SIOCGIFFLAGS, name, &ifr);
  return error == 0 ? (ifr.ifr_flags & IFF_UP) != 0 : error;
}

int clinux_link_set_up(int control, const char *name, int is_up) {
  struct ifreq ifr = {0};
  int error = request(control, SIOCGIFFLAGS, name, &ifr);
  if (error != 0) return error;
  ifr.ifr_flags = (short)(is_up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
  return request(control, SIOCSIFFLAGS, name, &ifr);
}
