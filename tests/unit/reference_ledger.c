/*
 * tests/unit/reference_ledger.c -- see reference_ledger.h.
 */
#include "tests/unit/reference_ledger.h"

#include <string.h>
#include <time.h>

#include "shm/base/check.h"
#include "shm/base/clock.h"

#define NEVER (-1)
#define DAY_NS (86400 * NS_PER_S)

static big
most_of(big a, big b)
{
	return a > b ? a : b;
}

static big
least_of(big a, big b)
{
	return a < b ? a : b;
}

static int64_t
narrow(big n)
{
	return (int64_t)least_of(n, INT64_MAX);
}

static big
floor_of(big n, big d)
{
	big q = n / d;

	return n % d < 0 ? q - 1 : q;
}

/* ---- the calendar ---- */

static int64_t
index_of_day(struct period p, int64_t day)
{
	time_t s = (time_t)day * 86400;
	struct tm tm;

	switch (p.kind) {
	case PERIOD_TOTAL:
		return 0;
	case PERIOD_DAILY:
		return day;
	case PERIOD_DAYS:
		return (int64_t)floor_of((big)day - p.anchor, p.days);
	case PERIOD_WEEKLY:
		gmtime_r(&s, &tm);
		return (day - (tm.tm_wday + 6) % 7 - 4) / 7;	/* back to Monday */
	case PERIOD_MONTHLY:
		gmtime_r(&s, &tm);
		return (tm.tm_year - 70) * 12 + tm.tm_mon;
	}
	return 0;
}

static int64_t
first_day(struct period p, int64_t index)
{
	struct tm tm = { .tm_year = 70, .tm_mon = (int)index, .tm_mday = 1 };

	switch (p.kind) {
	case PERIOD_TOTAL:
		return 0;
	case PERIOD_DAILY:
		return index;
	case PERIOD_DAYS:
		return index * p.days + p.anchor;
	case PERIOD_WEEKLY:
		return index * 7 + 4;
	case PERIOD_MONTHLY:
		return timegm(&tm) / 86400;
	}
	return 0;
}

int64_t
reference_index(struct period p, int64_t wall_ns)
{
	static int64_t last_day = INT64_MIN, week, month;
	int64_t day = wall_ns / DAY_NS;

	if (day != last_day) {		/* libc is asked once a day */
		last_day = day;
		week = index_of_day((struct period){ .kind = PERIOD_WEEKLY }, day);
		month = index_of_day((struct period){ .kind = PERIOD_MONTHLY }, day);
	}
	return p.kind == PERIOD_WEEKLY ? week : p.kind == PERIOD_MONTHLY ? month : index_of_day(p, day);
}

int64_t
reference_end_ns(struct period p, int64_t index)
{
	static int64_t last_month = INT64_MIN, end_ns;

	if (p.kind != PERIOD_MONTHLY)
		return first_day(p, index + 1) * DAY_NS;
	if (index != last_month) {
		last_month = index;
		end_ns = first_day(p, index + 1) * DAY_NS;
	}
	return end_ns;
}

static bool
same_period(struct period a, struct period b)
{
	return a.kind == b.kind && (a.kind != PERIOD_DAYS || (a.days == b.days && a.anchor == b.anchor));
}

/* The spend of a period, seen through another one: kept if the period of the
 * new kind in which the old one begins has all of its days. */
static void
rewindow(struct period from, struct period to, int64_t *index, big *spent)
{
	int64_t begin = first_day(from, *index), end = first_day(from, *index + 1);

	if (same_period(from, to))
		return;
	if (to.kind == PERIOD_TOTAL) {
		*index = 0;
		return;
	}
	if (from.kind != PERIOD_TOTAL && end <= first_day(to, index_of_day(to, begin) + 1)) {
		*index = index_of_day(to, begin);
		return;
	}
	*index = INT64_MIN;
	*spent = 0;
}

