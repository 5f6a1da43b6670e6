/*
 * shm/inflight.c -- a page for each request that is being served.
 *
 * Free pages form a list that is used last in, first out, so that a worker
 * with few requests at a time touches few pages; pages that were never used
 * lie behind `page_fresh` and need no preparation. Taking and releasing are
 * part of the ledger's step. In between, a page belongs to its worker, which
 * writes it without a lock; what must survive a death in the middle of such a
 * write (the record, what was metered) exists twice, and one store says which
 * copy is valid.
 *
 * Holds are written while a page is free, and not noted. So a request whose
 * holds change goes on in another page, which takes the old one's place in the
 * same step.
 */
#include "shm/inflight.h"

#include <string.h>

#define LOOKS_MAX 100	/* tries to see a page between two requests */

bool
inflight_has_room(const struct arena *a, const struct shm_worker *w)
{
	return word_get(&w->page_first) > 0 || word_get(&w->page_fresh) < a->header->sizes.inflight;
}

struct inflight *
inflight_next(const struct arena *a, uint32_t worker)
{
	const struct shm_worker *w = layout_worker(a, worker);
	uint64_t first = word_get(&w->page_first);

	if (!inflight_has_room(a, w))
		return NULL;
	return &layout_pages(a, worker)[first > 0 ? first - 1 : word_get(&w->page_fresh)];
}

static struct inflight *
pages_of(const struct step *s)
{
	return layout_pages(s->a, (uint32_t)(s->worker - layout_worker(s->a, 0)));
}

struct inflight *
inflight_take(struct step *s)
{
	struct shm_worker *w = s->worker;
	uint64_t first = word_get(&w->page_first), fresh = word_get(&w->page_fresh);
	struct inflight *e = &pages_of(s)[first > 0 ? first - 1 : fresh];

	CHECK(inflight_has_room(s->a, w) && inflight_state(e) == INFLIGHT_FREE);
	if (first > 0)
		journal_set(s, &w->page_first, e->next);
	else
		journal_set(s, &w->page_fresh, fresh + 1);
	journal_set(s, &w->inflight, word_get(&w->inflight) + 1);
	word_put(&e->step, s->sequence);
	word_put(&e->holds, 0);
	word_put(&e->record, 0);
	word_put(&e->metered_at, 0);
	e->metered[0] = (struct metered){ 0 };
	CRASH_POINT();
	return e;
}

static void
begin(struct step *s, struct inflight *e, enum inflight_state state)
{
	uint64_t generation = word_get(&e->status) / INFLIGHT_GENERATION + 1;

	journal_set(s, &e->status, generation * INFLIGHT_GENERATION | state);
}

void
inflight_admit(struct step *s, struct inflight *e)
{
	begin(s, e, INFLIGHT_ADMITTED);
}

void
inflight_release(struct step *s, struct inflight *e)
{
	struct shm_worker *w = s->worker;
	uint64_t number = (uint64_t)(e - pages_of(s)) + 1;

	/* `next` means nothing while the page is not in the list. */
	e->next = word_get(&w->page_first);
	CRASH_POINT();
	journal_set(s, &w->page_first, number);
	journal_set(s, &w->inflight, word_get(&w->inflight) - 1);
	journal_set(s, &e->status, word_get(&e->status) / INFLIGHT_GENERATION * INFLIGHT_GENERATION);
}

void
inflight_copy(struct inflight *to, const struct inflight *from)
{
	uint32_t bytes;
	const char *text = inflight_text(from, &bytes);

	CHECK(inflight_state(to) == INFLIGHT_FREE);
	CRASH_POINT();
	memcpy(to->text[0], text, bytes);
	CRASH_POINT();
}

void
inflight_replace(struct step *s, struct inflight *from, struct inflight *to, const struct metered *used)
{
	word_put_hidden(&to->record, (uint32_t)word_get(&from->record));
	to->metered[0] = *used;
	CRASH_POINT();
	begin(s, to, inflight_state(from));
	inflight_release(s, from);
}

static void
put_state(struct inflight *e, uint64_t state_and_flags)
{
	uint64_t generation = word_get(&e->status) / INFLIGHT_GENERATION;

	word_put(&e->status, generation * INFLIGHT_GENERATION | state_and_flags);
}

