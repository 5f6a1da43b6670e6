/*
 * Choices of a loadbalance, by the million: weights, conversations that stay,
 * targets that are out and come back.
 */
#include "tests/unit/route_fixture.h"

#include <math.h>

#define CHOICES 1000000

static uint32_t
choice(const struct config *c, const struct route_facts *f)
{
	struct route_walk w;

	assert_int_equal(route_begin(&w, c, f), ROUTE_TARGET);
	return w.target->number;
}

static void
assert_share(uint32_t count, double of, double expected, double tolerance)
{
	if (fabs(count / of - expected) > tolerance)
		fail_msg("%u of %g: %g, but expected %g", count, of, count / of, expected);
}

#define WEIGHTED "{" LB ",\"targets\":[{\"weight\":0.5},{\"weight\":0},{\"weight\":0.3},{\"weight\":0.15},{\"weight\":0.05}]}"
static const double shares[] = { 0.5, 0, 0.3, 0.15, 0.05 };

static void
test_weights_by_chance(void **state)
{
	(void)state;
	static const char *const configs[] = {
		WEIGHTED,
		"{\"strategy\":{\"mode\":\"loadbalance\",\"sticky\":{\"enabled\":false}},\"targets\":[{\"weight\":50},{\"weight\":0},{\"weight\":30},"
		"{\"weight\":15},{\"weight\":5}]}",
	};

	for (int k = 0; k < 2; k++) {
		struct config *c = accept(configs[k]);
		struct world world = { .asked = 0 };
		struct route_facts f = facts_of(&world);
		const uint64_t session[2] = { 3, 4 };
		uint32_t counts[5] = { 0 };

		f.session = k == 0 ? NULL : session;	/* not sticky: a session changes nothing */
		for (int i = 0; i < CHOICES; i++) {
			f.random[0] = random_u64();
			f.random[1] = random_u64();
			counts[choice(c, &f)]++;
		}
		assert_int_equal(counts[1], 0);
		for (int i = 0; i < 5; i++)
			assert_share(counts[i], CHOICES, shares[i], 0.002);
		config_put(c);
	}
}

static void
test_weights_by_session(void **state)
{
	(void)state;
	struct config *c = accept(WEIGHTED);

	for (int kind = 0; kind < 4; kind++) {
		struct world world = { .asked = 0 };
		struct route_facts f = facts_of(&world);
		uint32_t counts[5] = { 0 };
		uint64_t session[2];

		f.session = session;
		for (uint64_t i = 0; i < CHOICES; i++) {
			make_session(kind, i, session);
			f.random[0] = random_u64();
			uint32_t first = choice(c, &f);
			f.random[0] = random_u64();
			assert_int_equal(choice(c, &f), first);		/* every time */
			counts[first]++;
		}
		for (int k = 0; k < 5; k++)
			assert_share(counts[k], CHOICES, shares[k], 0.002);
	}
	config_put(c);
}

/* One is out: only its sessions move, by the weights of the rest, and they come back. */
static void
test_ejection(void **state)
{
	(void)state;
	struct config *c = accept(WEIGHTED);
	struct config *other = accept("{\"name\":\"reloaded\"," LB ",\"targets\":[{\"weight\":0.5},{\"weight\":0},{\"weight\":0.3},{\"weight\":0.15},"
	    "{\"weight\":0.05}]}");

	for (uint32_t out = 0; out < 5; out += 2) {
		struct world world = { .asked = 0 };
		struct route_facts f = facts_of(&world);
		uint32_t moved[5] = { 0 }, movers = 0;
		uint64_t session[2];

		f.session = session;
		for (uint64_t i = 0; i < CHOICES; i++) {
			make_session(3, i, session);
			uint32_t before = choice(c, &f);

			set_out(&world, out, true);
			uint32_t during = choice(c, &f);
			set_out(&world, out, false);
			assert_int_equal(choice(c, &f), before);
			assert_int_equal(choice(other, &f), before);
			if (before != out) {
				assert_int_equal(during, before);
				continue;
			}
			movers++;
			moved[during]++;
		}
		assert_int_equal(moved[out], 0);
		for (uint32_t k = 0; k < 5; k++)
			assert_share(moved[k], movers, k == out ? 0 : shares[k] / (1 - shares[out]), 0.002 * sqrt(1.0 * CHOICES / movers));
	}
	config_put(c);
	config_put(other);
}

/* A weight that grows takes from all others, and gives nothing away; a new target likewise. */
static void
test_weights_that_change(void **state)
{
	(void)state;
	struct config *before = accept("{" LB ",\"targets\":[{\"weight\":1},{\"weight\":1}]}");
	struct config *more = accept("{" LB ",\"targets\":[{\"weight\":1},{\"weight\":2}]}");
	struct config *three = accept("{" LB ",\"targets\":[{\"weight\":1},{\"weight\":1},{\"weight\":1}]}");
	struct world world = { .asked = 0 };
	struct route_facts f = facts_of(&world);
	uint32_t moved = 0, fresh = 0;
	uint64_t session[2];

	f.session = session;
	for (uint64_t i = 0; i < CHOICES; i++) {
		make_session(3, i, session);
		uint32_t was = choice(before, &f), is = choice(more, &f), now = choice(three, &f);

		assert_true(is == was || is == 1);
		assert_true(now == was || now == 2);
		moved += is != was;
		fresh += now == 2;
	}
	assert_share(moved, CHOICES, 2.0 / 3 - 0.5, 0.002);
	assert_share(fresh, CHOICES, 1.0 / 3, 0.002);
	config_put(before);
	config_put(more);
	config_put(three);
}