/* A budget in the period of a charge at a moment. */
static void
stand(const struct reference_meter *m, struct period p, struct now now, int64_t *index, big *spent)
{
	int64_t today = reference_index(p, now.wall_ns);

	*index = m->index;
	*spent = m->spent;
	rewindow(m->period, p, index, spent);
	if (*index < today) {
		*index = today;
		*spent = 0;
	}
}

/* ---- buckets ---- */

static big
cost_ns(big units, int64_t limit, int64_t window_ns)
{
	return limit > 0 ? units * window_ns / limit : (big)INT64_MAX;
}

/* The largest number of units whose cost fits into the room. */
static big
units_in(big room_ns, int64_t limit, int64_t window_ns)
{
	if (room_ns < 0 || limit <= 0 || window_ns <= 0)
		return 0;
	big n = least_of(room_ns * limit / window_ns, limit);
	while (n < limit && cost_ns(n + 1, limit, window_ns) <= room_ns)
		n++;
	CHECK(cost_ns(n, limit, window_ns) <= room_ns);
	return n;
}

static big
ahead_ns(const struct reference_meter *m, struct now now)
{
	return most_of(m->full_at - now.mono_ns, 0);
}

/* ---- admission ---- */

uint32_t
reference_find(const struct reference *r, struct meter_id id)
{
	for (uint32_t i = 0; i < r->meters; i++)
		if (r->meter[i].id.hi == id.hi && r->meter[i].id.lo == id.lo)
			return i;
	return REFERENCE_NONE;
}

/* A charge and its meter, as they are when the request comes. */
struct look {
	const struct charge *c;
	struct reference_meter *m;
	uint32_t meter;
	big capacity, used, held;	/* raw */
	big spent;
	int64_t index;
};

static big
amount_of(const struct charge *c, big demand)
{
	return c->fixed + (c->slope_milli * demand + 999) / 1000;
}

static big
raw_of(const struct charge *c, big units)
{
	if (c->mode == MODE_POSTPAID)
		return 0;
	return c->kind == METER_BUCKET ? cost_ns(units, c->limit, c->window_ns) : units;
}

static struct look
look_at(struct reference *r, const struct charge *c, struct now now)
{
	struct look l = { .c = c, .meter = reference_find(r, c->id), .capacity = c->limit };
	struct period p = { c->period, c->days, c->anchor };

	CHECK(l.meter != REFERENCE_NONE);
	l.m = &r->meter[l.meter];
	l.held = l.m->held;
	switch (c->kind) {
	case METER_BUCKET:
		l.capacity = c->window_ns;
		l.used = ahead_ns(l.m, now);
		break;
	case METER_BUDGET:
		stand(l.m, p, now, &l.index, &l.spent);
		l.used = l.spent + l.held;
		break;
	case METER_CONCURRENCY:
	case METER_GROUP:
		l.used = l.held;
		break;
	}
	return l;
}

static big
used_by_all(const struct look *l, bool alone)
{
	return alone ? most_of(l->used - l->held, 0) : l->used;
}

