/*
 * shm/health.c -- see health.h.
 *
 * The table is open addressing with linear probing. A row's word `circuit` is
 *
 *	bits 0-2	EMPTY, RETIRED, UP, or OUT + enum health_why
 *	bits 3-6	ejections in a row, at most 15
 *	bits 7-14	who probes: worker + 1; 0: nobody
 *	bits 15-23	number of the ejection, rising; so that a report can say which
 *			one its probe was of, and a word is not taken for an older one
 *	bits 24-63	milliseconds: the ejection's end; with a prober, when its probe is
 *			given to another one. 0: over
 *
 * EMPTY ends a search, so no row becomes EMPTY again. RETIRED is a row that is being
 * given to another target, or whose new user died before it was complete: searches
 * pass over it.
 *
 * Rows are made and given away by one process at a time, who has `making`, because
 * two who make a row for one target would make two, and each could have its prober.
 * Nobody waits for it: after MAKING_TRIES the report is not kept. Who dies with it
 * leaves a row EMPTY or RETIRED, which is free, and the master takes `making` back.
 *
 * A row is read without any of that: id, circuit, id again. The id changes only
 * while the circuit is RETIRED (or EMPTY), and the circuit is stored behind the id.
 * So a circuit between two equal ids is that id's, and a compare-and-swap on it
 * fails if the row was given away meanwhile.
 */
#include "shm/health.h"

#include <string.h>

#include "shm/base/clock.h"
#include "shm/layout.h"

#define SEARCH_MAX 64		/* rows that a search visits: more in a row are taken only if the table is nearly full */
#define MAKING_TRIES 200	/* some microseconds; making a row takes a tenth of one */
#define SWAP_TRIES 64		/* each failure means that somebody else said something of the same target */
#define USED_MS 60000		/* how old `used_ms` may get: a target that is well costs one store a minute */

enum { EMPTY, RETIRED, UP, OUT };	/* and OUT + why */

#define STATE_BITS 3
#define EJECTIONS_BITS 4
#define PROBER_BITS 8
#define NUMBER_BITS 9
#define EJECTIONS_MAX ((1u << EJECTIONS_BITS) - 1)
#define NUMBER_MASK ((1u << NUMBER_BITS) - 1)
#define MS_MAX ((INT64_C(1) << 40) - 1)

_Static_assert(OUT + HEALTH_WHYS <= 1 << STATE_BITS, "states in their bits");
_Static_assert(WORKERS_MAX < 1 << PROBER_BITS, "worker + 1 in its bits");
_Static_assert(STATE_BITS + EJECTIONS_BITS + PROBER_BITS + NUMBER_BITS + 40 == 64, "one word");
_Static_assert((HEALTH_ROWS & (HEALTH_ROWS - 1)) == 0, "places are cut from a hash");

struct circuit {
	uint32_t state, ejections, prober, number;
	int64_t ms;
};

static uint64_t
pack(struct circuit c)
{
	return c.state | (uint64_t)c.ejections << 3 | (uint64_t)c.prober << 7 | (uint64_t)(c.number & NUMBER_MASK) << 15 |
	    (uint64_t)c.ms << 24;
}

static struct circuit
unpack(uint64_t word)
{
	return (struct circuit){
		.state = word & 7,
		.ejections = word >> 3 & EJECTIONS_MAX,
		.prober = word >> 7 & 0xff,
		.number = word >> 15 & NUMBER_MASK,
		.ms = (int64_t)(word >> 24),
	};
}

static uint32_t
state_of(uint64_t word)
{
	return word & 7;
}

static bool
swap(_Atomic uint64_t *word, uint64_t from, uint64_t to)
{
	return atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_acq_rel, memory_order_acquire);
}

static int64_t
ms_of(int64_t mono_ns)
{
	return mono_ns / NS_PER_MS;
}

/* Rounded up: an ejection is not shorter than was said. */
static int64_t
end_ms(int64_t mono_ns, int64_t for_ns)
{
	int64_t bounded = for_ns < NS_PER_MS ? NS_PER_MS : for_ns < HEALTH_OUT_NS_MAX ? for_ns : HEALTH_OUT_NS_MAX;
	int64_t ms = (mono_ns + bounded + NS_PER_MS - 1) / NS_PER_MS;

	return ms < MS_MAX ? ms : MS_MAX;
}

/* ---- rows ---- */

