// BLAKE2s (RFC 7693), for the programs of this folder.
#include <stdint.h>
#include <string.h>

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

// BLAKE2s with a key of up to 32 bytes, and at least one byte of input; both together at most 256.
static void blake2s_keyed(uint8_t *out, size_t size, const uint8_t *key, size_t key_size,
                          const uint8_t *in, size_t count) {
  uint8_t buffer[64 * 4] = {0};
  size_t start = key_size ? 64 : 0, total = start + count, done = 0;
  memcpy(buffer, key, key_size);
  memcpy(buffer + start, in, count);
  uint32_t state[8];
  memcpy(state, iv, sizeof state);
  state[0] ^= 0x01010000 ^ (uint32_t)key_size << 8 ^ (uint32_t)size;
  for (; total - done > 64; done += 64) compress(state, buffer + done, done + 64, 0);
  compress(state, buffer + done, total, 1);
  memcpy(out, state, size);
}

// The same with a key of 32 bytes, or without one.
static void blake2s(uint8_t *out, size_t size, const uint8_t *key, const uint8_t *in,
                    size_t count) {
  blake2s_keyed(out, size, key ? key : (const uint8_t *)"", key ? 32 : 0, in, count);
}