/* What a charge that clamps lets the request ask for: found by bisection. */
static big
demand_allowed(const struct look *l, uint32_t i, const struct demand *d, big floor, bool alone)
{
	const struct charge *c = l[i].c;
	big left = l[i].capacity - used_by_all(&l[i], alone);

	for (uint32_t j = 0; j < i; j++)
		if (l[j].m == l[i].m)
			left -= raw_of(l[j].c, amount_of(l[j].c, floor));
	if (c->kind == METER_BUCKET)
		left = units_in(left, c->limit, c->window_ns);
	if (most_of(amount_of(c, floor), 1) > left)
		return floor;
	big most = most_of(left / d->share, amount_of(c, floor));
	big low = floor, high = d->most;
	while (low < high) {
		big middle = (low + high + 1) / 2;

		if (amount_of(c, middle) <= most)
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}

static bool
clamps(const struct charge *c)
{
	return c->mode == MODE_CLAMP && c->slope_milli > 0 && (c->kind == METER_BUDGET || c->kind == METER_BUCKET);
}

static big
grant(const struct look *l, uint32_t n, const struct demand *d, bool alone, uint32_t *lowered_by)
{
	big granted = d->most, floor = least_of(d->floor, d->most);

	*lowered_by = n;
	for (uint32_t i = 0; i < n; i++) {
		if (!clamps(l[i].c))
			continue;
		big allowed = demand_allowed(l, i, d, floor, alone);
		if (allowed < granted) {
			granted = allowed;
			*lowered_by = i;
		}
	}
	return granted;
}

/* What has to fit, raw, where the request has `own` of the meter already. */
static big
need_of(const struct charge *c, big amount, big own)
{
	if (amount > 0 && c->mode != MODE_POSTPAID)
		return raw_of(c, amount);
	if (own > 0)
		return 0;
	return c->kind == METER_BUCKET ? cost_ns(1, c->limit, c->window_ns) : 1;
}

static int64_t
wait_of(const struct look *l, big asked, struct now now)
{
	struct period p = { l->c->period, l->c->days, l->c->anchor };

	if (l->c->limit <= 0 || asked > l->capacity)
		return NEVER;
	if (l->c->kind == METER_CONCURRENCY)
		return 0;
	if (l->c->kind == METER_BUCKET)
		return (int64_t)(l->used + asked - l->capacity);
	return p.kind == PERIOD_TOTAL ? NEVER : reference_end_ns(p, l->index) - now.wall_ns;
}

static void
describe(const struct look *l, uint32_t i, big amount, struct refusal *why)
{
	const struct charge *c = l->c;

	*why = (struct refusal){ .charge = i, .limit = c->limit, .spent = (int64_t)l->spent, .held = (int64_t)l->held };
	why->need = c->mode == MODE_POSTPAID ? 1 : narrow(most_of(amount, 1));
	if (c->kind != METER_BUCKET)
		return;
	big alone = units_in(l->capacity - used_by_all(l, true), c->limit, c->window_ns);
	why->spent = (int64_t)(most_of(c->limit, 0) - alone);
	why->held = (int64_t)(alone - units_in(l->capacity - l->used, c->limit, c->window_ns));
}

/* Whether all have room for what they ask at a demand; *why describes the first
 * that has not, with the wait of all of its kind. */
static bool
room(const struct look *l, uint32_t n, big demand, bool alone, struct now now, struct refusal *why)
{
	bool refused = false;

	for (uint32_t i = 0; i < n; i++) {
		const struct charge *c = l[i].c;
		big own = 0, amount = amount_of(c, demand);

		for (uint32_t j = 0; j < i; j++)
			own += l[j].m == l[i].m ? raw_of(l[j].c, amount_of(l[j].c, demand)) : 0;
		big need = need_of(c, amount, own);
		if (c->limit > 0 && used_by_all(&l[i], alone) + own + need <= l[i].capacity)
			continue;
		int64_t wait = wait_of(&l[i], own + need, now);
		if (!refused) {
			refused = true;
			describe(&l[i], i, amount, why);
			why->wait_ns = wait;
		} else if (c->kind == l[why->charge].c->kind) {
			why->wait_ns = wait == NEVER || why->wait_ns == NEVER ? NEVER : (int64_t)most_of(wait, why->wait_ns);
		}
	}
	return !refused;
}

static struct reference_part *
part_of(struct reference_request *q, uint32_t meter, enum charge_mode mode)
{
	for (uint32_t i = 0; i < q->parts; i++)
		if (q->part[i].meter == meter)
			return &q->part[i];
	q->part[q->parts] = (struct reference_part){ .meter = meter, .mode = mode };
	return &q->part[q->parts++];
}

static void
take(struct reference *r, const struct look *l, big demand, struct now now, struct reference_request *q)
{
	struct reference_meter *m = l->m;
	const struct charge *c = l->c;
	struct reference_part *part = part_of(q, l->meter, c->mode);
	big amount = amount_of(c, demand), raw = raw_of(c, amount);

	m->used_at = r->tick;
	m->mode = c->mode;
	m->limit = c->limit;
	m->window_ns = c->window_ns;
	m->alert = c->alert;
	if (c->kind == METER_BUDGET) {
		struct period p = { c->period, c->days, c->anchor };

		m->apart |= m->unbooked && !same_period(m->period, p);
		m->unbooked |= m->index != l->index || m->spent != l->spent || !same_period(m->period, p);
		m->period = p;
		m->index = l->index;
		m->spent = l->spent;
	} else if (c->kind == METER_BUCKET) {
		m->full_at = most_of(m->full_at, now.mono_ns) + raw;
	}
	if (c->kind != METER_BUCKET || c->unit != UNIT_REQUESTS)
		m->held += raw;
	part->taken += raw;
	part->units = narrow(part->units + amount);
	part->after = m->full_at;
}

static void
fill_in_left(const struct reference *r, const struct charge *c, uint32_t n, struct now now, struct reference_answer *a)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct reference_meter *m = &r->meter[reference_find(r, c[i].id)];

		if (c[i].kind == METER_BUCKET)
			a->left[i] = (int64_t)units_in(c[i].window_ns - ahead_ns(m, now), c[i].limit, c[i].window_ns);
		else
			a->left[i] = (int64_t)most_of(c[i].limit - m->held - (c[i].kind == METER_BUDGET ? m->spent : 0), 0);
	}
}

