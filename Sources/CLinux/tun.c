#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
// Must follow net/if.h, whose names it then does not redefine.
#include <linux/if_tun.h>

// Missing in headers older than Linux 5.2.
#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)
#endif

// Missing in headers older than Linux 6.2.
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

int clinux_tun_open(const char *name, uint32_t features) {
  struct ifreq ifr = {0};
  size_t length = strnlen(name, IFNAMSIZ);
  if (length == IFNAMSIZ) return -ENAMETOOLONG;
  memcpy(ifr.ifr_name, name, length);
  ifr.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (features & CLINUX_TUN_VNET_HDR) ifr.ifr_flags |= IFF_VNET_HDR;

  int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (tun < 0) return -errno;
  // IFF_TUN_EXCL is not set, so that a process without CAP_NET_ADMIN can attach to a persistent
  // interface that "ip tuntap add" created for its user. If another process is attached to it, this
  // still fails with EBUSY, because only one queue is requested.
  if (ioctl(tun, TUNSETIFF, &ifr) != 0) {
    int error = -errno;
    close(tun);
    return error;
  }
  return tun;
}

int clinux_tun_identify(int tun, char *name, uint32_t *flags) {
  struct ifreq ifr = {0};
  if (ioctl(tun, TUNGETIFF, &ifr) != 0) return -errno;
  memcpy(name, ifr.ifr_name, IFNAMSIZ);
  name[IFNAMSIZ - 1] = 0;
  *flags = 0;
  if (ifr.ifr_flags & IFF_TUN) *flags |= CLINUX_TUN_TUN;
  if (ifr.ifr_flags & IFF_NO_PI) *flags |= CLINUX_TUN_NO_PI;
  if (ifr.ifr_flags & IFF_VNET_HDR) *flags |= CLINUX_TUN_VNET_HDR;
  if (ifr.ifr_flags & IFF_PERSIST) *flags |= CLINUX_TUN_PERSISTENT;
  if (ifr.ifr_flags & IFF_MULTI_QUEUE) *flags |= CLINUX_TUN_MULTI_QUEUE;
  return 0;
}

int clinux_tun_header_byte_count(int tun) {
  int size = 0;
  return ioctl(tun, TUNGETVNETHDRSZ, &size) == 0 ? size : -errno;
}

int clinux_tun_set_offloads(int tun, uint32_t offloads) {
  unsigned long flags = 0;
  if (offloads & CLINUX_TUN_CHECKSUM) flags |= TUN_F_CSUM;
  // TSO_ECN too: segments may carry congestion marks, which are in their own headers.
  if (offloads & CLINUX_TUN_TSO) flags |= TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  if (offloads & CLINUX_TUN_USO) flags |= TUN_F_USO4 | TUN_F_USO6;
  return ioctl(tun, TUNSETOFFLOAD, flags) == 0 ? 0 : -errno;
}

int clinux_tun_namespace(int tun) {
  // The kernel sets close-on-exec on this descriptor.
  int descriptor = ioctl(tun, TUNGETDEVNETNS, 0);
  return descriptor < 0 ? -errno : descriptor;
}