/* Levels choose independently of each other. */
static void
test_levels(void **state)
{
	(void)state;
	struct config *c = accept("{" LB ",\"targets\":[{\"weight\":3," LB ",\"targets\":[{\"weight\":1},{\"weight\":3}]},{" LB ",\"targets\":[{},{}]}]}");
	static const double expected[] = { 3.0 / 16, 9.0 / 16, 1.0 / 8, 1.0 / 8 };
	struct world world = { .asked = 0 };
	struct route_facts f = facts_of(&world);
	uint32_t counts[4] = { 0 };
	uint64_t session[2];

	f.session = session;
	for (uint64_t i = 0; i < CHOICES; i++) {
		make_session(0, i, session);
		counts[choice(c, &f)]++;
	}
	for (int i = 0; i < 4; i++)
		assert_share(counts[i], CHOICES, expected[i], 0.002);
	config_put(c);
}

static void
test_hash_fields(void **state)
{
	(void)state;
	struct config *c = accept("{\"strategy\":{\"mode\":\"loadbalance\",\"sticky\":{\"hash_fields\":[\"metadata.user\"]}},\"targets\":[{},{},{},{}]}");
	struct config *plain = accept("{" LB ",\"targets\":[{},{},{},{}]}");
	struct world world = { .has_fields = true };
	struct route_facts f = facts_of(&world);
	uint64_t session[2];
	uint32_t differs = 0;

	f.session = session;
	for (uint64_t i = 0; i < 1000; i++) {
		make_session(3, i, session);
		make_session(3, i, world.fields);
		uint32_t by_fields = choice(c, &f), by_session = choice(plain, &f);

		assert_ptr_equal(world.sticky, &c->nodes[0].sticky);
		assert_non_null(world.sticky->hash_fields);
		world.has_fields = false;		/* nothing to go by: the session */
		assert_int_equal(choice(c, &f), by_session);
		world.has_fields = true;
		f.random[0] = random_u64();
		memcpy(session, f.random, sizeof(session));	/* another session of the same user */
		assert_int_equal(choice(c, &f), by_fields);
		differs += by_fields != by_session;
	}
	assert_true(differs > 600);
	config_put(c);
	config_put(plain);
}

static void
test_preferred(void **state)
{
	(void)state;
	struct config *c = accept("{" LB ",\"targets\":[{},{\"weight\":0},{" FB ",\"targets\":[{},{}]},{\"weight\":0.001}]}");
	struct world world = { .asked = 0 };
	struct route_facts f = facts_of(&world);
	uint64_t session[2];

	f.session = session;
	for (uint64_t i = 0; i < 1000; i++) {
		make_session(3, i, session);
		f.preferred = ROUTE_ANY;
		uint32_t free_choice = choice(c, &f);

		f.preferred = 2;		/* "weight": 0.001 */
		assert_int_equal(choice(c, &f), 2);
		set_out(&world, 2, true);
		if (free_choice != 2)
			assert_int_equal(choice(c, &f), free_choice);
		set_out(&world, 2, false);
		f.preferred = 1;		/* weight 0: never drawn, so never chosen */
		assert_int_equal(choice(c, &f), free_choice);
		f.preferred = 4;		/* second in a fallback, and asked first all the same */
		assert_int_equal(choice(c, &f), 4);
		set_out(&world, 4, true);	/* it cannot be asked, so nothing is gained by its neighbour */
		assert_int_equal(choice(c, &f), free_choice);
		set_out(&world, 4, false);
	}
	config_put(c);
	/* Up, but not on the way of this request: its conditional chooses another one. */
	c = accept("{" LB ",\"targets\":[{" COND(IS("team", "a", "x")) ",\"targets\":[" NAMED("x") "," NAMED("y") "]},{}]}");
	conditions.metadata = SLICE("{\"team\":\"a\"}");
	for (uint64_t i = 0; i < 100; i++) {
		make_session(3, i, session);
		f.preferred = ROUTE_ANY;
		uint32_t free_choice = choice(c, &f);
		f.preferred = 2;
		assert_int_equal(choice(c, &f), free_choice);
		f.preferred = 1;
		assert_int_equal(choice(c, &f), 1);
	}
	config_put(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_weights_by_chance),
		cmocka_unit_test(test_weights_by_session),
		cmocka_unit_test(test_ejection),
		cmocka_unit_test(test_weights_that_change),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_hash_fields),
		cmocka_unit_test(test_preferred),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