struct reference_answer
reference_admit(struct reference *r, const struct charge *c, uint32_t n, const struct demand *d, struct now now)
{
	static const struct demand none = { .share = 1 };
	struct reference_answer a = { .verdict = LEDGER_ADMITTED };
	struct look l[CHARGES_MAX] = { 0 };
	struct refusal ignored;
	uint32_t nobody;

	d = d ? d : &none;
	for (uint32_t i = 0; i < n; i++) {
		l[i] = look_at(r, &c[i], now);
		if (!l[i].m->here) {
			a.verdict = LEDGER_UNKNOWN;
			a.why.charge = i;
			return a;
		}
	}
	big granted = grant(l, n, d, false, &a.lowered_by);
	if (!room(l, n, granted, false, now, &a.why)) {
		a.verdict = LEDGER_REFUSED;
		a.why.may_fit = room(l, n, grant(l, n, d, true, &nobody), true, now, &ignored);
		return a;
	}
	a.granted = (int64_t)granted;
	for (uint32_t i = 0; i < n; i++) {
		take(r, &l[i], granted, now, &a.request);
		a.taken[i] = c[i].mode == MODE_POSTPAID ? 0 : narrow(amount_of(&c[i], granted));
	}
	fill_in_left(r, c, n, now, &a);
	return a;
}

/* ---- the end of a request ---- */

static bool
keeps_what_it_took(const struct reference_meter *m)
{
	return m->kind == METER_BUCKET && m->unit == UNIT_REQUESTS;
}

static big
used_in_unit(enum meter_unit unit, struct settled used)
{
	return unit == UNIT_NUSD ? used.cost_nusd : unit == UNIT_TOKENS ? used.tokens : 0;
}

/* What the request has used of a meter, having used so much of all. */
static big
used_of_meter(const struct reference_meter *m, const struct reference_part *part, struct settled used)
{
	if (m->unit == UNIT_REQUESTS)
		return part->units;
	return part->closed ? part->paid : part->paid + used_in_unit(m->unit, used) - part->since;
}

/* A bucket, as if another amount had been taken. */
static big
corrected(big full_at, big was, big is, struct now now)
{
	return is > was ? most_of(full_at, now.mono_ns) + is - was : full_at + is - was;
}

static void
give_back(struct reference *r, const struct reference_part *part)
{
	struct reference_meter *m = &r->meter[part->meter];

	CHECK(m->here);
	if (!keeps_what_it_took(m))
		m->held -= part->taken;
	if (m->kind == METER_BUCKET)
		m->full_at -= part->taken;
}

/* ---- a move ---- */

