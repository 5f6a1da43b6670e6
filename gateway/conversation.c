/* gateway/conversation.c -- see conversation.h. */
#include "gateway/conversation.h"

#include "gateway/request.h"
#include "policy/route.h"
#include "policy/session.h"
#include "shm/base/clock.h"
#include "shm/base/siphash.h"
#include "shm/places.h"

#define PLACE_NS_MAX (7 * 24 * 3600 * NS_PER_S)	/* people come back to a conversation after a weekend */
#define ACCOUNT_BITS 20		/* of a place's word; the rest is moved_at */
#define MOVED_AT_MAX ((1u << (32 - ACCOUNT_BITS)) - 1)	/* that many or more: all messages */

/* Not secret: a session has to be the same in all workers and after a restart, and
 * nobody gains by choosing where his own conversations go. */
static const uint64_t session_key[2] = { UINT64_C(0x7765697220736573), UINT64_C(0x73696f6e73000000) };

/* ---- accounts ---- */

static uint32_t
hash_of(struct slice name)
{
	return (uint32_t)siphash128(session_key, name).lo & ((1u << ACCOUNT_BITS) - 1);
}

static const struct setting_provider *
provider_of(const struct request *r, const struct config_target *t)
{
	const struct plane_target *known = plane_target_of(r->plane, r->config, t);

	return known ? known->provider : settings_provider_of(r->plane->settings, t);
}

/* A credential of the target's own is an account of its own. */
static uint32_t
account_of(const struct request *r, const struct setting_provider *p, const struct config_target *t)
{
	return hash_of(t->api_key.n ? t->api_key : plane_provider(r->plane, p)->account);
}

/* false: that is known only when the request is there. */
static bool
account_known(const struct request *r, const struct config_target *t, uint32_t *account)
{
	const struct setting_provider *p = provider_of(r, t);

	*account = p ? account_of(r, p, t) : 0;
	return p != NULL;
}

/* ---- whose, and where ---- */

static struct key128
place_key(const struct conversation *c)
{
	return (struct key128){ c->session[0], c->session[1] };
}

void
conversation_begin(struct request *r)
{
	struct conversation *c = &r->conversation;
	struct session s;
	uint32_t word;

	*c = (struct conversation){ .known = false };
	s = session_find(r->known.session_id, r->asked, r->rec.key_id, session_key);
	c->known = s.source != SESSION_NONE;
	if (!c->known)
		return;
	memcpy(c->session, s.id, sizeof(c->session));
	c->placed = places_get(r->worker->arena, place_key(c), PLACE_NS_MAX, r->start_mono_ns, &word);
	if (c->placed)
		c->place = (struct place){ .account = word & ((1u << ACCOUNT_BITS) - 1), .moved_at = word >> ACCOUNT_BITS };
}

static struct slice
header(void *arg, struct slice name)
{
	const struct request *r = arg;

	for (uint32_t i = 0; i < r->head.headers_count; i++)
		if (slice_eq(r->head.headers[i].name, name))
			return r->head.headers[i].value;
	return SLICE_NONE;
}

bool
conversation_by_fields(struct request *r, const struct config_sticky *s, uint64_t session[2])
{
	const struct session_facts facts = { .request = &r->conditions, .header = header, .arg = r };

	return session_fields_find(s->hash_fields, &facts, r->rec.key_id, session_key, session);
}

/* ---- what it takes along ---- */

void
conversation_look(struct request *r)
{
	struct conversation *c = &r->conversation;

	if (c->looked || !c->placed)
		return;
	c->looked = true;
	c->state = state_find(r->asked);
}

static uint32_t
bound(const struct conversation *c)
{
	return c->looked ? c->state.kinds & ~state_can_drop(c->state.kinds) : 0;
}

bool
conversation_bound(const struct request *r)
{
	return bound(&r->conversation) != 0;
}

bool
conversation_fits(const struct request *r, const struct config_target *t)
{
	const struct conversation *c = &r->conversation;
	uint32_t account;

	return !bound(c) || !account_known(r, t, &account) || account == c->place.account;
}

void
conversation_reason(const struct request *r, struct buf *out)
{
	char words[STATE_WORDS_BYTES];

	state_describe(bound(&r->conversation), words);
	buf_printf(out, "the conversation has %s, which only the account understands that it came from", words);
}

uint32_t
conversation_home(struct request *r, const struct config_target *chosen)
{
	struct conversation *c = &r->conversation;
	uint32_t account;

	if (!c->placed || !account_known(r, chosen, &account) || account == c->place.account)
		return ROUTE_ANY;
	conversation_look(r);
	if (!c->state.kinds)
		return ROUTE_ANY;
	for (uint32_t i = 0; i < r->config->targets_count; i++)
		if (account_known(r, &r->config->targets[i], &account) && account == c->place.account)
			return i;
	return ROUTE_ANY;
}

/* ---- at a target ---- */

static bool
strip(struct request *r, uint32_t before)
{
	struct json_error why;
	struct slice body;

	if (!state_strip(r->asked, &r->conversation.state, before, &r->target_mem, &body))
		return false;
	if (body.p == r->asked->body.p)
		return true;
	r->at.asked = scratch_alloc(&r->target_mem, sizeof(*r->at.asked));
	return r->at.asked && body_scan(body, r->at.asked, &why);
}

enum conversation_entry
conversation_enter(struct request *r)
{
	struct conversation *c = &r->conversation;

	r->at.account = account_of(r, r->at.provider, r->at.target);
	if (!c->placed) {		/* a new one, or one that nobody remembers: if anybody has it, it is the first that is asked */
		c->placed = true;
		c->place.account = r->at.account;
	}
	bool moves = r->at.account != c->place.account;
	if (!moves && !c->place.moved_at)
		return CONVERSATION_ENTERS;
	conversation_look(r);
	if (moves && bound(c))
		return CONVERSATION_BOUND;
	return strip(r, moves || c->place.moved_at == MOVED_AT_MAX ? STATE_ALL : c->place.moved_at) ? CONVERSATION_ENTERS : CONVERSATION_NO_MEMORY;
}

void
conversation_served(struct request *r)
{
	struct conversation *c = &r->conversation;
	struct place place = c->place;

	if (!c->known || r->route != ROUTE_MESSAGES)
		return;
	if (r->at.account != place.account) {
		const struct state *s = &c->state;

		place.account = r->at.account;
		place.moved_at = !(s->kinds & STATE_THINKING) ? 0 : s->messages < MOVED_AT_MAX ? s->messages : MOVED_AT_MAX;
	}
	places_put(r->worker->arena, place_key(c), place.account | place.moved_at << ACCOUNT_BITS, clock_mono_ns());
}
