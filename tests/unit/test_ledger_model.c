/*
 * The ledger against a reference that is too simple to be wrong: one thread,
 * no rollback (it looks first and takes afterwards), calendar dates from libc.
 * Random traces of admit, settle, cancel and of both clocks, which at times
 * jump over a period or step back; after each operation verdicts, refusals and
 * what the meters show must agree exactly. A refusal by a bucket is then put
 * to the test: a nanosecond before its time it stands, at its time it does not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "shm/ring.h"
#include "tests/unit/arena_fixture.h"

#define OPERATIONS 300000
#define BUCKETS 6
#define BUDGETS 8
#define METERS (BUCKETS + BUDGETS)
#define OPEN_MAX 48		/* a page less than the arena has */
#define NEVER (-1)

__extension__ typedef __int128 big;

struct model_meter {
	int64_t limit, window_ns;	/* most charges use these */
	enum meter_period period;
	big full_at;			/* bucket */
	big spent, held;		/* budget */
	int64_t index;
	big ever_spent, from_ring;
	bool used;
};

struct open_request {
	struct inflight *e;
	uint32_t worker;
	big cost[METERS];		/* bucket: ns; budget: nusd */
	bool on[METERS];
};

struct world {
	struct fixture f;
	struct model_meter meter[METERS];
	struct open_request open[OPEN_MAX];
	uint32_t opened;
	uint64_t random;
	uint64_t admitted, refused, waited, rolled, settled, cancelled;
};

static uint64_t
draw(struct world *w, uint64_t below)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random % below;
}

/* ---- the reference ---- */

static int64_t
days_of(const struct tm *date)
{
	struct tm copy = *date;

	return timegm(&copy) / 86400;
}

static int64_t
model_index(enum meter_period p, int64_t wall_ns)
{
	time_t s = wall_ns / NS_PER_S;
	struct tm tm;

	gmtime_r(&s, &tm);
	if (p == PERIOD_MONTHLY)
		return (tm.tm_year - 70) * 12 + tm.tm_mon;
	tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
	if (p == PERIOD_DAILY)
		return days_of(&tm);
	if (p == PERIOD_TOTAL)
		return 0;
	tm.tm_mday -= (tm.tm_wday + 6) % 7;	/* back to Monday */
	return (days_of(&tm) - 4) / 7;
}

static int64_t
model_end_ns(enum meter_period p, int64_t index)
{
	struct tm tm = { .tm_year = 70, .tm_mday = 1 };

	if (p == PERIOD_MONTHLY)
		tm.tm_mon = (int)index + 1;
	else if (p == PERIOD_DAILY)
		tm.tm_mday += (int)index + 1;
	else
		tm.tm_mday = 5 + ((int)index + 1) * 7;
	return timegm(&tm) * NS_PER_S;
}

static void
model_roll(struct world *w, struct model_meter *m)
{
	int64_t index = model_index(m->period, w->f.now.wall_ns);

	if (index > m->index) {
		w->rolled += m->used;
		m->index = index;
		m->spent = 0;
	}
}

static big
bucket_ahead(const struct world *w, const struct model_meter *m)
{
	return m->full_at > w->f.now.mono_ns ? m->full_at - w->f.now.mono_ns : 0;
}

/* Room for one more charge on a meter where `own` is taken already: 0, or the
 * wait. Adds to *own unless it can never fit. */
static int64_t
model_room(const struct world *w, const struct model_meter *m, const struct charge *c, big *own)
{
	if (c->kind == METER_BUCKET) {
		if (c->limit <= 0)
			return NEVER;
		big cost = (big)c->amount * c->window_ns / c->limit;
		if (*own + cost > c->window_ns)
			return NEVER;
		*own += cost;
		big over = bucket_ahead(w, m) + *own - c->window_ns;
		return over > 0 ? (int64_t)over : 0;
	}
	big index = model_index(m->period, w->f.now.wall_ns);
	big spent = index > m->index ? 0 : m->spent;
	if (index < m->index)
		index = m->index;
	big need = *own + c->amount > 0 ? *own + c->amount : 1;
	*own += c->amount;
	if (spent + m->held + need <= c->limit)
		return 0;
	if (m->period == PERIOD_TOTAL || *own > c->limit || c->limit <= 0)
		return NEVER;
	return model_end_ns(m->period, (int64_t)index) - w->f.now.wall_ns;
}