static const struct reference_part *
find_part(const struct reference_request *q, uint32_t meter)
{
	for (uint32_t i = 0; i < q->parts; i++)
		if (q->part[i].meter == meter)
			return &q->part[i];
	return NULL;
}

static bool
is_charged(const struct reference *r, const struct charge *c, uint32_t n, uint32_t meter)
{
	for (uint32_t i = 0; i < n; i++)
		if (reference_find(r, c[i].id) == meter)
			return true;
	return false;
}

/* Of a meter that is not charged any more: is something to be paid? */
static bool
stays(const struct reference_meter *m, const struct reference_part *part, bool sent, struct settled used)
{
	return sent && m->kind != METER_CONCURRENCY && used_of_meter(m, part, used) > 0;
}

static bool
is_crowded(const struct reference *r, const struct reference_request *q, bool sent, struct settled used,
    const struct charge *c, uint32_t n)
{
	uint32_t holds = 0;

	for (uint32_t i = 0; i < n; i++)
		holds += !is_charged(r, c, i, reference_find(r, c[i].id));
	for (uint32_t i = 0; i < q->parts; i++) {
		const struct reference_meter *m = &r->meter[q->part[i].meter];

		holds += !is_charged(r, c, n, q->part[i].meter) && !keeps_what_it_took(m) && stays(m, &q->part[i], sent, used);
	}
	return holds > CHARGES_MAX;
}

/* What is to be paid in the end is all that is held. */
static struct reference_part
close(struct reference *r, const struct reference_part *old, struct settled used, struct now now)
{
	struct reference_part part = *old;
	struct reference_meter *m = &r->meter[part.meter];
	big amount = used_of_meter(m, old, used);

	m->used_at = r->tick;
	if (!old->closed && !keeps_what_it_took(m)) {
		part.taken = m->kind == METER_BUCKET ? cost_ns(amount, m->limit, m->window_ns) : amount;
		m->held += part.taken - old->taken;
		if (m->kind == METER_BUCKET)
			m->full_at = corrected(m->full_at, old->taken, part.taken, now);
	}
	part.closed = true;
	part.paid = amount;
	part.units = (int64_t)amount;
	part.after = m->full_at;
	return part;
}

/* The new charge on a meter, of which there may have been an old one. */
static void
go_on(struct reference_meter *m, const struct reference_meter *before, struct reference_part *part,
    const struct reference_part *old, struct settled used, struct now now)
{
	part->since = used_in_unit(m->unit, used);
	if (!old)
		return;
	part->paid = used_of_meter(m, old, used);
	if (m->kind != METER_BUCKET)
		return;
	m->full_at = corrected(before->full_at, old->taken, part->taken, now);
	part->after = m->full_at;
}

/* Behind the new parts: the old ones that stay. Buckets of requests as far as
 * there is room for them. */
static void
add_old_parts(struct reference *r, const struct reference_request *q, bool sent, struct settled used, struct now now,
    struct reference_request *out)
{
	uint32_t charged = out->parts, others = 0;

	for (uint32_t i = 0; i < q->parts; i++) {
		const struct reference_meter *m = &r->meter[q->part[i].meter];

		others += !find_part(out, q->part[i].meter) && !keeps_what_it_took(m) && stays(m, &q->part[i], sent, used);
	}
	uint32_t room = CHARGES_MAX - charged - others;
	for (uint32_t i = 0; i < q->parts; i++) {
		const struct reference_part *old = &q->part[i];
		struct reference_meter *m = &r->meter[old->meter];

		if (find_part(out, old->meter))
			continue;
		if (!stays(m, old, sent, used))
			give_back(r, old);
		else if (!keeps_what_it_took(m) || room > 0) {
			room -= keeps_what_it_took(m);
			out->part[out->parts++] = close(r, old, used, now);
		}
	}
}

