/*
 * shm/key128.h -- 128 bits that name something: a target, a piece of work, a
 * conversation.
 *
 * Made by a hash of what is named, so that any part of them is as good as any
 * other: the tables take their places from some of the bits and compare the rest.
 * Nobody outside may be able to choose them (a keyed hash, or SHA-256).
 */
#ifndef WEIR_SHM_KEY128_H
#define WEIR_SHM_KEY128_H

#include <stdint.h>

struct key128 {
	uint64_t hi, lo;
};

#endif
