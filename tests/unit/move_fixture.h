/*
 * tests/unit/move_fixture.h -- what the unit tests of ledger_move() share.
 */
#ifndef WEIR_TESTS_UNIT_MOVE_FIXTURE_H
#define WEIR_TESTS_UNIT_MOVE_FIXTURE_H

#include "shm/inflight.h"
#include "tests/unit/ledger_fixture.h"

#define INFLIGHT 4
#define UNLIMITED (INT64_MAX / 2)

static inline int
setup_small(void **state)
{
	return setup_with(state, INFLIGHT);
}

static inline struct charge
tokens(uint64_t id, int64_t limit, int64_t amount)
{
	struct charge c = bucket_charge(id, limit, MINUTE, amount);

	c.id.hi = 4;
	c.unit = UNIT_TOKENS;
	return c;
}

static inline struct charge
budget(uint64_t id, int64_t limit, int64_t amount)
{
	return budget_charge(id, PERIOD_TOTAL, limit, amount);
}

static inline struct charge
requests(uint64_t id, int64_t limit, int64_t amount)
{
	struct charge c = budget_charge(id, PERIOD_TOTAL, limit, amount);

	c.id.hi = 5;
	c.unit = UNIT_REQUESTS;
	return c;
}

static inline struct metered
metered(int64_t cost, int64_t total_tokens)
{
	return (struct metered){ .tokens = { total_tokens, cost }, .total_tokens = total_tokens, .cost_nusd = cost };
}

static inline enum ledger_verdict
try_to_move(struct fixture *f, struct inflight **e, int64_t cost, int64_t used_tokens, struct charge *c, uint32_t n,
    struct demand *d, struct refusal *why)
{
	struct metered used = metered(cost, used_tokens);

	*why = (struct refusal){ .wait_ns = -99 };
	return fixture_move(f, 0, e, &used, c, n, d, why);
}

/* Moves, or fails the test; the request has used so much. */
static inline void
moved(struct fixture *f, struct inflight **e, int64_t cost, int64_t used_tokens, struct charge *c, uint32_t n)
{
	struct inflight *before = *e;
	struct refusal why;

	assert_int_equal(try_to_move(f, e, cost, used_tokens, c, n, NULL, &why), LEDGER_ADMITTED);
	assert_ptr_not_equal(*e, before);
	assert_int_equal(inflight_state(before), INFLIGHT_FREE);
}

static inline struct inflight *
sent(struct fixture *f, struct charge *c, uint32_t n)
{
	struct inflight *e = admitted_all(f, c, n, NULL);

	inflight_sent(e);
	return e;
}

static inline int64_t
held(struct fixture *f, const struct charge *c)
{
	return view(f, c->id).held;
}

static inline int64_t
spent(struct fixture *f, const struct charge *c)
{
	return view(f, c->id).spent;
}

/* The ring's next item has a charge on this meter; false: not. Reads no further. */
static inline bool
booked(struct fixture *f, const struct charge *c, struct ring_charge *out)
{
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item item;

	assert_true(ring_next(&f->arena, 0, &at, &item));
	for (uint32_t i = 0; i < item.charges; i++)
		if (item.charge[i].id.hi == c->id.hi && item.charge[i].id.lo == c->id.lo) {
			*out = item.charge[i];
			return true;
		}
	return false;
}

static inline void
assert_booked(struct fixture *f, const struct charge *c, int64_t was_held, int64_t amount)
{
	struct ring_charge b = {0};

	assert_true(booked(f, c, &b));
	assert_int_equal(b.what, meter_what(c));
	assert_int_equal(b.held, was_held);
	assert_int_equal(b.amount, amount);
}

static inline uint32_t
charges_booked(struct fixture *f)
{
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item item;

	assert_true(ring_next(&f->arena, 0, &at, &item));
	return item.charges;
}

static inline void
drain(struct fixture *f)
{
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item item;

	while (ring_next(&f->arena, 0, &at, &item))
		;
	ring_advance(&f->arena, 0, at);
}

struct picture {		/* of all that a step may change and nothing that it leaves as it was */
	struct shm_meter meters[METERS];
	uint64_t lists[4];
	struct inflight pages[INFLIGHT + 1];
};

static inline void
take_picture(struct fixture *f, struct picture *p)
{
	const struct shm_worker *w = layout_worker(&f->arena, 0);
	const struct inflight *pages = layout_pages(&f->arena, 0);

	memset(p, 0, sizeof(*p));
	memcpy(p->meters, layout_meters(&f->arena), sizeof(p->meters));
	p->lists[0] = word_get(&w->page_first);
	p->lists[1] = word_get(&w->page_fresh);
	p->lists[2] = word_get(&w->inflight);
	p->lists[3] = word_get(&w->ring_head);
	for (int i = 0; i <= INFLIGHT; i++)
		if (inflight_state(&pages[i]) != INFLIGHT_FREE)
			p->pages[i] = pages[i];
}

static inline void
assert_as_in(struct fixture *f, const struct picture *before)
{
	static struct picture now;

	take_picture(f, &now);
	assert_memory_equal(&now, before, sizeof(now));
}

#endif
