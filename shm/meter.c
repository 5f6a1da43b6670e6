/*
 * shm/meter.c -- token buckets and budgets in a table.
 *
 * Rows are given out one after the other and never taken back, so a row number
 * is a lasting name, and the meters of one request, made in one admission, lie
 * side by side. A charge carries the row of its last use as a hint; without it
 * an index finds the row: open addressing with linear probing, half empty even
 * when all rows are taken.
 *
 * A bucket is one word, the time at which it will be full again (GCRA). With
 * limit L and window W a unit is worth W/L ns; n units cost floor(n*W/L), and
 * they fit if that time, moved by the cost, is no more than W ahead of now.
 *
 * A budget is what was spent in a period, and what is held by requests in
 * flight, whatever period they began in. The period changes when somebody
 * looks at the clock and finds it changed. A clock that steps back changes
 * nothing: the later period stays, or else money could be spent twice.
 */
#include "shm/meter.h"

#include <sched.h>

#include "shm/period.h"

__extension__ typedef unsigned __int128 wide;	/* ISO C has no name for it */

#define ROW_NONE UINT32_MAX
#define LOOKS_MAX 10000		/* tries to see a meter between two steps */

static int64_t
signed_of(const _Atomic uint64_t *w)
{
	return (int64_t)word_get(w);
}

static int64_t
add_capped(int64_t a, int64_t b)
{
	int64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? (b > 0 ? INT64_MAX : INT64_MIN) : sum;
}

static uint64_t
what_of(enum meter_kind kind, enum meter_period period)
{
	return (uint64_t)kind | (kind == METER_BUDGET ? (uint64_t)period << 8 : 0);
}

static enum meter_period
period_of(const struct shm_meter *m)
{
	return (enum meter_period)(word_get(&m->what) >> 8);
}

/* The calendar is asked once a day: each period begins at some midnight. */
struct moment
moment_of(struct now now)
{
	static _Thread_local struct moment today = { .period = { [PERIOD_DAILY] = INT64_MIN } };
	int64_t day = period_index(PERIOD_DAILY, now.wall_ns);

	if (today.period[PERIOD_DAILY] != day)
		for (int p = PERIOD_TOTAL; p <= PERIOD_MONTHLY; p++)
			today.period[p] = period_index((enum meter_period)p, now.wall_ns);
	today.mono_ns = now.mono_ns;
	today.wall_ns = now.wall_ns;
	return today;
}

/* ---- the table ---- */

static bool
has_id(const struct shm_meter *m, struct meter_id id)
{
	return word_get(&m->id_lo) == id.lo && word_get(&m->id_hi) == id.hi;
}

/* Ids are hashes already; they are mixed because tests use small numbers. The
 * low half says where in the index, the high half is the tag that stands there. */
