/*
 * shm/admit.c -- room in all meters of a request, or in none; at its beginning,
 * and when it moves on.
 *
 * First every charge is looked at: how its meter stands, and what it asks for.
 * Charges that clamp may lower the demand, on which the amounts of others
 * depend too, so all of them are asked for only when it is known. Then, if
 * each has room, all are taken. A refusal has written nothing.
 *
 * What does not depend on the meters (amounts at the full demand, what they
 * are worth in a bucket, the calendar) is computed before the lock is taken.
 *
 * Charges of one request on the same meter add up and share one hold. This is
 * rare: the first of them has the sum in `own`.
 *
 * A move asks in the same way, after it gave back, in the same step, what the
 * request has of these meters (move.c). If it is refused the step is undone.
 */
#include "shm/inflight.h"
#include "shm/meter.h"
#include "shm/move.h"

struct want {
	struct shm_meter *m;
	struct standing st;
	uint64_t what;
	int64_t period_index;	/* of now, for a budget */
	int64_t most, least;	/* if it clamps: amounts at both ends of the demand */
	int64_t amount;		/* at the demand, in the meter's unit */
	int64_t cost;		/* that, raw; 0 if postpaid */
	int64_t own;		/* raw, of the first on a meter: what this request has of it so far */
	uint32_t first;		/* first charge on the same meter */
	uint32_t hold;		/* of the first on a meter: which one in the page */
	bool clamps;
};

struct asking {
	struct charge *charges;
	uint32_t n;
	uint32_t share;
	int64_t most, floor;	/* of the demand */
	bool clamps;		/* one of the charges may lower it */
	struct moment at;
	struct want want[CHARGES_MAX];
};

/* ---- amounts ---- */

/* Whether the mode means anything: a request is always counted beforehand. */
static bool
has_mode(const struct charge *c)
{
	return c->kind == METER_BUDGET || (c->kind == METER_BUCKET && c->unit != UNIT_REQUESTS);
}

static bool
is_postpaid(const struct charge *c)
{
	return c->mode == MODE_POSTPAID && has_mode(c);
}

static bool
may_clamp(const struct charge *c)
{
	return c->slope_milli > 0 && c->mode == MODE_CLAMP && has_mode(c);
}

static int64_t
cost_of(const struct charge *c, int64_t amount)
{
	if (is_postpaid(c))
		return 0;
	return c->kind == METER_BUCKET ? bucket_cost(amount, c->limit, c->window_ns) : amount;
}

static void
ask(struct asking *q, uint32_t i, int64_t demand)
{
	const struct charge *c = &q->charges[i];

	q->want[i].amount = charge_amount(c, demand);
	q->want[i].cost = cost_of(c, q->want[i].amount);
}

static void
ask_all(struct asking *q, int64_t demand)
{
	for (uint32_t i = 0; i < q->n; i++)
		if (q->charges[i].slope_milli > 0)
			ask(q, i, demand);
}

static uint32_t
first_on_meter(const struct charge *c, uint32_t i)
{
	for (uint32_t j = 0; j < i; j++)
		if (c[j].id.lo == c[i].id.lo && c[j].id.hi == c[i].id.hi)
			return j;
	return i;
}

static void
asking_begin(struct asking *q, struct charge *charges, uint32_t n, const struct demand *d, struct now now)
{
	CHECK(n <= CHARGES_MAX);
	q->charges = charges;
	q->n = n;
	q->at = moment_of(now);
	q->most = d ? d->most : 0;
	q->floor = d && d->floor < d->most ? d->floor : q->most;
	q->share = d ? d->share : 1;
	q->clamps = false;
	CHECK(q->floor >= 0 && q->share >= 1);
	for (uint32_t i = 0; i < n; i++) {
		const struct charge *c = &charges[i];
		struct want *w = &q->want[i];

		w->what = charge_what(c);
		w->period_index = c->kind == METER_BUDGET ? moment_period(&q->at, w->what) : 0;
		w->first = first_on_meter(charges, i);
		ask(q, i, q->most);
		w->clamps = q->floor < q->most && may_clamp(c);
		if (w->clamps) {
			q->clamps = true;
			w->most = w->amount;
			w->least = charge_amount(c, q->floor);
		}
	}
}

