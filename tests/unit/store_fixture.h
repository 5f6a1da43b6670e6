/*
 * tests/unit/store_fixture.h -- an arena, a store, and requests that end.
 *
 * For the tests of store/. Each request is charged on a budget for ever, on a
 * daily one, on a bucket and on a count of requests in flight; its record's
 * request_id is "r" and its number. Whatever happens, what is in the store is
 * compared with what was made. The clock is the test's own.
 */
#ifndef WEIR_TESTS_UNIT_STORE_FIXTURE_H
#define WEIR_TESTS_UNIT_STORE_FIXTURE_H

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/records.h"
#include "tests/unit/arena_fixture.h"

#define MADE_MAX 100000
#define DAY_BEGIN_NS (INT64_C(20780) * 86400 * NS_PER_S)	/* 2026-11-23 */
#define A_DAY_NS (INT64_C(86400) * NS_PER_S)
#define STORE_CHARGES 4		/* of a request */

#define TOTAL_ID ((struct meter_id){ 2, 1 })
#define DAILY_ID ((struct meter_id){ 2, 2 })
#define BUCKET_ID ((struct meter_id){ 1, 1 })

struct store {
	struct fixture f;
	char folder[64];
	struct writer *writer;
	uint32_t made;		/* records settled so far */
	int64_t spent;		/* of the budgets, all of them */
};

static int64_t clock_at_ns;
static char why[512];

static inline int64_t
test_clock(void)
{
	return clock_at_ns;
}

/* ---- files ---- */

static inline int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static inline void
remove_tree(const char *path)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
		fail_msg("cannot remove %s", path);
}

static inline void
copy_file(const char *from, const char *to)
{
	char bytes[65536];
	FILE *in = fopen(from, "r"), *out = fopen(to, "w");
	size_t n;

	assert_true(in && out);
	while ((n = fread(bytes, 1, sizeof(bytes), in)) > 0)
		assert_int_equal(fwrite(bytes, 1, n, out), n);
	fclose(in);
	assert_int_equal(fclose(out), 0);
}

static inline void
store_file(struct store *s, const char *name, char out[128])
{
	snprintf(out, 128, "%s/%s", s->folder, name);
}

static inline bool
day_exists(struct store *s, const char *day)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/records/%s/data.mdb", s->folder, day);
	return stat(path, &st) == 0;
}

/* ---- set-up ---- */

static inline int
setup_with(void **state, uint32_t ring_bytes)
{
	struct store *s = calloc(1, sizeof(*s));

	fixture_open(&s->f, (struct arena_sizes){ .workers = 3, .inflight = 64, .ring_bytes = ring_bytes, .meters = 256 });
	snprintf(s->folder, sizeof(s->folder), "/tmp/weir-store-XXXXXX");
	clock_at_ns = DAY_BEGIN_NS + 3600 * NS_PER_S;
	s->f.now.wall_ns = clock_at_ns;
	*state = s;
	return mkdtemp(s->folder) ? 0 : -1;
}

static inline int
setup(void **state)
{
	return setup_with(state, 1 << 20);
}

/* Rings that are full after some hundred records each. */
static inline int
setup_small_rings(void **state)
{
	return setup_with(state, 65536);
}

static inline int
teardown(void **state)
{
	struct store *s = *state;

	writer_close(s->writer);
	fixture_close(&s->f);
	remove_tree(s->folder);
	free(s);
	return 0;
}

static inline void
open_writer_with(struct store *s, size_t map_bytes)
{
	const struct writer_options options = { test_clock, map_bytes };

	writer_close(s->writer);
	s->writer = writer_open_with(s->folder, &options, why, sizeof(why));
	if (!s->writer)
		fail_msg("%s", why);
}

static inline void
open_writer(struct store *s)
{
	open_writer_with(s, (size_t)1 << 30);
}

static inline void
close_writer(struct store *s)
{
	writer_close(s->writer);
	s->writer = NULL;
}

/* ---- requests ---- */

/* Meters that are not in memory begin at 0. */
static inline struct inflight *
admit(struct fixture *f, uint32_t worker, struct charge *c, uint32_t n)
{
	const struct level nothing = { .known = false };
	struct refusal refusal;
	struct inflight *e;

	for (uint32_t tries = 0; tries < 2 * CHARGES_MAX; tries++) {
		uint64_t evictions = ledger_evictions(&f->arena);
		enum ledger_verdict v = ledger_admit(&f->arena, worker, c, n, NULL, f->now, &e, &refusal);

		if (v == LEDGER_ADMITTED)
			return e;
		if (v != LEDGER_UNKNOWN ||
		    ledger_load(&f->arena, worker, &c[refusal.charge], &nothing, evictions, f->now) == LOAD_FULL)
			return NULL;
	}
	return NULL;
}

static inline void
store_charges(struct charge c[STORE_CHARGES])
{
	c[0] = budget_charge(1, PERIOD_TOTAL, INT64_MAX, 1);
	c[1] = budget_charge(2, PERIOD_DAILY, INT64_MAX, 1);
	c[2] = bucket_charge(1, 1000000, 60 * NS_PER_S, 1);
	c[3] = bucket_charge(9, 1000, 0, 1);
	c[3].kind = METER_CONCURRENCY;
	c[0].unit = c[1].unit = UNIT_NUSD;
	c[0].name = "the first";
	c[1].name = "the daily";
	c[2].name = "the bucket";
}

