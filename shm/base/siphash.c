/* shm/base/siphash.c -- see siphash.h. */
#include "shm/base/siphash.h"

#include <endian.h>

struct state { uint64_t v0, v1, v2, v3; };

static inline uint64_t
rotate(uint64_t x, int by)
{
	return x << by | x >> (64 - by);
}

static inline void
one_round(struct state *s)
{
	s->v0 += s->v1;
	s->v1 = rotate(s->v1, 13) ^ s->v0;
	s->v0 = rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotate(s->v1, 17) ^ s->v2;
	s->v2 = rotate(s->v2, 32);
}

static inline void
two_rounds(struct state *s)
{
	one_round(s);
	one_round(s);
}

static inline void
take(struct state *s, uint64_t word)
{
	s->v3 ^= word;
	two_rounds(s);
	s->v0 ^= word;
}

struct siphash
siphash128(const uint64_t key[2], struct slice in)
{
	struct state s = {
		.v0 = UINT64_C(0x736f6d6570736575) ^ key[0], .v1 = UINT64_C(0x646f72616e646f6d) ^ key[1] ^ 0xee,
		.v2 = UINT64_C(0x6c7967656e657261) ^ key[0], .v3 = UINT64_C(0x7465646279746573) ^ key[1],
	};
	struct siphash out;
	size_t at = 0;
	uint64_t word;

	for (; in.n - at >= 8; at += 8) {
		memcpy(&word, in.p + at, 8);
		take(&s, le64toh(word));
	}
	word = (uint64_t)in.n << 56;
	for (size_t i = 0; at + i < in.n; i++)
		word |= (uint64_t)(unsigned char)in.p[at + i] << (8 * i);
	take(&s, word);

	s.v2 ^= 0xee;
	two_rounds(&s);
	two_rounds(&s);
	out.lo = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
	s.v1 ^= 0xdd;
	two_rounds(&s);
	two_rounds(&s);
	out.hi = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
	return out;
}
