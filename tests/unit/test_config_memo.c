/*
 * Inline configs that a worker keeps: compiled once for a version of the settings,
 * never one that these would refuse, never another one, and let go of exactly once.
 */
#include "settings_fixture.h"

#include "gateway/config_memo.h"

#define KEPT 256	/* CONFIGS_KEPT_MAX */
#define BOTH "{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\"},{\"slug\":\"b\",\"api_key\":\"k\"}]}"
#define ONE "{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\"}]}"

static struct config_memo *memo;
static struct loaded first;	/* version 1, with both */
static struct settings *second;	/* version 2, with one */

static int
open_memo(void **state)
{
	struct loaded other;

	if (set_up(state) != 0)
		return -1;
	first = accepted(BOTH);
	other = accepted(ONE);
	second = settings_compile(buf_slice(&other.bundle), 2, &other.problems);
	done(&other);
	memo = config_memo_new();
	return memo && second ? 0 : -1;
}

static int
close_memo(void **state)
{
	config_memo_free(memo);
	config_memo_free(NULL);
	settings_put(second);
	done(&first);
	return tear_down(state);
}

static struct config *
get(const struct settings *s, const char *json)
{
	struct problems p;
	struct config *c;

	problems_init(&p);
	c = config_memo_get(memo, s, slice_of(json), &p);
	if (!c)
		fail_msg("%s: %.*s", json, SLICE_FMT(buf_slice(&p.text)));
	assert_int_equal(p.count, 0);
	problems_free(&p);
	return c;
}

static void
wrong(const struct settings *s, const char *json, const char *words)
{
	struct problems p;

	problems_init(&p);
	assert_null(config_memo_get(memo, s, slice_of(json), &p));
	assert_true(p.count > 0);
	if (!slice_contains(buf_slice(&p.text), slice_of(words)))
		fail_msg("%s: %.*s", json, SLICE_FMT(buf_slice(&p.text)));
	problems_free(&p);
}

static void
the_same_text_is_compiled_once(void **state)
{
	struct config *a = get(first.s, "{\"provider\":\"@a\"}"), *again = get(first.s, "{\"provider\":\"@a\"}");
	struct config *other = get(first.s, "{\"provider\": \"@a\"}"), *b = get(first.s, "{\"provider\":\"@b\"}");

	(void)state;
	assert_ptr_equal(a, again);
	assert_int_equal(a->refs, 3);	/* ours, and the memo's */
	assert_ptr_not_equal(a, other);	/* it is the text that counts */
	assert_true(slice_eq(b->targets[0].provider, SLICE("b")));
	assert_true(slice_eq(a->targets[0].provider, SLICE("a")));
	config_put(again);
	config_put(a);
	assert_int_equal(a->refs, 1);
	config_put(other);
	config_put(b);
}

static void
what_is_wrong_is_not_kept_and_is_told_each_time(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		wrong(first.s, "{\"provider\":\"@nobody\"}", "nobody");
		wrong(first.s, "{\"retry\":{}}", "attempts");
		wrong(first.s, "{", "");
		wrong(first.s, "", "");
	}
}

static void
other_settings_judge_anew(void **state)
{
	const char *json = "{\"provider\":\"@b\",\"override_params\":{\"x\":1}}";
	struct config *old = get(first.s, json), *kept = get(first.s, "{\"provider\":\"@a\",\"override_params\":{\"x\":2}}");

	(void)state;
	wrong(second, json, "b");
	wrong(second, json, "b");	/* what the old ones allowed does not come back */
	assert_int_equal(old->refs, 2);	/* a request that began with the old ones still has it */
	config_put(old);
	struct config *renewed = get(second, "{\"provider\":\"@a\",\"override_params\":{\"x\":2}}");
	assert_ptr_not_equal(renewed, kept);
	assert_int_equal(kept->refs, 1);	/* the memo has let go of it */
	struct config *again = get(second, "{\"provider\":\"@a\",\"override_params\":{\"x\":2}}");
	assert_ptr_equal(renewed, again);
	assert_int_equal(renewed->refs, 3);
	config_put(kept);
	config_put(renewed);
	config_put(again);
}

static struct config *
numbered(unsigned n)
{
	char json[64];

	snprintf(json, sizeof(json), "{\"override_params\":{\"n\":%u}}", n);
	struct config *c = get(first.s, json);
	assert_string_equal(c->targets[0].override_params[0].name, "n");
	assert_int_equal(strtoul(c->targets[0].override_params[0].raw, NULL, 10), n);
	return c;
}

static void
the_one_that_was_not_used_for_longest_goes(void **state)
{
	struct config *held[KEPT + 1];

	(void)state;
	for (unsigned i = 0; i < KEPT; i++)
		held[i] = numbered(1000 + i);
	for (unsigned i = 0; i < KEPT; i++)
		assert_int_equal(held[i]->refs, 2);
	config_put(numbered(1000));	/* used again */
	held[KEPT] = numbered(5000);
	assert_int_equal(held[0]->refs, 2);
	assert_int_equal(held[1]->refs, 1);	/* the memo has forgotten it, its holder has not */
	assert_int_equal(held[2]->refs, 2);
	struct config *again = numbered(1001);
	assert_ptr_not_equal(again, held[1]);
	assert_int_equal(held[2]->refs, 1);
	config_put(again);
	for (unsigned i = 0; i <= KEPT; i++)
		config_put(held[i]);
	/* Many that are never used again go through without mixing. */
	for (unsigned i = 0; i < 20 * KEPT; i++)
		config_put(numbered(i * 7919 % 4001));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_text_is_compiled_once),
		cmocka_unit_test(what_is_wrong_is_not_kept_and_is_told_each_time),
		cmocka_unit_test(other_settings_judge_anew),
		cmocka_unit_test(the_one_that_was_not_used_for_longest_goes),
	};

	return cmocka_run_group_tests(tests, open_memo, close_memo);
}