static inline bool
try_settle(struct store *s, uint32_t worker, int64_t cost_nusd)
{
	struct record r = { .fixed = { .status = 200, .cost_nusd = cost_nusd } };
	const struct settled used = { .cost_nusd = cost_nusd };
	struct charge c[STORE_CHARGES];
	struct inflight *e;
	char id[32];

	store_charges(c);
	e = admit(&s->f, worker, c, STORE_CHARGES);
	if (!e)
		return false;
	snprintf(id, sizeof(id), "r%u", s->made);
	r.request_id = slice_of(id);
	inflight_record_set(e, record_encode(&r, inflight_record(e), RECORD_BYTES_MAX));
	if (ledger_settle(&s->f.arena, worker, e, &used, s->f.now) != SETTLED) {
		/* No room: as if it had never been. */
		assert_int_equal(ledger_cancel(&s->f.arena, worker, e, false, s->f.now), SETTLED);
		return false;
	}
	s->made++;
	s->spent += cost_nusd;
	return true;
}

static inline void
settle(struct store *s, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		assert_true(try_settle(s, s->made % 3, 1000 + s->made));
}

static inline void
flush_all(struct store *s)
{
	uint32_t records = 1;

	while (records > 0)
		if (writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)) != 0)
			fail_msg("%s", why);
}

/* ---- what is in the store ---- */

struct found {
	uint32_t count, stop_after;
	uint64_t last_id, first_id;
	int64_t cost;
	uint8_t seen[MADE_MAX];
};

static inline bool
note_record(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	struct found *f = arg;
	int64_t number;

	assert_true(id > f->last_id);
	assert_true(slice_to_i64((struct slice){ r->request_id.p + 1, r->request_id.n - 1 }, &number));
	assert_true(number >= 0 && number < MADE_MAX);
	assert_int_equal(f->seen[number], 0);
	assert_int_equal(n, STORE_CHARGES);
	assert_true(charges[0].id.hi == 2 && charges[0].id.lo == 1);
	assert_int_equal(charges[0].amount, r->fixed.cost_nusd);
	f->seen[number] = 1;
	f->first_id = f->first_id ? f->first_id : id;
	f->last_id = id;
	f->cost += r->fixed.cost_nusd;
	return ++f->count != f->stop_after;
}

static inline struct found *
read_store(struct store *s, uint64_t from_id, uint64_t to_id, uint32_t stop_after)
{
	static struct found found;
	struct reader *r = reader_open(s->folder, why, sizeof(why));

	found = (struct found){ .stop_after = stop_after };
	if (!r)
		fail_msg("%s", why);
	assert_int_equal(reader_scan(r, from_id, to_id, note_record, &found), 0);
	reader_close(r);
	return &found;
}

struct levels_found {
	int64_t total, daily, daily_index, full_wall_ns;
	uint32_t count, named;
};

static inline bool
note_level(const struct stored_meter *m, void *arg)
{
	struct levels_found *l = arg;

	assert_true(m->level.known);
	l->count++;
	if (m->id.hi == 2 && m->id.lo == 1) {
		assert_int_equal(meter_what_kind(m->level.what), METER_BUDGET);
		assert_int_equal(meter_what_unit(m->level.what), UNIT_NUSD);
		assert_int_equal(meter_what_period(m->level.what).kind, PERIOD_TOTAL);
		l->named += slice_eq(m->name, SLICE("the first"));
		l->total = m->level.spent;
	} else if (m->id.hi == 2 && m->id.lo == 2) {
		assert_int_equal(meter_what_period(m->level.what).kind, PERIOD_DAILY);
		l->named += slice_eq(m->name, SLICE("the daily"));
		l->daily = m->level.spent;
		l->daily_index = m->level.period_index;
	} else if (m->id.hi == 1) {
		assert_int_equal(m->id.lo, 1);	/* what is in flight is not stored */
		assert_int_equal(meter_what_kind(m->level.what), METER_BUCKET);
		l->named += slice_eq(m->name, SLICE("the bucket"));
		l->full_wall_ns = m->level.full_wall_ns;
	}
	return true;
}

static inline struct levels_found
read_levels(struct store *s)
{
	struct reader *r = reader_open(s->folder, why, sizeof(why));
	struct levels_found l = { 0 };

	assert_non_null(r);
	assert_int_equal(reader_meters(r, note_level, &l), 0);
	reader_close(r);
	return l;
}

/* Every record once, and the ledger says what they say. */
static inline void
assert_whole(struct store *s)
{
	struct found *f;

	close_writer(s);
	f = read_store(s, 0, UINT64_MAX, 0);
	assert_int_equal(f->count, s->made);
	assert_int_equal(f->cost, s->spent);
	for (uint32_t i = 0; i < s->made; i++)
		assert_int_equal(f->seen[i], 1);
	assert_int_equal(read_levels(s).total, s->spent);
}

#endif
