/*
 * policy/state.h -- what in a request only the account that made it understands.
 *
 * A conversation that changes accounts takes along signatures, ids and encrypted
 * texts that the next one refuses. Some of it may be left out, because nothing
 * that was said is in it: thinking and its signatures, a credit, the id for a
 * diagnosis. Of the rest the request cannot do without, and its account cannot be
 * changed. Looked at only when it may be: it is one pass over the messages.
 */
#ifndef WEIR_POLICY_STATE_H
#define WEIR_POLICY_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/body.h"

#define STATE_THINKING 1u	/* thinking and redacted_thinking blocks of the assistant */
#define STATE_CONTAINER 2u	/* a container's id */
#define STATE_FILE 4u		/* file_id: of a source, a container_upload, a result */
#define STATE_THREAD 8u		/* thread.previous_message_id */
#define STATE_ENCRYPTED 16u	/* encrypted_content, _index, _stdout; compaction blocks */
#define STATE_CREDIT 32u	/* fallback_credit_token */
#define STATE_DIAGNOSTICS 64u	/* diagnostics.previous_message_id */
#define STATE_WORDS_BYTES 256	/* what state_describe() writes of all of them */

struct state {
	uint32_t kinds;
	bool in_turn;		/* the assistant's last turn goes on: its tools have answered, or it is the last message */
	uint32_t messages;	/* how many there are */
	uint32_t last_turn;	/* which of them is the assistant's last; if in_turn */
	bool last_thought;	/* it has thinking in it */
};
#define STATE_ALL UINT32_MAX

struct state state_find(const struct body_scan *body);
uint32_t state_can_drop(uint32_t kinds);
	/* Those that can be left out without loss of meaning. */
void state_describe(uint32_t kinds, char out[STATE_WORDS_BYTES]);
	/* "an uploaded file, encrypted results": for a refusal that says why a
	 * request cannot go to another account. "" of none. */

bool state_strip(const struct body_scan *body, const struct state *state, uint32_t before, struct scratch *mem,
    struct slice *out) MUST_CHECK;
	/*
	 * The body without what can be dropped of `state`, which state_find() has
	 * found in it, in *out: one text in `mem`, or the body itself
	 * (out->p == body->body.p) if there is nothing of it. false: no memory.
	 * `before` STATE_ALL: of another account, all of it. Else only the thinking
	 * in the messages before that one: the others are of the account that the
	 * request goes to.
	 *
	 * Thinking goes block by block, never a part of one. A turn of the
	 * assistant in which nothing else was goes as a whole: it said nothing, and
	 * the API merges its neighbours. With "thinking":{"type":"enabled"...} the
	 * API wants the block of a turn that goes on. Where that has none, or has
	 * none any more, thinking is disabled for this request, and with it the
	 * edits of context_management that clear thinking.
	 */

#endif