/* The verdict, with the refusal as the ledger has to describe it. */
static enum ledger_verdict
model_admit(struct world *w, const struct charge *c, const uint32_t *which, uint32_t n, big own[METERS],
    struct refusal *why)
{
	enum ledger_verdict verdict = LEDGER_ADMITTED;

	memset(own, 0, sizeof(big) * METERS);
	for (uint32_t i = 0; i < n; i++) {
		const struct model_meter *m = &w->meter[which[i]];
		int64_t wait = model_room(w, m, &c[i], &own[which[i]]);

		if (wait == 0)
			continue;
		if (verdict == LEDGER_ADMITTED) {
			verdict = LEDGER_REFUSED;
			*why = (struct refusal){ .charge = i, .limit = c[i].limit, .wait_ns = wait };
			if (c[i].kind == METER_BUDGET) {
				why->held = (int64_t)m->held;
				why->spent = model_index(m->period, w->f.now.wall_ns) > m->index ? 0 : (int64_t)m->spent;
			}
		} else if (c[i].kind == c[why->charge].kind && why->wait_ns != NEVER) {
			if (wait == NEVER || wait > why->wait_ns)
				why->wait_ns = wait;
		}
	}
	return verdict;
}

static void
model_book(struct world *w, struct open_request *r, const uint32_t *which, uint32_t n, const big own[METERS])
{
	memset(r->on, 0, sizeof(r->on));
	for (uint32_t i = 0; i < n; i++) {
		struct model_meter *m = &w->meter[which[i]];

		if (r->on[which[i]])
			continue;
		r->on[which[i]] = true;
		r->cost[which[i]] = own[which[i]];
		m->used = true;
		if (which[i] < BUCKETS) {
			m->full_at = w->f.now.mono_ns + bucket_ahead(w, m) + own[which[i]];
		} else {
			model_roll(w, m);
			m->held += own[which[i]];
		}
	}
}

/* ---- operations on both ---- */

static uint32_t
draw_charges(struct world *w, struct charge *c, uint32_t *which)
{
	uint32_t n = (uint32_t)draw(w, 7);

	for (uint32_t i = 0; i < n; i++) {
		which[i] = i > 0 && draw(w, 8) == 0 ? which[draw(w, i)] : (uint32_t)draw(w, METERS);
		const struct model_meter *m = &w->meter[which[i]];
		int64_t limit = draw(w, 50) == 0 ? (int64_t)draw(w, 3) * m->limit / 2 : m->limit;
		int64_t amount = draw(w, 10) == 0 ? 0 : 1 + (int64_t)draw(w, (uint64_t)m->limit / 8 + 1);

		if (draw(w, 200) == 0)
			amount = limit + (int64_t)draw(w, 3) - 1;
		if (amount < 0)
			amount = 0;
		c[i] = which[i] < BUCKETS ? bucket_charge(which[i], limit, m->window_ns, amount)
		    : budget_charge(which[i], m->period, limit, amount);
		c[i].row = (uint32_t)draw(w, 64);	/* a hint is only a hint */
	}
	return n;
}

