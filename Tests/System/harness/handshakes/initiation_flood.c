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

enum { SIZE = 148, MAC1 = 116, PREPARED = 4096, AT_ONCE = 64, SOCKETS = 16 };

static const uint32_t iv[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static const uint8_t sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static uint32_t right(uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

static void compress(uint32_t *state, const uint8_t *block, uint64_t count, int is_last) {
  uint32_t words[16], v[16];
  memcpy(words, block, sizeof words);
  memcpy(v, state, 32);
  memcpy(v + 8, iv, 32);
  v[12] ^= (uint32_t)count;
  v[13] ^= (uint32_t)(count >> 32);
  if (is_last) v[14] = ~v[14];
  for (int round = 0; round < 10; round++) {
    for (int g = 0; g < 8; g++) {
      int column = g & 3, turn = g >> 2;
      uint32_t *a = &v[column], *b = &v[4 + (column + turn) % 4];
      uint32_t *c = &v[8 + (column + 2 * turn) % 4], *d = &v[12 + (column + 3 * turn) % 4];
      *a += *b + words[sigma[round][2 * g]];
      *d = right(*d ^ *a, 16);
      *c += *d;
      *b = right(*b ^ *c, 12);
      *a += *b + words[sigma[round][2 * g + 1]];
      *d = right(*d ^ *a, 8);
      *c += *d;
      *b = right(*b ^ *c, 7);
    }
  }
  for (int index = 0; index < 8; index++) state[index] ^= v[index] ^ v[index + 8];
}

// BLAKE2s with a key of 0 or 32 bytes, and at least one byte of input.
static void blake2s(uint8_t *out, size_t size, const uint8_t *key, const uint8_t *in,
                    size_t count) {
  uint8_t buffer[64 * 4] = {0};
  size_t key_size = key ? 32 : 0, start = key ? 64 : 0, total = start + count, done = 0;
  if (key) memcpy(buffer, key, 32);
  memcpy(buffer + start, in, count);
  uint32_t state[8];
  memcpy(state, iv, sizeof state);
  state[0] ^= 0x01010000 ^ (uint32_t)key_size << 8 ^ (uint32_t)size;
  for (; total - done > 64; done += 64) compress(state, buffer + done, done + 64, 0);
  compress(state, buffer + done, total, 1);
  memcpy(out, state, size);
}

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