static void
stand(struct want *w, const struct charge *c, const struct moment *at)
{
	struct standing *st = &w->st;

	/* One id is one meter; policy/limit.c puts kind and unit into the id. */
	CHECK(((word_get(&w->m->what) ^ w->what) & WHAT_TYPE_MASK) == 0);
	st->held = (int64_t)word_get(&w->m->held);
	if (c->kind == METER_BUCKET) {
		st->capacity = c->window_ns;
		st->used = larger((int64_t)word_get(&w->m->level) - at->mono_ns, 0);
		return;
	}
	st->capacity = larger(c->limit, 0);
	st->used = st->held;
	if (c->kind == METER_BUDGET) {
		budget_standing(st, w->m, w->what, w->period_index);
		st->used = add_capped(st->spent, st->held);
	}
}

/* Finds the meters and how they stand. The first charge without one, or n. */
static uint32_t
find_all(struct asking *q, const struct arena *a)
{
	struct shm_meter *rows = layout_meters(a);

	for (uint32_t i = 0; i < q->n; i++) {
		struct charge *c = &q->charges[i];
		struct want *w = &q->want[i];

		if (c->row >= a->header->sizes.meters || !row_has_id(&rows[c->row], c->id)) {
			c->row = table_find(a, c->id);
			if (c->row == ROW_NONE)
				return i;
		}
		w->m = &rows[c->row];
		stand(w, c, &q->at);
	}
	return q->n;
}

/* ---- the demand ---- */

/* What is used of a meter, with the holds of others or as if there were none. */
static int64_t
used_of(const struct standing *st, bool alone)
{
	return alone ? larger(st->used - st->held, 0) : st->used;
}

/* Units that the charge finds; charges before it on the same meter are served
 * with what they need at the floor. */
static int64_t
units_left(const struct asking *q, uint32_t i, bool alone)
{
	const struct charge *c = &q->charges[i];
	const struct want *w = &q->want[i];
	int64_t used = used_of(&w->st, alone);

	for (uint32_t j = w->first; j < i; j++)
		if (q->want[j].first == w->first)
			used = add_capped(used, cost_of(&q->charges[j], charge_amount(&q->charges[j], q->floor)));
	int64_t room = w->st.capacity - used;
	return c->kind == METER_BUCKET ? bucket_units(room, c->limit, c->window_ns) : room;
}

/* The demand that all charges that clamp allow, and the one that lowered it
 * most. The floor, if that is not even enough for one of them. */
static int64_t
demand_granted(const struct asking *q, bool alone, uint32_t *lowered_by)
{
	int64_t granted = q->most;

	*lowered_by = q->n;
	for (uint32_t i = 0; q->clamps && i < q->n; i++) {
		const struct want *w = &q->want[i];
		int64_t share_of_most, demand = q->floor;

		if (!w->clamps)
			continue;
		int64_t left = units_left(q, i, alone);
		if (!__builtin_mul_overflow(w->most, (int64_t)q->share, &share_of_most) && share_of_most <= left &&
		    left > 0)
			continue;
		if (larger(w->least, 1) <= left)
			demand = charge_demand(&q->charges[i], larger(left / q->share, w->least));
		if (demand < granted) {
			granted = demand;
			*lowered_by = i;
		}
	}
	return granted;
}

/* ---- room ---- */

/* The least that has to fit, raw. Who asks for nothing still needs a meter that
 * is not used up. */
static int64_t
need_of(const struct charge *c, const struct want *w, int64_t own)
{
	if (w->amount > 0 && !is_postpaid(c))
		return w->cost;
	if (own > 0)
		return 0;
	return c->kind == METER_BUCKET ? bucket_cost(1, c->limit, c->window_ns) : 1;
}