enum inflight_state
inflight_state(const struct inflight *e)
{
	return (enum inflight_state)(word_get(&e->status) & INFLIGHT_STATE);
}

bool
inflight_is_cancel(const struct inflight *e)
{
	return (word_get(&e->status) & INFLIGHT_CANCEL) != 0;
}

void
inflight_done(struct inflight *e, bool cancel, const struct settled *used)
{
	if (inflight_state(e) == INFLIGHT_DONE)
		return;
	word_put_hidden(&e->cost_nusd, (uint64_t)used->cost_nusd);
	word_put_hidden(&e->tokens, (uint64_t)used->tokens);
	put_state(e, INFLIGHT_DONE | (cancel ? INFLIGHT_CANCEL : 0));
	CRASH_POINT();
}

struct settled
inflight_used(const struct inflight *e)
{
	return (struct settled){ (int64_t)word_get(&e->cost_nusd), (int64_t)word_get(&e->tokens) };
}

void
inflight_sent(struct inflight *e)
{
	enum inflight_state state = inflight_state(e);

	CHECK(state == INFLIGHT_ADMITTED || state == INFLIGHT_SENT);
	if (state == INFLIGHT_ADMITTED)
		put_state(e, INFLIGHT_SENT);
	CRASH_POINT();
}

/* ---- the record ---- */

char *
inflight_record(struct inflight *e)
{
	return e->text[!(word_get(&e->record) >> 32)];
}

void
inflight_record_set(struct inflight *e, uint32_t bytes)
{
	uint64_t place = !(word_get(&e->record) >> 32);

	CHECK(bytes <= RECORD_BYTES_MAX);
	CRASH_POINT();
	word_put(&e->record, place << 32 | bytes);
	CRASH_POINT();
}

const char *
inflight_text(const struct inflight *e, uint32_t *bytes)
{
	uint64_t record = word_get(&e->record);

	*bytes = (uint32_t)record;
	return e->text[record >> 32];
}

/* ---- what was metered ---- */

void
inflight_metered(struct inflight *e, const struct metered *m)
{
	uint64_t other = !word_get(&e->metered_at);

	e->metered[other] = *m;
	CRASH_POINT();
	word_put(&e->metered_at, other);
	CRASH_POINT();
}

struct metered
inflight_metered_get(const struct inflight *e)
{
	return e->metered[word_get(&e->metered_at)];
}

/* ---- looking ---- */

uint32_t
ledger_inflight_count(const struct arena *a, uint32_t worker)
{
	return (uint32_t)word_get(&layout_worker(a, worker)->inflight);
}

static bool
is_cost_budget(const struct shm_hold *h)
{
	uint32_t what = hold_what(h);

	return WHAT_KIND(what) == METER_BUDGET && WHAT_UNIT(what) == UNIT_NUSD;
}

/* Adds up the holds on money of a page that is in use; false if it changed
 * hands meanwhile. */
static bool
page_held(const struct inflight *e, int64_t *sum)
{
	uint64_t status = word_get(&e->status), holds = word_get(&e->holds);

	*sum = 0;
	if ((status & INFLIGHT_STATE) == INFLIGHT_FREE)
		return true;
	for (uint64_t i = 0; i < holds && i < CHARGES_MAX; i++)
		if (is_cost_budget(&e->hold[i]))
			*sum += (int64_t)word_get(&e->hold[i].amount);
	/* Not the same as `status`: from ADMITTED to SENT nothing is lost. */
	return inflight_state(e) != INFLIGHT_FREE &&
	    word_get(&e->status) / INFLIGHT_GENERATION == status / INFLIGHT_GENERATION;
}

int64_t
ledger_inflight_held(const struct arena *a)
{
	int64_t sum = 0;

	for (uint32_t w = 0; w < a->header->sizes.workers; w++) {
		const struct inflight *pages = layout_pages(a, w);
		uint64_t used = word_get(&layout_worker(a, w)->page_fresh);

		for (uint64_t i = 0; i < used; i++) {
			int64_t held = 0;

			for (int tries = 0; tries < LOOKS_MAX && !page_held(&pages[i], &held); tries++)
				held = 0;
			sum += held;
		}
	}
	return sum;
}
