// storm ADDRESS PORT KEY NETWORK COUNT SECONDS: COUNT clients that all connect at once to the hub
// with the public key KEY (hexadecimal). Each has its own keys, and an address from NETWORK on.
//
// It prints the clients' public keys. After each line of its input there is a storm: each client
// sends an initiation, and again after five seconds and up to a third, with the cookie if it has
// received one. A client whose initiation was answered sends a keepalive, which confirms its
// session. When all have a session, or after SECONDS, it prints
//     SESSIONS INITIATIONS COOKIES MILLISECONDS
// the last of which is the time of the last session.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "blake2s.h"

enum {
  MAXIMUM = 4096,
  KEY = 32,
  INITIATION = 148,
  RESPONSE = 92,
  COOKIE_REPLY = 64,
  KEEPALIVE = 32,
  MAC1_OF_INITIATION = 116
};
static const double retry_after = 5, retry_jitter = 1.0 / 3;
static const uint64_t tai_offset = (1ull << 62) + 10;
static const uint8_t no_preshared_key[KEY];

struct client {
  int socket;
  uint8_t private_key[KEY], public_key[KEY], static_secret[KEY];
  // Of the initiation that was sent last.
  uint8_t ephemeral[KEY], chaining_key[KEY], hash[KEY], message[INITIATION];
  uint8_t cookie[16];
  int has_cookie, has_session;
  double due;
};

static struct client clients[MAXIMUM];
static struct pollfd waiting[MAXIMUM];
static uint8_t hub_key[KEY], mac1_key[KEY], cookie_key[KEY], first_chaining_key[KEY],
    first_hash[KEY];
static int count;
static unsigned long initiations, cookies, sessions;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// HMAC-BLAKE2s of up to 64 bytes, with a key of 32.
static void hmac(uint8_t *out, const uint8_t *key, const uint8_t *in, size_t size) {
  uint8_t inner[64 + 64], outer[64 + 32];
  memset(inner, 0x36, 64);
  memset(outer, 0x5c, 64);
  for (int index = 0; index < KEY; index++) {
    inner[index] ^= key[index];
    outer[index] ^= key[index];
  }
  memcpy(inner + 64, in, size);
  blake2s(outer + 64, 32, NULL, inner, 64 + size);
  blake2s(out, 32, NULL, outer, sizeof outer);
}

// The KDF of the whitepaper, with up to three outputs. `key` may be `first`.
static void derive(uint8_t *first, uint8_t *second, uint8_t *third, const uint8_t *key,
                   const uint8_t *in, size_t size) {
  uint8_t extracted[KEY], block[KEY + 1];
  hmac(extracted, key, in, size);
  hmac(first, extracted, (const uint8_t *)"\1", 1);
  if (!second) return;
  memcpy(block, first, KEY);
  block[KEY] = 2;
  hmac(second, extracted, block, sizeof block);
  if (!third) return;
  memcpy(block, second, KEY);
  block[KEY] = 3;
  hmac(third, extracted, block, sizeof block);
}

static void mix(uint8_t *hash, const uint8_t *in, size_t size) {
  uint8_t both[KEY + 64];
  memcpy(both, hash, KEY);
  memcpy(both + KEY, in, size);
  blake2s(hash, 32, NULL, both, KEY + size);
}

static void agree(uint8_t *out, const uint8_t *private_key, const uint8_t *public_key) {
  if (crypto_scalarmult_curve25519(out, private_key, public_key) != 0) exit(3);
}

// Encrypts with the counter 0.
static void seal(uint8_t *out, const uint8_t *key, const uint8_t *in, size_t size,
                 const uint8_t *additional, size_t additional_size) {
  uint8_t nonce[12] = {0};
  crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, in, size, additional, additional_size, NULL,
                                            nonce, key);
}