/* The row's circuit if it is that target's; else 0. */
static uint64_t
circuit_for(const struct shm_target *t, struct key128 id)
{
	if (word_get(&t->id_lo) != id.lo || word_get(&t->id_hi) != id.hi)
		return 0;
	uint64_t word = word_get(&t->circuit);
	return state_of(word) >= UP && peek(&t->id_lo) == id.lo && peek(&t->id_hi) == id.hi ? word : 0;
}

/* Ids are hashes already; they are mixed because tests use small numbers. */
static uint32_t
first_row(struct key128 id)
{
	return (uint32_t)(((id.hi ^ (id.lo * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xd6e8feb86659fd93)) >> 32) & (HEALTH_ROWS - 1);
}

/* The target's circuit, and its row in the hint; 0: it has none. */
static uint64_t
find(const struct arena *a, struct health_ref *ref)
{
	const struct shm_target *rows = layout_health(a)->row;
	uint64_t word;

	if (ref->row < HEALTH_ROWS && (word = circuit_for(&rows[ref->row], ref->id)) != 0)
		return word;
	for (uint32_t i = 0, row = first_row(ref->id); i < SEARCH_MAX; i++, row = (row + 1) & (HEALTH_ROWS - 1)) {
		word = circuit_for(&rows[row], ref->id);
		if (word != 0) {
			ref->row = row;
			return word;
		}
		if (word_get(&rows[row].circuit) == EMPTY)
			break;
	}
	return 0;
}

static bool
making_begin(struct shm_health *h, uint32_t worker)
{
	for (int tries = 0; tries < MAKING_TRIES; tries++) {
		if (peek(&h->making) == 0 && swap(&h->making, 0, worker + 1))
			return true;
		cpu_relax();
	}
	return false;
}

/* Makes a row free, if it is not in use. Who uses it at this moment has another
 * circuit, and the swap fails. */
static bool
retire(struct shm_target *t, int64_t now_ms)
{
	uint64_t word = word_get(&t->circuit);
	struct circuit c = unpack(word);

	if (c.state < UP)
		return true;
	return (int64_t)peek(&t->used_ms) + HEALTH_IDLE_NS / NS_PER_MS <= now_ms && c.ms <= now_ms &&
	    swap(&t->circuit, word, pack((struct circuit){ .state = RETIRED, .number = c.number + 1 }));
}

/* Cut to its room, but not within a character. */
static void
name_put(struct shm_target_name *n, const char *name)
{
	uint64_t text[HEALTH_NAME_BYTES / 8] = { 0 };
	size_t bytes = name ? strnlen(name, HEALTH_NAME_BYTES) : 0;

	if (bytes == HEALTH_NAME_BYTES)
		for (bytes--; bytes > 0 && (name[bytes] & 0xc0) == 0x80;)
			bytes--;
	if (bytes > 0)
		memcpy(text, name, bytes);
	for (size_t i = 0; i < HEALTH_NAME_BYTES / 8; i++)
		word_put(&n->text[i], text[i]);
}

/* A row for a target that has none; the caller has `making`. Its words before its
 * circuit: a death in between leaves it free. 0: none is free. */
static uint64_t
make(struct shm_health *h, struct health_ref *ref, int64_t now_ms)
{
	for (uint32_t i = 0, row = first_row(ref->id); i < SEARCH_MAX; i++, row = (row + 1) & (HEALTH_ROWS - 1)) {
		struct shm_target *t = &h->row[row];

		if (!retire(t, now_ms))
			continue;
		word_put(&t->id_hi, ref->id.hi);
		word_put(&t->id_lo, ref->id.lo);
		name_put(&h->name[row], ref->name);
		word_put(&t->streak, 0);
		word_put(&t->half, 0);
		word_put(&t->half_before, 0);
		word_put(&t->since_ms, 0);
		word_put(&t->used_ms, (uint64_t)now_ms);
		uint64_t word = pack((struct circuit){ .state = UP, .number = unpack(peek(&t->circuit)).number + 1 });
		word_put(&t->circuit, word);
		ref->row = row;
		return word;
	}
	return 0;
}

static void
not_kept(struct shm_health *h)
{
	atomic_fetch_add_explicit(&h->unkept, 1, memory_order_relaxed);
}

static uint64_t
find_or_make(struct arena *a, struct health_ref *ref, uint32_t worker, int64_t now_ms)
{
	struct shm_health *h = layout_health(a);
	uint64_t word = find(a, ref);

	CHECK(worker < a->header->sizes.workers);
	if (word != 0)
		return word;
	if (making_begin(h, worker)) {
		word = find(a, ref);	/* somebody was faster */
		if (word == 0)
			word = make(h, ref, now_ms);
		word_put(&h->making, 0);
	}
	if (word == 0)
		not_kept(h);
	return word;
}

static struct shm_target *
row_of(struct arena *a, const struct health_ref *ref)
{
	return &layout_health(a)->row[ref->row];
}

static void
touch(struct shm_target *t, int64_t now_ms)
{
	if (now_ms - (int64_t)peek(&t->used_ms) >= USED_MS)
		poke(&t->used_ms, (uint64_t)now_ms);
}

/* ---- the window ---- */

/* A half: its number << 32 | failures << 16 | requests. The number is the time in
 * halves, so a half says itself whether it belongs to the window. */
#define HALF_MOST 0xffffu

struct half {
	uint32_t number, failures, requests;
};

static struct half
half_of(uint64_t word)
{
	return (struct half){ (uint32_t)(word >> 32), word >> 16 & HALF_MOST, word & HALF_MOST };
}

static uint64_t
half_word(struct half h)
{
	return (uint64_t)h.number << 32 | h.failures << 16 | h.requests;
}

/* The half to count in, if there is something to count: counting begins with a
 * failure and goes on until a half had none, so that a target that is well costs
 * no store. A worker whose clock was read earlier counts in the newer half. */
static bool
half_now(struct half *h, uint32_t number, bool failed)
{
	if ((h->number == number || h->number == number + 1) && (h->requests > 0 || failed)) {
		if (h->requests == HALF_MOST) {		/* the share stays the same */
			h->requests /= 2;
			h->failures /= 2;
		}
		h->number = h->requests > 0 ? h->number : number;
		return true;
	}
	if (!failed && !(h->number + 1 == number && h->failures > 0))
		return false;
	*h = (struct half){ .number = number };
	return true;
}

static void
window_count(struct shm_target *t, const struct health_rule *rule, int64_t now_ms, bool failed)
{
	int64_t half_ms = rule->window_ns / (2 * NS_PER_MS);
	uint32_t number = (uint32_t)(now_ms / (half_ms > 0 ? half_ms : 1));

	if (rule->share_permille == 0)
		return;
	for (int tries = 0; tries < SWAP_TRIES; tries++) {
		uint64_t before = peek(&t->half);
		struct half h = half_of(before);

		if (!half_now(&h, number, failed))
			return;
		h.requests++;
		h.failures += failed;
		if (!swap(&t->half, before, half_word(h)))
			continue;
		if (half_of(before).number != h.number)
			poke(&t->half_before, before);
		return;
	}
}

static struct half
window_sum(const struct shm_target *t)
{
	struct half now = half_of(peek(&t->half)), before = half_of(peek(&t->half_before));

	if (before.number + 1 == now.number) {
		now.failures += before.failures;
		now.requests += before.requests;
	}
	return now;
}

static bool
share_reached(const struct shm_target *t, const struct health_rule *rule)
{
	struct half sum = window_sum(t);

	return rule->share_permille > 0 && sum.requests >= rule->requests_min &&
	    (uint64_t)sum.failures * 1000 >= (uint64_t)sum.requests * rule->share_permille;
}

/* ---- the circuit ---- */

enum health_state
health_look(const struct arena *a, struct health_ref *ref, int64_t now_mono_ns)
{
	uint64_t word = find(a, ref);

	if (state_of(word) <= UP)
		return HEALTH_UP;
	struct circuit c = unpack(word);
	if (c.ms <= ms_of(now_mono_ns))
		return HEALTH_PROBE_FREE;
	return c.prober ? HEALTH_PROBE_BUSY : HEALTH_OUT;
}

bool
health_probe_take(struct arena *a, struct health_ref *ref, struct health_try *t, int64_t now_mono_ns)
{
	uint64_t word = find(a, ref);
	struct circuit c = unpack(word);
	int64_t now_ms = ms_of(now_mono_ns);

	CHECK(t->worker < a->header->sizes.workers);
	t->probe = 0;
	if (c.state < OUT || c.ms > now_ms)
		return false;
	c.prober = t->worker + 1;
	c.ms = end_ms(now_mono_ns, HEALTH_PROBE_NS);
	if (!swap(&row_of(a, ref)->circuit, word, pack(c)))
		return false;
	touch(row_of(a, ref), now_ms);
	t->probe = pack(c);
	return true;
}

/* The try is a probe of the ejection that the row is out by. */
static bool
is_its_probe(uint64_t word, const struct health_try *t)
{
	return t->probe != 0 && state_of(word) >= OUT && unpack(word).number == unpack(t->probe).number;
}

static bool
eject(struct shm_health *h, struct shm_target *t, uint64_t word, enum health_why why, int64_t until_ms, int64_t now_ms)
{
	struct circuit c = unpack(word);
	bool was_up = c.state == UP, again = was_up || c.prober != 0;

	c.state = OUT + (uint32_t)why;
	c.ejections += again && c.ejections < EJECTIONS_MAX;
	c.prober = 0;
	c.number++;
	c.ms = until_ms;
	if (!swap(&t->circuit, word, pack(c)))
		return false;
	if (was_up)
		poke(&t->since_ms, (uint64_t)now_ms);
	if (again)
		atomic_fetch_add_explicit(&h->ejected[why], 1, memory_order_relaxed);
	return true;
}

static int64_t
cooldown_ns(const struct health_rule *rule, uint32_t ejections)
{
	int64_t ns = rule->cooldown_ns;

	CHECK(rule->cooldown_ns > 0 && rule->cooldown_max_ns >= rule->cooldown_ns);
	for (uint32_t i = 0; i < ejections && ns < rule->cooldown_max_ns; i++)
		ns = ns > rule->cooldown_max_ns / 2 ? rule->cooldown_max_ns : 2 * ns;
	return ns;
}

/* Counts begin anew with each time that it is up. */
static bool
close_circuit(struct shm_target *t, uint64_t word, int64_t now_ms)
{
	poke(&t->streak, 0);
	poke(&t->half, 0);
	poke(&t->half_before, 0);
	poke(&t->since_ms, (uint64_t)now_ms);
	return swap(&t->circuit, word, pack((struct circuit){ .state = UP, .number = unpack(word).number }));
}

void
health_success(struct arena *a, struct health_ref *ref, const struct health_rule *rule, const struct health_try *t,
    int64_t now_mono_ns)
{
	int64_t now_ms = ms_of(now_mono_ns);
	uint64_t word;

	for (int tries = 0; tries < SWAP_TRIES && (word = find(a, ref)) != 0; tries++) {
		struct shm_target *row = row_of(a, ref);

		touch(row, now_ms);
		if (state_of(word) == UP) {
			if (peek(&row->streak) != 0)
				poke(&row->streak, 0);
			window_count(row, rule, now_ms, false);
			return;
		}
		if (!is_its_probe(word, t) || close_circuit(row, word, now_ms))
			return;
	}
}

/* Of a target that is up. */
static void
count_failure(struct shm_health *h, struct shm_target *row, uint64_t word, const struct health_rule *rule, int64_t now_mono_ns)
{
	uint64_t streak = atomic_fetch_add_explicit(&row->streak, 1, memory_order_relaxed) + 1;
	int64_t now_ms = ms_of(now_mono_ns), until_ms = end_ms(now_mono_ns, cooldown_ns(rule, 0));

	window_count(row, rule, now_ms, true);
	/* If the swap fails, somebody else has ejected it at this moment. */
	if (rule->failures > 0 && streak >= rule->failures)
		eject(h, row, word, HEALTH_FAILURES, until_ms, now_ms);
	else if (share_reached(row, rule))
		eject(h, row, word, HEALTH_RATE, until_ms, now_ms);
}

void
health_failure(struct arena *a, struct health_ref *ref, const struct health_rule *rule, const struct health_try *t,
    int64_t now_mono_ns)
{
	struct shm_health *h = layout_health(a);
	int64_t now_ms = ms_of(now_mono_ns);
	uint64_t word;

	for (int tries = 0; tries < SWAP_TRIES && (word = find_or_make(a, ref, t->worker, now_ms)) != 0; tries++) {
		struct shm_target *row = row_of(a, ref);

		touch(row, now_ms);
		if (state_of(word) == UP) {
			if (ms_of(t->began_mono_ns) >= (int64_t)peek(&row->since_ms))
				count_failure(h, row, word, rule, now_mono_ns);
			return;
		}
		if (!is_its_probe(word, t) ||
		    eject(h, row, word, HEALTH_FAILURES, end_ms(now_mono_ns, cooldown_ns(rule, unpack(word).ejections)), now_ms))
			return;
	}
}

void
health_eject(struct arena *a, struct health_ref *ref, const struct health_try *t, enum health_why why, int64_t for_ns,
    int64_t now_mono_ns)
{
	int64_t now_ms = ms_of(now_mono_ns), until_ms = end_ms(now_mono_ns, for_ns);
	struct shm_health *h = layout_health(a);
	uint64_t word;

	CHECK(why < HEALTH_WHYS);
	for (int tries = 0; tries < SWAP_TRIES && (word = find_or_make(a, ref, t->worker, now_ms)) != 0; tries++) {
		struct shm_target *row = row_of(a, ref);
		struct circuit c = unpack(word);

		touch(row, now_ms);
		if ((c.state >= OUT && c.prober == 0 && c.ms >= until_ms) || eject(h, row, word, why, until_ms, now_ms))
			return;
	}
}

/* Its time is over, so who looks next may take it. */
static uint64_t
unprobed(uint64_t word)
{
	struct circuit c = unpack(word);

	c.prober = 0;
	c.ms = 0;
	return pack(c);
}

void
health_probe_drop(struct arena *a, struct health_ref *ref, const struct health_try *t)
{
	/* Not one that was given to another request after HEALTH_PROBE_NS. */
	if (t->probe != 0 && find(a, ref) == t->probe)
		(void)swap(&row_of(a, ref)->circuit, t->probe, unprobed(t->probe));
}

uint32_t
health_reclaim(struct arena *a, uint32_t worker)
{
	struct shm_health *h = layout_health(a);
	uint32_t freed = 0;

	CHECK(worker < a->header->sizes.workers);
	for (uint32_t i = 0; i < HEALTH_ROWS; i++) {
		uint64_t word = word_get(&h->row[i].circuit);

		/* If the swap fails, the probe was ended by somebody else. */
		if (state_of(word) >= OUT && unpack(word).prober == worker + 1)
			freed += swap(&h->row[i].circuit, word, unprobed(word));
	}
	(void)swap(&h->making, worker + 1, 0);
	return freed;
}

/* ---- looking ---- */

static void
name_get(const struct shm_target_name *n, char out[HEALTH_NAME_BYTES])
{
	uint64_t text[HEALTH_NAME_BYTES / 8];

	for (size_t i = 0; i < HEALTH_NAME_BYTES / 8; i++)
		text[i] = word_get(&n->text[i]);
	memcpy(out, text, sizeof(text));
	out[HEALTH_NAME_BYTES - 1] = '\0';
}

bool
health_at(const struct arena *a, uint32_t row, int64_t now_mono_ns, struct health_view *out)
{
	const struct shm_health *h = layout_health(a);
	const struct shm_target *t = &h->row[row];

	CHECK(row < HEALTH_ROWS);
	struct key128 id = { word_get(&t->id_hi), word_get(&t->id_lo) };
	uint64_t word = circuit_for(t, id);
	struct circuit c = unpack(word);
	struct half sum = window_sum(t);
	int64_t used_ms = (int64_t)word_get(&t->used_ms), now_ms = ms_of(now_mono_ns);

	if (word == 0 || (c.ms <= now_ms && used_ms + HEALTH_UNASKED_NS / NS_PER_MS <= now_ms))
		return false;
	*out = (struct health_view){
		.id = id,
		.since_mono_ns = (int64_t)peek(&t->since_ms) * NS_PER_MS,
		.used_mono_ns = used_ms * NS_PER_MS,
		.ejections = c.ejections,
		.failures_in_a_row = (uint32_t)peek(&t->streak),
		.window_failures = sum.failures,
		.window_requests = sum.requests,
	};
	if (c.state > UP) {
		out->why = (enum health_why)(c.state - OUT);
		out->state = c.ms <= now_ms ? HEALTH_PROBE_FREE : c.prober ? HEALTH_PROBE_BUSY : HEALTH_OUT;
	}
	if (c.ms > now_ms)
		out->over_in_ns = c.ms * NS_PER_MS - now_mono_ns;
	if (out->state == HEALTH_PROBE_BUSY)
		out->prober = c.prober - 1;
	name_get(&h->name[row], out->name);
	return circuit_for(t, id) != 0;		/* else it was given away in between */
}

struct health_counts
health_counts(const struct arena *a)
{
	const struct shm_health *h = layout_health(a);
	struct health_counts n = { .unkept = peek(&h->unkept) };

	for (int i = 0; i < HEALTH_WHYS; i++)
		n.ejected[i] = peek(&h->ejected[i]);
	return n;
}

const char *
health_why_name(enum health_why why)
{
	static const char *const names[HEALTH_WHYS] = { "failures", "rate", "busy", "money", "credential" };

	CHECK(why < HEALTH_WHYS);
	return names[why];
}
