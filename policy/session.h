/*
 * policy/session.h -- whose conversation is this?
 *
 * Requests of one conversation should reach one account: there its prompt is
 * cached, and only there its signatures are understood (state.h). Who it belongs
 * to is told by the first of: Claude Code's header, the body's metadata.user_id,
 * the beginning of the conversation itself.
 *
 * The beginning is the first message of the user: it is sent again in each turn.
 * Of it the texts count, and not how they are written: clients move cache_control
 * from block to block, and what was a block with a marker becomes a plain string.
 * The system prompt does not count: clients put dates into it, and Claude Code a
 * number that changes with every request. Two conversations of a key that begin
 * with the same words are one, which costs nothing but balance.
 *
 * With sticky.hash_fields an operator says instead what keeps requests together.
 */
#ifndef WEIR_POLICY_SESSION_H
#define WEIR_POLICY_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/body.h"
#include "policy/condition.h"
#include "policy/problem.h"

#define SESSION_BYTES_MAX 16384		/* texts are hashed so far, which tells beginnings apart */
#define SESSION_FIELDS_MAX 16
#define SESSION_FIELD_BYTES_MAX 256

enum session_source { SESSION_NONE, SESSION_HEADER, SESSION_USER_ID, SESSION_BEGINNING };

struct session {
	enum session_source source;
	uint64_t id[2];			/* valid unless NONE */
};

struct session session_find(struct slice header, const struct body_scan *body, struct slice key_id, const uint64_t secret[2]);
	/* `header`: of x-claude-code-session-id, none if absent; `body`: the
	 * client's own, NULL if there is none; `key_id`: sessions of two keys are
	 * never the same; `secret`: the hash's key, the same wherever ids are to
	 * be equal. */

struct session_fields;			/* compiled hash_fields */
struct session_fields *session_fields_compile(const struct slice *fields, uint32_t count, const char *path,
    struct problems *p) MUST_CHECK;
	/* "metadata.x", "params.x" (or deeper, as in conditions), "headers.x".
	 * `path` is that of the list. NULL: problems were added. Nothing of
	 * `fields` is kept. session_fields_free() it. */
void session_fields_free(struct session_fields *fields);
	/* NULL is fine. */

struct session_facts {
	const struct condition_facts *request;
	struct slice (*header)(void *arg, struct slice name);	/* `name` in lower case; none: absent */
	void *arg;
};
bool session_fields_find(const struct session_fields *fields, const struct session_facts *facts, struct slice key_id,
    const uint64_t secret[2], uint64_t id[2]) MUST_CHECK;
	/* A field that is missing counts as such. false: all of them are. */

#endif