static void start(const char *key) {
  uint8_t label[40];
  if (sodium_init() < 0 || sodium_hex2bin(hub_key, KEY, key, 2 * KEY, NULL, NULL, NULL) != 0) {
    exit(2);
  }
  memcpy(label + 8, hub_key, KEY);
  memcpy(label, "mac1----", 8);
  blake2s(mac1_key, 32, NULL, label, sizeof label);
  memcpy(label, "cookie--", 8);
  blake2s(cookie_key, 32, NULL, label, sizeof label);
  const char *construction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
  const char *identifier = "WireGuard v1 zx2c4 Jason@zx2c4.com";
  blake2s(first_chaining_key, 32, NULL, (const uint8_t *)construction, strlen(construction));
  memcpy(first_hash, first_chaining_key, KEY);
  mix(first_hash, (const uint8_t *)identifier, strlen(identifier));
  mix(first_hash, hub_key, KEY);
}

static void add_client(int index, uint32_t network, const struct sockaddr_in *hub) {
  struct client *client = &clients[index];
  struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(51820)};
  own.sin_addr.s_addr = htonl(network + (uint32_t)index);
  client->socket = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  if (client->socket < 0 || bind(client->socket, (struct sockaddr *)&own, sizeof own) != 0 ||
      connect(client->socket, (const struct sockaddr *)hub, sizeof *hub) != 0) {
    perror("storm");
    exit(1);
  }
  waiting[index] = (struct pollfd){.fd = client->socket, .events = POLLIN};
  randombytes_buf(client->private_key, KEY);
  crypto_scalarmult_curve25519_base(client->public_key, client->private_key);
  agree(client->static_secret, client->private_key, hub_key);
  char text[2 * KEY + 1];
  puts(sodium_bin2hex(text, sizeof text, client->public_key, KEY));
}

// Writes a new initiation, without the two MACs.
static void prepare(struct client *client) {
  uint8_t *message = client->message, key[KEY], secret[KEY], stamp[12];
  memcpy(message, "\1\0\0\0", 4);
  randombytes_buf(message + 4, 4);
  randombytes_buf(client->ephemeral, KEY);
  crypto_scalarmult_curve25519_base(message + 8, client->ephemeral);
  memcpy(client->hash, first_hash, KEY);
  mix(client->hash, message + 8, KEY);
  derive(client->chaining_key, NULL, NULL, first_chaining_key, message + 8, KEY);
  agree(secret, client->ephemeral, hub_key);
  derive(client->chaining_key, key, NULL, client->chaining_key, secret, KEY);
  seal(message + 40, key, client->public_key, KEY, client->hash, KEY);
  mix(client->hash, message + 40, KEY + 16);
  derive(client->chaining_key, key, NULL, client->chaining_key, client->static_secret, KEY);
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  uint64_t seconds = tai_offset + (uint64_t)time.tv_sec;
  for (int index = 0; index < 8; index++) stamp[index] = (uint8_t)(seconds >> (56 - 8 * index));
  uint32_t nanoseconds = htonl((uint32_t)time.tv_nsec);
  memcpy(stamp + 8, &nanoseconds, 4);
  seal(message + 88, key, stamp, sizeof stamp, client->hash, KEY);
  mix(client->hash, message + 88, sizeof stamp + 16);
}

static void send_initiation(struct client *client) {
  uint8_t *mac1 = client->message + MAC1_OF_INITIATION, *mac2 = mac1 + 16;
  blake2s(mac1, 16, mac1_key, client->message, MAC1_OF_INITIATION);
  memset(mac2, 0, 16);
  if (client->has_cookie) {
    blake2s_keyed(mac2, 16, client->cookie, 16, client->message, MAC1_OF_INITIATION + 16);
  }
  if (send(client->socket, client->message, INITIATION, 0) == INITIATION) initiations++;
  client->due = now() + retry_after + retry_jitter * randombytes_uniform(1000) / 1000;
}

