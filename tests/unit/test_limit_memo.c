/*
 * The memo must never give one group the meter of another, nor that of older
 * settings; what one request asked for must stay while it is admitted; and the
 * memo must go on when it is full.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/limit_memo.h"

static struct limit_policy *
policy(const char *id)
{
	struct limit_policy *lp;
	struct problems p;
	char json[256];

	problems_init(&p);
	snprintf(json, sizeof(json), "{\"id\":\"%s\",\"conditions\":[],\"group_by\":[{\"key\":\"metadata.user\"}],"
	    "\"type\":\"requests\",\"unit\":\"rpm\",\"value\":60}", id);
	lp = limit_policy_parse(slice_of(json), "policies[0]", &p);
	if (!lp)
		fail_msg("%.*s", SLICE_FMT(buf_slice(&p.text)));
	problems_free(&p);
	return lp;
}

static struct slice
group_of(char text[64], unsigned number)
{
	int n = snprintf(text, 64, "metadata.user:u%u", number);

	return (struct slice){ text, (size_t)n };
}

static bool
same_id(struct meter_id a, struct meter_id b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

static void
remembers_by_policy_settings_and_group(void **state)
{
	struct limit_memo *m = limit_memo_new(64);
	struct limit_policy *a = policy("a"), *b = policy("b");
	char text[64];

	(void)state;
	struct limit_memo_entry *e = limit_memo_get(m, 1, a, group_of(text, 1));
	e->charge.row = 77;
	assert_ptr_equal(e->charge.name, e->name);
	assert_string_equal(e->name, "policy a metadata.user:u1");
	assert_ptr_equal(limit_memo_get(m, 1, a, group_of(text, 1)), e);
	assert_int_equal(limit_memo_get(m, 1, a, group_of(text, 1))->charge.row, 77);

	struct limit_memo_entry *other = limit_memo_get(m, 1, a, group_of(text, 2));
	assert_ptr_not_equal(other, e);
	assert_false(same_id(other->charge.id, e->charge.id));
	assert_false(same_id(limit_memo_get(m, 1, b, group_of(text, 1))->charge.id, e->charge.id));

	/* The same meter, but by other settings: its limit may have changed. */
	struct limit_memo_entry *newer = limit_memo_get(m, 2, a, group_of(text, 1));
	assert_ptr_not_equal(newer, e);
	assert_true(same_id(newer->charge.id, e->charge.id));
	assert_int_not_equal(newer->charge.row, 77);
	limit_memo_free(m);
	free(a);
	free(b);
}

static void
goes_on_when_it_is_full(void **state)
{
	struct limit_memo *m = limit_memo_new(CHARGES_MAX);
	struct limit_policy *lp = policy("full");
	char text[64], name[METER_NAME_BYTES];

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		struct limit_memo_entry *e = limit_memo_get(m, 1, lp, group_of(text, i));
		struct charge fresh;

		limit_policy_charge(lp, group_of(text, i), &fresh, name);
		assert_true(same_id(e->charge.id, fresh.id));
		assert_string_equal(e->name, name);
		/* One of them is asked for all the time, and stays. */
		struct limit_memo_entry *kept = limit_memo_get(m, 1, lp, group_of(text, 0));
		if (i == 0)
			kept->charge.row = 4711;
		assert_int_equal(kept->charge.row, 4711);
	}
	limit_memo_free(m);
	free(lp);
}

static void
what_one_request_asks_for_stays(void **state)
{
	struct limit_memo *m = limit_memo_new(CHARGES_MAX);
	struct limit_policy *lp = policy("many");
	struct limit_memo_entry *e[CHARGES_MAX];
	char text[64], name[64];

	(void)state;
	for (unsigned i = 0; i < 1000; i++)
		limit_memo_get(m, 1, lp, group_of(text, i));
	/* Old and new ones, in turn. */
	for (unsigned i = 0; i < CHARGES_MAX; i++)
		e[i] = limit_memo_get(m, 1, lp, group_of(text, i % 2 ? 999 - i / 2 : 2000 + i));
	for (unsigned i = 0; i < CHARGES_MAX; i++) {
		snprintf(name, sizeof(name), "policy many metadata.user:u%u", i % 2 ? 999 - i / 2 : 2000 + i);
		assert_string_equal(e[i]->name, name);
	}
	limit_memo_free(m);
	free(lp);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(remembers_by_policy_settings_and_group),
		cmocka_unit_test(goes_on_when_it_is_full),
		cmocka_unit_test(what_one_request_asks_for_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