struct reference_answer
reference_move(struct reference *r, const struct reference_request *q, bool sent, struct settled used,
    const struct charge *c, uint32_t n, const struct demand *d, struct now now)
{
	static struct reference before;
	struct reference_answer a = { .verdict = LEDGER_CROWDED };
	struct charge more[CHARGES_MAX];

	if (is_crowded(r, q, sent, used, c, n))
		return a;
	before = *r;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t meter = reference_find(r, c[i].id);
		const struct reference_part *old = find_part(q, meter);

		more[i] = c[i];
		if (!old || is_charged(r, c, i, meter))
			continue;
		give_back(r, old);
		if (r->meter[meter].unit != UNIT_REQUESTS)
			more[i].fixed = narrow(more[i].fixed + used_of_meter(&r->meter[meter], old, used));
	}
	a = reference_admit(r, more, n, d, now);
	if (a.verdict != LEDGER_ADMITTED) {
		*r = before;
		return a;
	}
	for (uint32_t i = 0; i < a.request.parts; i++) {
		struct reference_part *part = &a.request.part[i];

		go_on(&r->meter[part->meter], &before.meter[part->meter], part, find_part(q, part->meter), used, now);
	}
	add_old_parts(r, q, sent, used, now, &a.request);
	fill_in_left(r, c, n, now, &a);
	return a;
}

static uint64_t
what_of(const struct reference_meter *m, enum charge_mode mode)
{
	struct charge c = { .kind = m->kind, .unit = m->unit, .mode = mode, .period = m->period.kind,
		.days = m->period.days, .anchor = m->period.anchor };

	return meter_what(&c);
}

static struct ring_charge
booking(const struct reference_meter *m, const struct reference_part *part, int64_t amount, big full_at, struct now now)
{
	struct ring_charge b = {
		.id = m->id,
		.what = what_of(m, part->mode),
		.held = part->taken > 0 ? part->units : 0,
		.amount = amount,
	};

	if (m->kind == METER_BUDGET)
		b.period_index = m->index;
	if (m->kind == METER_BUCKET)
		b.full_wall_ns = (int64_t)(now.wall_ns + full_at - now.mono_ns);
	return b;
}

static void
roll_over(struct reference_meter *m, struct now now)
{
	int64_t index = m->index;

	stand(m, m->period, now, &m->index, &m->spent);
	m->unbooked |= m->index != index;
}

void
reference_settle(struct reference *r, const struct reference_request *q, struct settled used, struct now now,
    struct ring_charge *booked)
{
	for (uint32_t i = 0; i < q->parts; i++) {
		const struct reference_part *part = &q->part[i];
		struct reference_meter *m = &r->meter[part->meter];
		int64_t amount = (int64_t)used_of_meter(m, part, used);

		CHECK(m->here);
		if (keeps_what_it_took(m)) {
			booked[i] = booking(m, part, amount, part->after, now);
			continue;
		}
		m->held -= part->taken;
		if (m->kind == METER_BUDGET) {
			roll_over(m, now);
			m->spent += amount;
			m->unbooked &= amount == 0 || m->apart;
		} else if (m->kind == METER_BUCKET) {
			m->full_at = corrected(m->full_at, part->taken, cost_ns(amount, m->limit, m->window_ns), now);
		}
		if (m->kind != METER_CONCURRENCY)
			m->used_at = r->tick;
		booked[i] = booking(m, part, amount, m->full_at, now);
	}
}

void
reference_cancel(struct reference *r, const struct reference_request *q, struct now now, struct ring_charge *booked)
{
	for (uint32_t i = 0; i < q->parts; i++) {
		const struct reference_part *part = &q->part[i];
		struct reference_meter *m = &r->meter[part->meter];

		CHECK(!part->closed);
		give_back(r, part);
		booked[i] = booking(m, part, 0, m->full_at, now);
	}
}

void
reference_reset(struct reference *r, uint32_t meter, struct now now, struct ring_charge *booked)
{
	struct reference_meter *m = &r->meter[meter];
	struct reference_part nothing = { .mode = m->mode };
	big was = 0;

	m->used_at = r->tick;
	if (m->kind == METER_BUDGET) {
		roll_over(m, now);
		was = m->spent;
		m->spent = 0;
		m->unbooked &= was == 0 || m->apart;
	} else if (m->kind == METER_BUCKET) {
		m->full_at = least_of(m->full_at, now.mono_ns + m->held);
	}
	*booked = booking(m, &nothing, (int64_t)-was, m->full_at, now);
}

