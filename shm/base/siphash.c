/* shm/base/siphash.c -- see siphash.h. */
#include "shm/base/siphash.h"

#include <endian.h>

struct siphash
siphash128(const uint64_t key[2], struct slice in)
{
	struct siphash_stream s;
	size_t at = 0;
	uint64_t word;

	siphash_begin(&s, key);
	for (; in.n - at >= 8; at += 8) {
		memcpy(&word, in.p + at, 8);
		siphash_word(&s, le64toh(word));
	}
	word = (uint64_t)in.n << 56;
	for (size_t i = 0; at + i < in.n; i++)
		word |= (uint64_t)(unsigned char)in.p[at + i] << (8 * i);
	return siphash_finish(&s, word);
}