static void
compare_meters(struct world *w)
{
	for (uint32_t i = 0; i < METERS; i++) {
		const struct model_meter *m = &w->meter[i];
		struct meter_id id = { i < BUCKETS ? 1 : 2, i };
		struct meter_view v;

		assert_int_equal(ledger_meter(&w->f.arena, id, w->f.now, &v), m->used);
		if (!m->used)
			continue;
		if (i < BUCKETS) {
			/* As many units as fit one by one, by the definition. */
			big left = v.window_ns - bucket_ahead(w, m), n = v.tokens;
			if (v.limit > 0 && left >= 0) {
				assert_true(n * v.window_ns / v.limit <= left);
				assert_true(n == v.limit || (n + 1) * v.window_ns / v.limit > left);
			} else {
				assert_int_equal(v.tokens, 0);
			}
			continue;
		}
		bool over = model_index(m->period, w->f.now.wall_ns) > m->index;
		assert_int_equal(v.spent, over ? 0 : (int64_t)m->spent);
		assert_int_equal(v.held, (int64_t)m->held);
		if (m->period != PERIOD_TOTAL)
			assert_int_equal(v.reset_wall_ns, model_end_ns(m->period, v.period_index));
	}
}

static enum ledger_verdict
admit(struct world *w, struct charge *c, const uint32_t *which, uint32_t n, struct refusal *why)
{
	struct open_request *r = &w->open[w->opened];
	struct refusal expected = { 0 };
	big own[METERS];
	enum ledger_verdict verdict = model_admit(w, c, which, n, own, &expected);

	r->worker = (uint32_t)draw(w, 2);
	assert_int_equal(ledger_admit(&w->f.arena, r->worker, c, n, w->f.now, &r->e, why), verdict);
	if (verdict == LEDGER_REFUSED) {
		w->refused++;
		assert_int_equal(why->charge, expected.charge);
		assert_int_equal(why->limit, expected.limit);
		assert_int_equal(why->wait_ns, expected.wait_ns);
		if (c[why->charge].kind == METER_BUDGET) {
			assert_int_equal(why->held, expected.held);
			assert_int_equal(why->spent, expected.spent);
		}
		return verdict;
	}
	w->admitted++;
	model_book(w, r, which, n, own);
	w->opened++;
	return verdict;
}

/* Takes the k-th open request out of the list. */
static struct open_request
take_open(struct world *w, uint64_t k)
{
	struct open_request r = w->open[k];

	w->open[k] = w->open[--w->opened];
	return r;
}

static void
settle(struct world *w)
{
	struct open_request r = take_open(w, draw(w, w->opened));
	int64_t cost = (int64_t)draw(w, 2000);

	inflight_sent(r.e);
	inflight_record_set(r.e, (uint32_t)draw(w, 200));
	assert_int_equal(ledger_settle(&w->f.arena, r.worker, r.e, cost, w->f.now), SETTLED);
	w->settled++;
	for (uint32_t i = BUCKETS; i < METERS; i++) {
		struct model_meter *m = &w->meter[i];

		if (!r.on[i])
			continue;
		model_roll(w, m);
		m->held -= r.cost[i];
		m->spent += cost;
		m->ever_spent += cost;
	}
}

static void
cancel(struct world *w)
{
	struct open_request r = take_open(w, draw(w, w->opened));

	assert_int_equal(ledger_cancel(&w->f.arena, r.worker, r.e, draw(w, 2) == 0, w->f.now), SETTLED);
	w->cancelled++;
	for (uint32_t i = 0; i < METERS; i++) {
		if (r.on[i] && i < BUCKETS)
			w->meter[i].full_at -= r.cost[i];
		else if (r.on[i])
			w->meter[i].held -= r.cost[i];
	}
}

static void
pass_time(struct world *w)
{
	w->f.now.mono_ns += (int64_t)draw(w, 3 * NS_PER_S);
	switch (draw(w, 200)) {
	case 0:			/* a clock is set back by up to three days */
		w->f.now.wall_ns -= (int64_t)draw(w, 3 * 86400) * NS_PER_S;
		break;
	case 1:			/* nobody came for up to forty days */
		w->f.now.wall_ns += (int64_t)draw(w, 40 * 86400) * NS_PER_S;
		break;
	default:
		w->f.now.wall_ns += (int64_t)draw(w, 1200 * NS_PER_S);
	}
}

