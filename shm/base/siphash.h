/*
 * shm/base/siphash.h -- SipHash-2-4 with 128 bits of output: a keyed hash.
 *
 * (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012, and the
 * authors' 128-bit variant.) With a secret random key its output cannot be
 * predicted or made to collide, and it costs a tenth of a SHA-256 block. For
 * tables inside a process and for the response cache: nothing that has to last
 * depends on it.
 *
 * A stream takes words of 64 bits as they come, and gives what siphash128()
 * gives for their bytes (little-endian) in a row. It is inline, because its
 * user has millions of short things to hash.
 */
#ifndef WEIR_SHM_BASE_SIPHASH_H
#define WEIR_SHM_BASE_SIPHASH_H

#include <stdint.h>

#include "shm/base/slice.h"

struct siphash { uint64_t lo, hi; };

struct siphash siphash128(const uint64_t key[2], struct slice in);

struct siphash_stream {
	uint64_t v0, v1, v2, v3;
	uint64_t words;		/* taken so far */
};

static inline uint64_t
siphash_rotate(uint64_t x, int by)
{
	return x << by | x >> (64 - by);
}

static inline void
siphash_round(struct siphash_stream *s)
{
	s->v0 += s->v1;
	s->v1 = siphash_rotate(s->v1, 13) ^ s->v0;
	s->v0 = siphash_rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = siphash_rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = siphash_rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = siphash_rotate(s->v1, 17) ^ s->v2;
	s->v2 = siphash_rotate(s->v2, 32);
}

static inline void
siphash_begin(struct siphash_stream *s, const uint64_t key[2])
{
	*s = (struct siphash_stream){
		.v0 = UINT64_C(0x736f6d6570736575) ^ key[0], .v1 = UINT64_C(0x646f72616e646f6d) ^ key[1] ^ 0xee,
		.v2 = UINT64_C(0x6c7967656e657261) ^ key[0], .v3 = UINT64_C(0x7465646279746573) ^ key[1],
	};
}

static inline void
siphash_word(struct siphash_stream *s, uint64_t word)
{
	s->v3 ^= word;
	siphash_round(s);
	siphash_round(s);
	s->v0 ^= word;
	s->words++;
}

/* `last`: the bytes behind the last word, and in the top byte how many there
 * were in all. */
static inline struct siphash
siphash_finish(struct siphash_stream *s, uint64_t last)
{
	struct siphash out;

	siphash_word(s, last);
	s->v2 ^= 0xee;
	for (int i = 0; i < 4; i++)
		siphash_round(s);
	out.lo = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
	s->v1 ^= 0xdd;
	for (int i = 0; i < 4; i++)
		siphash_round(s);
	out.hi = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
	return out;
}

static inline struct siphash
siphash_end(struct siphash_stream *s)
{
	return siphash_finish(s, s->words << 3 << 56);
}

#endif