/* How long until there is room, if there is none now (ns, or WAIT_NEVER). */
static int64_t
wait_of(const struct asking *q, uint32_t i, int64_t own)
{
	const struct charge *c = &q->charges[i];
	const struct want *w = &q->want[i];
	int64_t asked = add_capped(own, need_of(c, w, own));

	if (c->limit <= 0 || asked > w->st.capacity)
		return WAIT_NEVER;
	switch (c->kind) {
	case METER_BUCKET:
		return add_capped(w->st.used, asked) - w->st.capacity;
	case METER_BUDGET:
		return c->period == PERIOD_TOTAL ? WAIT_NEVER
		    : period_begin_ns(meter_what_period(w->what), w->st.period_index + 1) - q->at.wall_ns;
	case METER_CONCURRENCY:
	case METER_GROUP:
		break;
	}
	return 0;
}

static struct refusal
refusal_by(const struct asking *q, uint32_t i)
{
	const struct charge *c = &q->charges[i];
	const struct standing *st = &q->want[i].st;
	struct refusal why = { .charge = i, .limit = c->limit, .held = st->held };

	why.need = larger(is_postpaid(c) ? 1 : q->want[i].amount, 1);
	if (c->kind == METER_BUDGET)
		why.spent = st->spent;
	if (c->kind == METER_BUCKET) {
		int64_t left = bucket_units(st->capacity - st->used, c->limit, c->window_ns);
		int64_t alone = bucket_units(st->capacity - used_of(st, true), c->limit, c->window_ns);

		why.spent = larger(c->limit, 0) - alone;
		why.held = alone - left;
	}
	return why;
}

/* A request that lacks room in several meters of one kind has to wait for the
 * last of them. */
static void
wait_longer(struct refusal *why, int64_t wait_ns)
{
	if (wait_ns == WAIT_NEVER)
		why->wait_ns = WAIT_NEVER;
	else if (why->wait_ns != WAIT_NEVER)
		why->wait_ns = larger(why->wait_ns, wait_ns);
}

/* Looks at all charges in order. false: `why`, if it is asked for, says which
 * one has no room and for how long. */
static bool
has_room(struct asking *q, bool alone, struct refusal *why)
{
	uint32_t refused = q->n;
	const struct charge *c = q->charges;
	struct want *w = q->want;

	for (uint32_t i = 0; i < q->n; i++, c++, w++) {
		struct want *first = &q->want[w->first];
		int64_t own = w->first == i ? 0 : first->own;
		int64_t left = w->st.capacity - add_capped(used_of(&w->st, alone), own);

		first->own = add_capped(own, w->cost);
		if (c->limit > 0 && need_of(c, w, own) <= left)
			continue;
		if (!why)
			return false;
		if (refused == q->n) {
			refused = i;
			*why = refusal_by(q, i);
			why->wait_ns = wait_of(q, i, own);
		} else if (c->kind == q->charges[refused].kind) {
			wait_longer(why, wait_of(q, i, own));
		}
	}
	return refused == q->n;
}

/* ---- taking ---- */

/* From the meter; the answer is what charge_left() begins with. */
static int64_t
take(struct step *s, const struct want *w, const struct charge *c, int64_t own, const struct moment *at)
{
	struct shm_meter *m = w->m;

	meter_set_what(s, m, w->what);
	journal_set_if_new(s, &m->limit, (uint64_t)c->limit);
	if (c->kind == METER_BUCKET) {
		int64_t full_at = add_capped(larger((int64_t)word_get(&m->level), at->mono_ns), w->cost);

		journal_set_if_new(s, &m->window_ns, (uint64_t)c->window_ns);
		journal_set_if_new(s, &m->level, (uint64_t)full_at);
		if (c->unit != UNIT_REQUESTS)
			meter_add_held(s, m, w->cost);
		return full_at;
	}
	if (c->kind == METER_BUDGET) {
		journal_set_if_new(s, &m->window_ns, (uint64_t)c->alert);
		journal_set_if_new(s, &m->period_index, (uint64_t)w->st.period_index);
		journal_set_if_new(s, &m->level, (uint64_t)w->st.spent);
	}
	meter_add_held(s, m, w->cost);
	return w->st.capacity - add_capped(w->st.used, own);
}