static uint64_t
hash_of(struct meter_id id)
{
	uint64_t h = (id.hi ^ (id.lo * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xd6e8feb86659fd93);

	return h ^ h >> 32;
}

/* The id's place in the index. Its word is 0 if there is no such meter. */
static _Atomic uint64_t *
place_of(const struct arena *a, struct meter_id id)
{
	const struct shm_meter *rows = layout_meters(a);
	_Atomic uint64_t *index = layout_index(a);
	uint64_t hash = hash_of(id), mask = (uint64_t)a->header->sizes.meters * INDEX_FACTOR - 1;

	for (uint64_t at = hash & mask;; at = (at + 1) & mask) {
		uint64_t word = word_get(&index[at]);

		if (word == 0 || (word >> 32 == hash >> 32 && has_id(&rows[(uint32_t)word - 1], id)))
			return &index[at];
	}
}

void
meter_prefetch(const struct arena *a, const struct charge *c)
{
	if (c->row < a->header->sizes.meters)
		__builtin_prefetch(&layout_meters(a)[c->row], 1);
}

static void
set_if_new(struct step *s, _Atomic uint64_t *word, uint64_t value)
{
	if (word_get(word) != value)
		journal_set(s, word, value);
}

/* Takes the next row for a meter that has none. */
static uint32_t
row_take(struct step *s, _Atomic uint64_t *place, const struct charge *c)
{
	_Atomic uint64_t *used = &s->a->header->ledger.meters_used;
	uint64_t row = word_get(used);

	if (row == s->a->header->sizes.meters)
		return ROW_NONE;
	struct shm_meter *m = &layout_meters(s->a)[row];
	journal_set(s, used, row + 1);
	journal_set(s, &m->what, what_of(c->kind, c->period));
	journal_set(s, &m->id_hi, c->id.hi);
	journal_set(s, &m->id_lo, c->id.lo);
	journal_set(s, place, hash_of(c->id) >> 32 << 32 | (row + 1));
	return (uint32_t)row;
}

struct shm_meter *
meter_obtain(struct step *s, struct charge *c)
{
	struct shm_meter *rows = layout_meters(s->a);

	CHECK(c->id.hi != 0 || c->id.lo != 0);
	if (c->row >= s->a->header->sizes.meters || !has_id(&rows[c->row], c->id)) {
		_Atomic uint64_t *place = place_of(s->a, c->id);
		uint64_t word = word_get(place);

		c->row = word != 0 ? (uint32_t)word - 1 : row_take(s, place, c);
		if (c->row == ROW_NONE)
			return NULL;
	}
	struct shm_meter *m = &rows[c->row];
	/* One id is one meter; policy/key.c puts kind and period into the id. */
	CHECK(word_get(&m->what) == what_of(c->kind, c->period));
	set_if_new(s, &m->limit, (uint64_t)c->limit);
	set_if_new(s, &m->window_ns, (uint64_t)c->window_ns);
	return m;
}

/* ---- buckets ---- */

static int64_t
bucket_take(struct step *s, struct shm_meter *m, const struct charge *c, struct shm_hold *h, int64_t now)
{
	uint64_t product, cost, had = word_get(&h->amount);

	if (c->limit <= 0)
		return WAIT_NEVER;
	CHECK(c->window_ns > 0 && c->amount >= 0);
	if (!__builtin_mul_overflow((uint64_t)c->amount, (uint64_t)c->window_ns, &product)) {
		cost = product / (uint64_t)c->limit;
	} else {
		wide exact = (wide)c->amount * (uint64_t)c->window_ns / (uint64_t)c->limit;
		cost = exact > (uint64_t)c->window_ns ? (uint64_t)c->window_ns + 1 : (uint64_t)exact;
	}
	if (had > (uint64_t)c->window_ns || cost > (uint64_t)c->window_ns - had)
		return WAIT_NEVER;

	int64_t full_at = signed_of(&m->level);
	full_at = add_capped(full_at > now ? full_at : now, (int64_t)cost);
	journal_set(s, &m->level, (uint64_t)full_at);
	word_put(&h->amount, had + cost);
	int64_t over = add_capped(full_at - now, -c->window_ns);
	return over > 0 ? over : 0;
}

/* How many units fit: the largest n with floor(n*W/L) <= what is left of W. */
static int64_t
bucket_units(int64_t full_at, int64_t limit, int64_t window_ns, int64_t now)
{
	int64_t left = full_at > now ? window_ns - (full_at - now) : window_ns;

	if (limit <= 0 || window_ns <= 0 || left < 0)
		return 0;
	wide n = ((wide)(uint64_t)left + 1) * (uint64_t)limit - 1;
	n /= (uint64_t)window_ns;
	return n < (uint64_t)limit ? (int64_t)n : limit;
}

/* ---- budgets ---- */

/* A new period begins with nothing spent; what is held stays held. */
static void
budget_roll(struct step *s, struct shm_meter *m, const struct moment *at)
{
	int64_t index = at->period[period_of(m)];

	if (index > signed_of(&m->period_index)) {
		journal_set(s, &m->period_index, (uint64_t)index);
		set_if_new(s, &m->level, 0);
	}
}

static int64_t
budget_take(struct step *s, struct shm_meter *m, const struct charge *c, struct shm_hold *h,
    const struct moment *at)
{
	int64_t had = signed_of(&h->amount);

	CHECK(c->amount >= 0);
	budget_roll(s, m, at);
	int64_t held = signed_of(&m->held);
	int64_t used = add_capped(signed_of(&m->level), held);
	int64_t total = add_capped(had, c->amount);
	/* Who asks for nothing still needs a budget that is not used up. */
	int64_t need = c->amount > 0 || had > 0 ? c->amount : 1;

	journal_set(s, &m->held, (uint64_t)add_capped(held, c->amount));
	word_put(&h->amount, (uint64_t)total);
	if (c->limit > 0 && need <= c->limit - used)
		return 0;
	if (period_of(m) == PERIOD_TOTAL || total > c->limit || c->limit <= 0)
		return WAIT_NEVER;
	return period_begin_ns(period_of(m), signed_of(&m->period_index) + 1) - at->wall_ns;
}

void
meter_settle(struct step *s, struct shm_meter *m, const struct shm_hold *h, int64_t cost_nusd,
    const struct moment *at, struct ring_charge *booked)
{
	int64_t held = signed_of(&m->held), hold = signed_of(&h->amount);

	CHECK(held >= hold);
	budget_roll(s, m, at);
	set_if_new(s, &m->held, (uint64_t)(held - hold));
	set_if_new(s, &m->level, (uint64_t)add_capped(signed_of(&m->level), cost_nusd));
	*booked = (struct ring_charge){
		.id = { word_get(&m->id_hi), word_get(&m->id_lo) },
		.period = period_of(m),
		.period_index = signed_of(&m->period_index),
		.amount_nusd = cost_nusd,
	};
}

/* ---- both ---- */

int64_t
meter_take(struct step *s, struct shm_meter *m, const struct charge *c, struct shm_hold *h,
    const struct moment *at)
{
	return c->kind == METER_BUCKET ? bucket_take(s, m, c, h, at->mono_ns) : budget_take(s, m, c, h, at);
}

void
meter_give_back(struct step *s, struct shm_meter *m, const struct shm_hold *h)
{
	bool bucket = atomic_load_explicit(&h->kind, memory_order_relaxed) == METER_BUCKET;
	_Atomic uint64_t *word = bucket ? &m->level : &m->held;
	int64_t hold = signed_of(&h->amount);

	CHECK(bucket || signed_of(word) >= hold);
	set_if_new(s, word, (uint64_t)(signed_of(word) - hold));
}

void
meter_refusal(const struct shm_meter *m, const struct charge *c, const struct shm_hold *h,
    const struct moment *at, struct refusal *out)
{
	int64_t own = signed_of(&h->amount);

	*out = (struct refusal){ .limit = c->limit };
	if (c->kind == METER_BUCKET) {
		out->spent = c->limit - bucket_units(signed_of(&m->level) - own, c->limit, c->window_ns,
		    at->mono_ns);
		return;
	}
	out->spent = signed_of(&m->level);
	out->held = signed_of(&m->held) - own;
}

int
ledger_load(struct arena *a, struct meter_id id, enum meter_period period, int64_t index, int64_t spent)
{
	struct charge c = { .id = id, .kind = METER_BUDGET, .period = period, .row = ROW_NONE };
	struct step s = journal_begin(a, 0);
	struct shm_meter *m = meter_obtain(&s, &c);

	if (m) {
		set_if_new(&s, &m->period_index, (uint64_t)index);
		set_if_new(&s, &m->level, (uint64_t)spent);
	}
	journal_commit(&s);
	journal_end(&s);
	return m ? 0 : -1;
}

/* ---- looking ---- */

/* A meter's words, as they were between two steps. */
struct meter_words {
	struct meter_id id;
	uint64_t what;
	int64_t limit, window_ns, level, held, period_index;
};

static bool
copy_words(const struct arena *a, uint32_t row, struct meter_words *out)
{
	const struct shm_meter *m = &layout_meters(a)[row];

	*out = (struct meter_words){
		.id = { word_get(&m->id_hi), word_get(&m->id_lo) },
		.what = word_get(&m->what),
		.limit = signed_of(&m->limit),
		.window_ns = signed_of(&m->window_ns),
		.level = signed_of(&m->level),
		.held = signed_of(&m->held),
		.period_index = signed_of(&m->period_index),
	};
	return out->id.hi != 0 || out->id.lo != 0;
}

/* By id, or by row where id is NULL. */
static bool
copy_meter(const struct arena *a, const struct meter_id *id, uint32_t row, struct meter_words *out)
{
	if (id) {
		uint64_t word = word_get(place_of(a, *id));

		if (word == 0)
			return false;
		row = (uint32_t)word - 1;
	}
	return copy_words(a, row, out);
}

/*
 * Looks until no step came in between. As words are stored by releases and
 * loaded by acquires, a look that saw anything of a step also sees that step's
 * odd `sequence`, or a later one, when it checks.
 */
static bool
look(struct arena *a, const struct meter_id *id, uint32_t row, struct meter_words *out)
{
	const _Atomic uint64_t *sequence = &a->header->ledger.sequence;

	for (int i = 0; i < LOOKS_MAX; i++) {
		uint64_t before = word_get(sequence);

		if (!(before & 1)) {
			bool found = copy_meter(a, id, row, out);

			if (word_get(sequence) == before)
				return found;
		}
		if (i % 64 == 63)
			sched_yield();
	}
	if (!a->writable)
		return false;
	ledger_lock(a);
	bool found = copy_meter(a, id, row, out);
	ledger_unlock(a);
	return found;
}

static void
view_of(const struct meter_words *w, struct now now, struct meter_view *out)
{
	*out = (struct meter_view){
		.id = w->id,
		.kind = (enum meter_kind)(w->what & 0xff),
		.period = (enum meter_period)(w->what >> 8),
		.limit = w->limit,
		.window_ns = w->window_ns,
	};
	if (out->kind == METER_BUCKET) {
		out->tokens = bucket_units(w->level, w->limit, w->window_ns, now.mono_ns);
		return;
	}
	out->period_index = period_index(out->period, now.wall_ns);
	out->held = w->held;
	if (out->period_index <= w->period_index) {
		out->period_index = w->period_index;
		out->spent = w->level;
	}
	if (out->period != PERIOD_TOTAL)
		out->reset_wall_ns = period_begin_ns(out->period, out->period_index + 1);
}

bool
ledger_meter(struct arena *a, struct meter_id id, struct now now, struct meter_view *out)
{
	struct meter_words w;

	if ((id.hi == 0 && id.lo == 0) || !look(a, &id, 0, &w))
		return false;
	view_of(&w, now, out);
	return true;
}

uint32_t
ledger_meter_rows(const struct arena *a)
{
	return a->header->sizes.meters;
}

uint32_t
ledger_meters_used(const struct arena *a)
{
	return (uint32_t)word_get(&a->header->ledger.meters_used);
}

bool
ledger_meter_at(struct arena *a, uint32_t row, struct now now, struct meter_view *out)
{
	struct meter_words w;

	CHECK(row < a->header->sizes.meters);
	if (row >= ledger_meters_used(a) || !look(a, NULL, row, &w))
		return false;
	view_of(&w, now, out);
	return true;
}
