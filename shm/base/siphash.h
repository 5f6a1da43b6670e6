/*
 * shm/base/siphash.h -- SipHash-2-4 with 128 bits of output: a keyed hash for tables.
 *
 * (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012, and the
 * authors' 128-bit variant.) With a secret random key its output cannot be
 * predicted or made to collide, and it costs a tenth of a SHA-256 block. For
 * tables inside a process only: nothing that is stored depends on it.
 */
#ifndef WEIR_SHM_BASE_SIPHASH_H
#define WEIR_SHM_BASE_SIPHASH_H

#include <stdint.h>

#include "shm/base/slice.h"

struct siphash { uint64_t lo, hi; };

struct siphash siphash128(const uint64_t key[2], struct slice in);

#endif