static void
take_all(struct step *s, struct asking *q, struct inflight *e)
{
	uint32_t holds = 0;

	for (uint32_t i = 0; i < q->n; i++) {
		struct charge *c = &q->charges[i];
		struct want *w = &q->want[i], *first = &q->want[w->first];
		uint64_t amount = 0, units = 0;

		if (w->first == i)
			w->hold = holds++;
		struct shm_hold *h = &e->hold[first->hold];
		if (w->first == i) {
			word_put(&h->id_hi, c->id.hi);
			word_put(&h->id_lo, c->id.lo);
			atomic_store_explicit(&h->row, c->row, memory_order_release);
			atomic_store_explicit(&h->what, (uint32_t)w->what, memory_order_release);
		} else {
			amount = word_get(&h->amount);
			units = word_get(&h->units);
		}
		c->taken = is_postpaid(c) ? 0 : w->amount;
		c->after = take(s, w, c, first->own, &q->at);
		word_put(&h->amount, amount + (uint64_t)w->cost);
		word_put(&h->units, (uint64_t)add_capped((int64_t)units, w->amount));
		word_put(&h->mark, (uint64_t)c->after);
		CRASH_POINT();
	}
	word_put_hidden(&e->holds, holds);
}

/* Under the lock. */
static enum ledger_verdict
decide(struct step *s, struct asking *q, struct demand *d, struct refusal *why)
{
	uint32_t lowered_by;

	if (!inflight_has_room(s->a, s->worker))
		return LEDGER_BUSY;
	uint32_t unknown = find_all(q, s->a);
	if (unknown < q->n) {
		*why = (struct refusal){ .charge = unknown };
		return LEDGER_UNKNOWN;
	}
	int64_t granted = demand_granted(q, false, &lowered_by);
	if (granted < q->most)
		ask_all(q, granted);
	if (has_room(q, false, why)) {
		if (d) {
			d->granted = granted;
			d->lowered_by = lowered_by;
		}
		return LEDGER_ADMITTED;
	}
	ask_all(q, demand_granted(q, true, &lowered_by));
	why->may_fit = has_room(q, true, NULL);
	return LEDGER_REFUSED;
}

/* mv: NULL, or the request that goes on. */
static enum ledger_verdict
admit(struct arena *a, uint32_t worker, struct charge *charges, uint32_t n, struct demand *d, struct now now,
    struct moving *mv, struct inflight **out, struct refusal *why)
{
	struct asking q;

	for (uint32_t i = 0; i < n; i++)
		if (charges[i].row < a->header->sizes.meters)
			__builtin_prefetch(&layout_meters(a)[charges[i].row], 1);
	asking_begin(&q, charges, n, d, now);

	struct step s = journal_begin(a, worker);
	if (mv)
		move_release(&s, mv, &q.at);
	enum ledger_verdict verdict = decide(&s, &q, d, why);
	if (verdict == LEDGER_ADMITTED) {
		struct inflight *e = inflight_take(&s);

		take_all(&s, &q, e);
		CHECK(!mv || e == mv->to);
		if (mv)
			move_end(&s, mv, &q.at);
		else
			inflight_admit(&s, e);
		journal_commit(&s);
		*out = e;
	} else if (mv) {
		journal_undo(&s);
	}
	journal_end(&s);
	return verdict;
}

enum ledger_verdict
ledger_admit(struct arena *a, uint32_t worker, struct charge *charges, uint32_t n, struct demand *d,
    struct now now, struct inflight **out, struct refusal *why)
{
	return admit(a, worker, charges, n, d, now, NULL, out, why);
}

enum ledger_verdict
ledger_move(struct arena *a, uint32_t worker, struct inflight **page, const struct metered *used,
    struct charge *charges, uint32_t n, struct demand *d, struct now now, struct refusal *why)
{
	struct inflight *to = inflight_next(a, worker);
	struct moving mv;

	if (!to)
		return LEDGER_BUSY;
	if (!move_begin(&mv, a, *page, to, used, charges, n))
		return LEDGER_CROWDED;
	enum ledger_verdict verdict = admit(a, worker, mv.asked, n, d, now, &mv, page, why);
	for (uint32_t i = 0; i < n; i++) {
		charges[i].row = mv.asked[i].row;
		charges[i].taken = mv.asked[i].taken;
		charges[i].after = mv.asked[i].after;
	}
	return verdict;
}
