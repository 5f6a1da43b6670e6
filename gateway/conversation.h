/*
 * gateway/conversation.h -- where a conversation goes on.
 *
 * What a provider's account knows of a conversation (its prompt cache, signatures
 * of thinking, containers, files) is worth nothing at another one, or an error. So
 * a conversation stays where it is: a loadbalance gives it the same target each
 * time (policy/route.h). If it had to move (that target was out), all workers know
 * where it is now (shm/places.h), and it stays there as long as something in it is
 * understood there alone (policy/state.h), in a fallback too.
 *
 * When it moves, what can be left out of it is left out; with what cannot, targets
 * of other accounts cannot be used. Its client will go on sending thinking of the
 * account that it came from, so that is left out of all further turns.
 *
 * All of this is for configs with several targets only.
 */
#ifndef WEIR_GATEWAY_CONVERSATION_H
#define WEIR_GATEWAY_CONVERSATION_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/config.h"
#include "policy/state.h"
#include "shm/base/buf.h"

struct request;

struct conversation {
	bool known;		/* whose it is: `session` */
	bool placed;		/* some account has it: `place` */
	bool looked;		/* `state` is valid */
	uint64_t session[2];
	struct place {
		uint32_t account;	/* a hash of it */
		uint32_t moved_at;	/* messages that it had when it came there, with foreign thinking in them; 0: none */
	} place;
	struct state state;
};

void conversation_begin(struct request *r);
	/* Before the walk. */
bool conversation_by_fields(struct request *r, const struct config_sticky *s, uint64_t session[2]);
	/* The session by the fields that the config names. false: none of them is there. */
uint32_t conversation_home(struct request *r, const struct config_target *chosen);
	/* Number of the target that must be preferred to the one that was chosen,
	 * because the conversation's state is there; or ROUTE_ANY. */
void conversation_look(struct request *r);
	/* The request may have to leave its account. From now on conversation_fits()
	 * knows. */
bool conversation_fits(const struct request *r, const struct config_target *t);
	/* Can it go on at that target, as far as is known? */
void conversation_reason(const struct request *r, struct buf *out);
	/* Why it fits only where it came from, in words. */
bool conversation_bound(const struct request *r);
	/* Is there state in it that cannot be left out? As far as was looked. */
enum conversation_entry { CONVERSATION_ENTERS, CONVERSATION_BOUND, CONVERSATION_NO_MEMORY };
enum conversation_entry conversation_enter(struct request *r) MUST_CHECK;
	/* At a target: leaves out of at.asked, which is what the client asked, what
	 * this account would not understand. BOUND: it cannot go on here. */
void conversation_served(struct request *r);
	/* This target has answered: the conversation is there. */

#endif
