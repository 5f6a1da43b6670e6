/*
 * policy/canon.h -- a key of 128 bits for requests that mean the same.
 *
 * A key is made of parts: byte strings (method, path, workspace, ...) and JSON
 * texts. Parts count in their order, and no two lists of parts look the same
 * (an absent part is not an empty one). Of a JSON text the order of members
 * and the white space between tokens do not count; all else does. Strings and
 * numbers count as they are spelled ("\u0061" is not "a", 1.0 is not 1),
 * elements of an array in their order, a member that is there twice is not one
 * that is there once. (Of two members with the same name in one object their
 * order does not count either.)
 *
 * How: one pass, SipHash-2-4-128 under a secret of 128 random bits. What is
 * hashed is a row of words of which each says what it is and how many follow,
 * so a row can be read in one way only. An array is its elements in a row
 * between two marks. An object stands in the row of its surroundings as the
 * number of its members and the sum (mod 2^128) of their hashes; a member's
 * hash is that of its own row, name and value, under a mark that no other row
 * begins with.
 *
 * Why a sum is good enough: without the secret nobody can tell a hash of
 * SipHash from a random number, so two different bags of members have the same
 * sum by chance only, in one of 2^128 cases for each odd difference in how often
 * a member is there, and in one of 2^(128 - k) where all of them are divisible
 * by 2^k; k is below 25, because a body has fewer bytes. To build a collision of
 * sums somebody would have to know hashes: so neither the secret nor a key may
 * reach a client, a log or a record.
 *
 * Nothing is allocated. A call of canon_add_json() has a stack of its own, of
 * JSON_DEPTH_MAX objects (32 KiB).
 */
#ifndef WEIR_POLICY_CANON_H
#define WEIR_POLICY_CANON_H

#include "policy/json.h"
#include "shm/base/siphash.h"

struct canon_key {
	uint64_t secret[2];
	struct siphash_stream row;
};

void canon_begin(struct canon_key *k, const uint64_t secret[2]);
void canon_add(struct canon_key *k, struct slice part);
	/* SLICE_NONE: a part that is absent. */
bool canon_add_json(struct canon_key *k, struct slice text, struct json_error *why) MUST_CHECK;
	/* The whole text is one JSON value. false: it is not, and the key is as
	 * it was before. */
void canon_end(struct canon_key *k, uint64_t out[2]);
	/* The key. k is wiped: begin anew. */

#endif