/* ---- the store ---- */

void
reference_store(struct reference *r, const struct ring_charge *b)
{
	struct reference_meter *m = &r->meter[reference_find(r, b->id)];
	struct reference_level *l = &m->stored;
	struct period p = meter_what_period(b->what);

	if (m->kind == METER_BUCKET && b->step >= l->step) {
		l->known = true;
		l->step = b->step;
		l->full_wall_ns = b->full_wall_ns;
	}
	if (m->kind != METER_BUDGET || b->amount == 0)
		return;
	if (l->known)
		rewindow(l->period, p, &l->index, &l->spent);
	if (!l->known || l->index < b->period_index) {
		l->index = b->period_index;
		l->spent = 0;
	}
	l->period = p;
	l->known = true;
	l->spent += l->index == b->period_index ? b->amount : 0;
}

struct level
reference_level(const struct reference_meter *m)
{
	struct reference_meter stored = *m;

	stored.period = m->stored.period;
	return (struct level){
		.known = m->stored.known,
		.what = what_of(&stored, m->mode),
		.period_index = m->stored.index,
		.spent = (int64_t)m->stored.spent,
		.full_wall_ns = m->stored.full_wall_ns,
	};
}

void
reference_load(struct reference *r, uint32_t meter, const struct charge *c, struct now now)
{
	struct reference_meter *m = &r->meter[meter];
	struct period p = { c->period, c->days, c->anchor };
	big ahead = 0;

	CHECK(!m->here && m->held == 0);
	m->here = true;
	m->used_at = r->tick;
	m->kind = c->kind;
	m->unit = c->unit;
	m->mode = c->mode;
	m->limit = c->limit;
	m->window_ns = c->window_ns;
	m->alert = c->alert;
	m->unbooked = m->apart = false;
	m->period = m->stored.known ? m->stored.period : p;
	m->index = m->stored.known ? m->stored.index : reference_index(p, now.wall_ns);
	m->spent = m->stored.known ? m->stored.spent : 0;
	if (m->stored.known)
		ahead = least_of(most_of((big)m->stored.full_wall_ns - now.wall_ns, 0), c->window_ns);
	m->full_at = now.mono_ns + ahead;
}

bool
reference_idle(const struct reference *r, uint32_t meter, uint64_t durable_tick, uint64_t idle_ticks, struct now now)
{
	const struct reference_meter *m = &r->meter[meter];

	if (!m->here || m->held != 0 || m->used_at >= durable_tick || durable_tick - m->used_at < idle_ticks)
		return false;
	if (m->kind == METER_GROUP)
		return m->spent == 0;
	return m->kind != METER_BUCKET || ahead_ns(m, now) == 0;
}

/* ---- looking ---- */

struct reference_view
reference_look(const struct reference_meter *m, struct now now)
{
	struct reference_view v = { .held = (int64_t)m->held };
	int64_t index;
	big spent;

	if (m->kind == METER_GROUP)
		v.spent = (int64_t)m->spent;
	if (m->kind == METER_BUCKET) {
		big ahead = ahead_ns(m, now);
		big alone = units_in(m->window_ns - most_of(ahead - m->held, 0), m->limit, m->window_ns);

		v.full_in_ns = (int64_t)ahead;
		v.tokens = (int64_t)units_in(m->window_ns - ahead, m->limit, m->window_ns);
		v.held = (int64_t)alone - v.tokens;
	}
	if (m->kind == METER_BUDGET) {
		stand(m, m->period, now, &index, &spent);
		v.spent = (int64_t)spent;
		v.period_index = index;
		v.reset_wall_ns = m->period.kind == PERIOD_TOTAL ? 0 : reference_end_ns(m->period, index);
	}
	return v;
}