static void take_cookie(struct client *client, const uint8_t *reply) {
  if (memcmp(reply + 4, client->message + 4, 4) != 0) return;
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(
          client->cookie, NULL, NULL, reply + 32, 32, client->message + MAC1_OF_INITIATION, 16,
          reply + 8, cookie_key) == 0) {
    client->has_cookie = 1;
    cookies++;
  }
}

// Verifies a response, and confirms the session with a keepalive.
static void take_response(struct client *client, const uint8_t *response) {
  uint8_t key[KEY], secret[KEY], temporary[KEY], nonce[12] = {0};
  if (client->has_session || memcmp(response + 8, client->message + 4, 4) != 0) return;
  mix(client->hash, response + 12, KEY);
  derive(client->chaining_key, NULL, NULL, client->chaining_key, response + 12, KEY);
  agree(secret, client->ephemeral, response + 12);
  derive(client->chaining_key, NULL, NULL, client->chaining_key, secret, KEY);
  agree(secret, client->private_key, response + 12);
  derive(client->chaining_key, NULL, NULL, client->chaining_key, secret, KEY);
  derive(client->chaining_key, temporary, key, client->chaining_key, no_preshared_key, KEY);
  mix(client->hash, temporary, KEY);
  if (crypto_aead_chacha20poly1305_ietf_decrypt(NULL, NULL, NULL, response + 44, 16, client->hash,
                                                KEY, nonce, key) != 0) {
    return;
  }
  uint8_t sending[KEY], receiving[KEY], keepalive[KEEPALIVE] = {4};
  derive(sending, receiving, NULL, client->chaining_key, key, 0);
  memcpy(keepalive + 4, response + 4, 4);
  seal(keepalive + 16, sending, NULL, 0, NULL, 0);
  if (send(client->socket, keepalive, KEEPALIVE, 0) != KEEPALIVE) return;
  client->has_session = 1;
  sessions++;
}

static void receive(struct client *client) {
  uint8_t message[2048];
  ssize_t size;
  while ((size = recv(client->socket, message, sizeof message, 0)) >= 0) {
    if (size == COOKIE_REPLY && message[0] == 3) take_cookie(client, message);
    if (size == RESPONSE && message[0] == 2) take_response(client, message);
  }
}

static void storm(double seconds) {
  initiations = cookies = sessions = 0;
  for (int index = 0; index < count; index++) {
    clients[index].has_session = clients[index].has_cookie = 0;
    prepare(&clients[index]);
  }
  double begin = now(), last = begin, time;
  for (int index = 0; index < count; index++) send_initiation(&clients[index]);
  while ((time = now()) < begin + seconds && sessions < (unsigned long)count) {
    unsigned long before = sessions;
    if (poll(waiting, (nfds_t)count, 5) < 0) exit(1);
    for (int index = 0; index < count; index++) {
      struct client *client = &clients[index];
      if (waiting[index].revents) receive(client);
      if (!client->has_session && client->due < time) {
        prepare(client);
        send_initiation(client);
      }
    }
    if (sessions > before) last = now();
  }
  printf("%lu %lu %lu %.0f\n", sessions, initiations, cookies, 1000 * (last - begin));
  fflush(stdout);
}

int main(int argument_count, char **arguments) {
  struct sockaddr_in hub = {.sin_family = AF_INET};
  struct in_addr network;
  if (argument_count != 7 || strlen(arguments[3]) != 2 * KEY) return 2;
  hub.sin_port = htons((uint16_t)atoi(arguments[2]));
  count = atoi(arguments[5]);
  if (inet_pton(AF_INET, arguments[1], &hub.sin_addr) != 1 ||
      inet_pton(AF_INET, arguments[4], &network) != 1 || count < 1 || count > MAXIMUM) {
    return 2;
  }
  start(arguments[3]);
  for (int index = 0; index < count; index++) add_client(index, ntohl(network.s_addr), &hub);
  fflush(stdout);
  while (getchar() == '\n') storm(atof(arguments[6]));
  return 0;
}