/* The wait of a refusal by a bucket is exact. */
static void
try_the_wait(struct world *w, struct charge *c, const uint32_t *which, uint32_t n, const struct refusal *no)
{
	struct refusal why;

	if (c[no->charge].kind != METER_BUCKET || no->wait_ns == NEVER)
		return;
	w->f.now.mono_ns += no->wait_ns - 1;
	assert_int_equal(admit(w, c, which, n, &why), LEDGER_REFUSED);
	w->f.now.mono_ns += 1;
	if (admit(w, c, which, n, &why) == LEDGER_REFUSED)
		assert_int_equal(c[why.charge].kind, METER_BUDGET);
	w->waited++;
}

static void
drain(struct world *w)
{
	for (uint32_t worker = 0; worker < 2; worker++) {
		struct ring_cursor at = ring_begin(&w->f.arena, worker);
		struct ring_item item;

		while (ring_next(&w->f.arena, worker, &at, &item))
			for (uint32_t i = 0; i < item.charges; i++) {
				struct model_meter *m = &w->meter[item.charge[i].id.lo];

				assert_int_equal(item.charge[i].period, m->period);
				m->from_ring += item.charge[i].amount_nusd;
			}
		ring_advance(&w->f.arena, worker, at);
	}
}

static void
operate(struct world *w)
{
	struct charge c[8];
	uint32_t which[8];
	struct refusal why;
	uint64_t what = draw(w, 100);

	if (what < 45 && w->opened < OPEN_MAX - 2) {
		uint32_t n = draw_charges(w, c, which);

		if (admit(w, c, which, n, &why) == LEDGER_REFUSED)
			try_the_wait(w, c, which, n, &why);
	} else if (what < 72 && w->opened > 0) {
		settle(w);
	} else if (what < 82 && w->opened > 0) {
		cancel(w);
	} else {
		pass_time(w);
	}
}

static void
agrees_with_the_reference(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	static const int64_t limits[BUCKETS] = { 1, 7, 60, 1000, 100000, 3000000 };

	(void)state;
	fixture_open(&w->f, (struct arena_sizes){ .workers = 2, .inflight = OPEN_MAX, .ring_bytes = 65536, .meters = 64 });
	w->random = UINT64_C(0x5eed5eed5eed);
	for (uint32_t i = 0; i < METERS; i++)
		w->meter[i] = i < BUCKETS
		    ? (struct model_meter){ .limit = limits[i], .window_ns = (i % 3 * 30 + 1) * NS_PER_S }
		    : (struct model_meter){ .limit = 20000 * (i - BUCKETS + 1),
			.period = (enum meter_period)(i % (PERIOD_MONTHLY + 1)) };
	for (uint32_t i = 0; i < OPERATIONS; i++) {
		operate(w);
		compare_meters(w);
		if (i % 32 == 0)
			drain(w);
		/* A total budget is used up one day; then it gets more. */
		if (i % 500 == 0)
			for (uint32_t m = BUCKETS; m < METERS; m++)
				w->meter[m].limit += w->meter[m].period == PERIOD_TOTAL ? 50000 : 0;
	}
	while (w->opened > 0)
		settle(w);
	drain(w);
	for (uint32_t i = BUCKETS; i < METERS; i++) {
		assert_true(w->meter[i].held == 0);
		assert_true(w->meter[i].ever_spent == w->meter[i].from_ring);
	}
	assert_int_equal(ledger_inflight_held(&w->f.arena), 0);
	print_message("model: %d operations; %llu admitted, %llu refused (%llu waits tried), %llu settled, "
	    "%llu cancelled, %llu roll-overs\n", OPERATIONS, (unsigned long long)w->admitted,
	    (unsigned long long)w->refused, (unsigned long long)w->waited, (unsigned long long)w->settled,
	    (unsigned long long)w->cancelled, (unsigned long long)w->rolled);
	assert_true(w->admitted > 20000 && w->refused > 20000 && w->waited > 2000 && w->rolled > 1000);
	fixture_close(&w->f);
	free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(agrees_with_the_reference) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
