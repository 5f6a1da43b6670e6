/*
 * Where a conversation goes on: nowhere special as long as it has nothing that only
 * one account understands; at its account if it has; and elsewhere without that,
 * in all further turns. A conversation that nobody remembers is a new one.
 */
#include "tests/unit/routing_fixture.h"

#include "policy/route.h"
#include "shm/places.h"

/* "a" and "twin" are of one account, so are the two that have a credential of their own. */
#define SETTINGS "{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\",\"account\":\"acme\"},{\"slug\":\"twin\",\"api_key\":\"k\",\"account\":\"acme\"}," \
	"{\"slug\":\"b\",\"api_key\":\"k\"}],\"configs\":[{\"slug\":\"pc\",\"config\":{\"strategy\":{\"mode\":\"fallback\"},\"targets\":[" \
	"{\"provider\":\"@a\"},{\"provider\":\"@twin\"},{\"provider\":\"@b\"},{\"provider\":\"@a\",\"api_key\":\"own\"},{\"provider\":\"@b\",\"api_key\":\"own\"}," \
	"{\"passthrough\":true}]}}]}"
enum { A, TWIN, B, OWN, OWN_TOO, ASKED };

#define BODY(messages) "{\"model\":\"m\",\"messages\":[" messages "],\"max_tokens\":9}"
#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define SAID(blocks) "{\"role\":\"assistant\",\"content\":[" blocks "]}"
#define THOUGHT "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"Eq==\"}"
#define TEXT(t) "{\"type\":\"text\",\"text\":\"" t "\"}"
#define PLAIN BODY(USER("hi") "," SAID(TEXT("x")) "," USER("more"))
#define FILE_IN BODY("{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"source\":{\"type\":\"file\",\"file_id\":\"f_1\"}}]}")

static struct routing world;
static unsigned sessions;
static char session[32];	/* of the test at hand */

static int
open_world(void **state)
{
	if (set_up(state) != 0)
		return -1;
	routing_open(&world, SETTINGS);
	return 0;
}

static int
close_world(void **state)
{
	routing_close(&world);
	return tear_down(state);
}

static int
new_session(void **state)
{
	(void)state;
	snprintf(session, sizeof(session), "session-%u", ++sessions);
	return 0;
}

static struct request *
begin(const char *body)
{
	struct request *r = routing_ask(&world, "pc", body, session);

	conversation_begin(r);
	return r;
}

/* A turn that this target answers: what it is sent. */
static void
turn(const char *body, uint32_t target, const char *sent)
{
	struct request *r = begin(body);

	routing_at(r, target, "m");
	assert_int_equal(conversation_enter(r), CONVERSATION_ENTERS);
	if (!slice_eq(r->at.asked->body, slice_of(sent)))
		fail_msg("%s\nbecomes %.*s\nnot     %s", body, SLICE_FMT(r->at.asked->body), sent);
	conversation_served(r);
	routing_forget(r);
}

/* Which target it must go to, if the config chooses that one; ROUTE_ANY: that one. */
static uint32_t
home(const char *body, uint32_t chosen)
{
	struct request *r = begin(body);
	uint32_t target = conversation_home(r, routing_target(r, chosen));

	routing_forget(r);
	return target;
}

#define THINKS(n) USER("q" n) "," SAID(THOUGHT "," TEXT("a" n))
#define THINKS_NOT(n) USER("q" n) "," SAID(TEXT("a" n))
#define ASKS(n) USER("q" n)

static void
a_new_one_is_where_it_is_sent_first(void **state)
{
	struct request *r = begin(BODY(THINKS("1") "," ASKS("2")));

	(void)state;
	assert_true(r->conversation.known);
	assert_false(r->conversation.placed);
	assert_int_equal(conversation_home(r, routing_target(r, B)), ROUTE_ANY);
	conversation_look(r);
	for (uint32_t i = A; i <= ASKED; i++)
		assert_true(conversation_fits(r, routing_target(r, i)));
	routing_at(r, B, "m");
	assert_int_equal(conversation_enter(r), CONVERSATION_ENTERS);
	assert_ptr_equal(r->at.asked, r->asked);	/* if anybody has it, it is this one */
	/* It has not answered yet, but its state is there now: elsewhere it goes without. */
	routing_at(r, A, "m");
	assert_int_equal(conversation_enter(r), CONVERSATION_ENTERS);
	assert_true(slice_eq(r->at.asked->body, SLICE(BODY(THINKS_NOT("1") "," ASKS("2")))));
	routing_forget(r);
	r = begin(PLAIN);	/* nobody has served it */
	assert_false(r->conversation.placed);
	routing_forget(r);
}

static void
without_state_it_goes_anywhere(void **state)
{
	(void)state;
	turn(PLAIN, A, PLAIN);
	for (uint32_t i = A; i <= ASKED; i++)
		assert_int_equal(home(PLAIN, i), ROUTE_ANY);
	turn(PLAIN, B, PLAIN);
}

static void
with_state_it_goes_home(void **state)
{
	static const char *const bodies[] = {
		BODY(THINKS("1") "," ASKS("2")), FILE_IN, "{\"model\":\"m\",\"container\":\"c_1\",\"messages\":[]}",
		"{\"model\":\"m\",\"fallback_credit_token\":\"t\",\"messages\":[]}", "{\"model\":\"m\",\"diagnostics\":{\"previous_message_id\":\"msg_1\"},\"messages\":[]}",
	};

	for (size_t i = 0; i < sizeof(bodies) / sizeof(*bodies); i++) {
		new_session(state);
		turn(PLAIN, TWIN, PLAIN);
		/* The first target of its account; none is better than one of that account. */
		assert_int_equal(home(bodies[i], A), ROUTE_ANY);
		assert_int_equal(home(bodies[i], TWIN), ROUTE_ANY);
		assert_int_equal(home(bodies[i], B), A);
		assert_int_equal(home(bodies[i], OWN), A);
		assert_int_equal(home(bodies[i], ASKED), ROUTE_ANY);	/* where that is, the request says */
	}
}

static void
a_credential_is_an_account(void **state)
{
	const char *thinks = BODY(THINKS("1") "," ASKS("2"));

	(void)state;
	turn(thinks, OWN_TOO, thinks);
	assert_int_equal(home(thinks, OWN), ROUTE_ANY);	/* the same one */
	assert_int_equal(home(thinks, A), OWN);
	assert_int_equal(home(thinks, B), OWN);
}

static void
what_is_left_behind_stays_left_behind(void **state)
{
	(void)state;
	turn(BODY(ASKS("1")), A, BODY(ASKS("1")));
	turn(BODY(THINKS("1") "," ASKS("2")), A, BODY(THINKS("1") "," ASKS("2")));
	/* It moves, with three messages. */
	turn(BODY(THINKS("1") "," ASKS("2")), B, BODY(THINKS_NOT("1") "," ASKS("2")));
	/* The client sends on what "a" thought, and then what "b" has. */
	turn(BODY(THINKS("1") "," THINKS("2") "," ASKS("3")), B, BODY(THINKS_NOT("1") "," THINKS("2") "," ASKS("3")));
	assert_int_equal(home(BODY(THINKS("1") "," THINKS("2") "," ASKS("3")), A), B);
	turn(BODY(THINKS("1") "," THINKS("2") "," THINKS("3") "," ASKS("4")), B, BODY(THINKS_NOT("1") "," THINKS("2") "," THINKS("3") "," ASKS("4")));
	/* Back at "a": nobody knows any more which thoughts were its own. */
	turn(BODY(THINKS("1") "," THINKS("2") "," ASKS("3")), TWIN, BODY(THINKS_NOT("1") "," THINKS_NOT("2") "," ASKS("3")));
	turn(BODY(THINKS("1") "," THINKS("2") "," THINKS("3") "," ASKS("4")), A, BODY(THINKS_NOT("1") "," THINKS_NOT("2") "," THINKS("3") "," ASKS("4")));
}

static void
one_that_moved_without_thoughts_has_all_its_own(void **state)
{
	(void)state;
	turn(PLAIN, A, PLAIN);
	turn(PLAIN, B, PLAIN);
	turn(BODY(THINKS("1") "," ASKS("2")), B, BODY(THINKS("1") "," ASKS("2")));
}

static void
a_move_that_fails_moves_nothing(void **state)
{
	const char *thinks = BODY(THINKS("1") "," ASKS("2"));

	(void)state;
	turn(thinks, A, thinks);
	struct request *r = begin(thinks);
	routing_at(r, B, "m");
	assert_int_equal(conversation_enter(r), CONVERSATION_ENTERS);
	routing_forget(r);		/* which does not answer */
	assert_int_equal(home(thinks, B), A);
	turn(thinks, A, thinks);
}

static void
what_cannot_be_left_behind_binds(void **state)
{
	struct buf words;

	(void)state;
	turn(PLAIN, A, PLAIN);
	struct request *r = begin(FILE_IN);
	for (uint32_t i = A; i <= ASKED; i++)	/* nobody has looked */
		assert_true(conversation_fits(r, routing_target(r, i)));
	conversation_look(r);
	for (uint32_t i = A; i <= ASKED; i++)
		assert_int_equal(conversation_fits(r, routing_target(r, i)), i == A || i == TWIN || i == ASKED);
	buf_init(&words, 1024);
	conversation_reason(r, &words);
	assert_true(slice_eq(buf_slice(&words), SLICE("the conversation has an uploaded file, which only the account understands that it came from")));
	buf_free(&words);
	routing_forget(r);
	/* Thinking binds nobody. */
	r = begin(BODY(THINKS("1") "," ASKS("2")));
	conversation_look(r);
	assert_true(conversation_fits(r, routing_target(r, B)));
	routing_forget(r);
}

/* As many messages as a place can count, and more: of what came before, all goes. */
static void
very_long_ones_lose_all_thoughts(void **state)
{
	enum { MESSAGES = 5000 };
	struct buf thinks, thinks_not, later, later_not;
	struct buf *const all[] = { &thinks, &thinks_not, &later, &later_not };

	(void)state;
	for (size_t k = 0; k < 4; k++) {
		buf_init(all[k], 4 << 20);
		buf_add_str(all[k], "{\"model\":\"m\",\"messages\":[");
		for (int i = 0; i < MESSAGES; i++)
			buf_add_str(all[k], k % 2 ? SAID(TEXT("x")) "," : SAID(THOUGHT "," TEXT("x")) ",");
		buf_add_str(all[k], k < 2 ? USER("q") "]}" : k == 2 ? USER("q") "," SAID(THOUGHT "," TEXT("y")) "," USER("q") "]}"
		    : USER("q") "," SAID(TEXT("y")) "," USER("q") "]}");
		buf_add_char(all[k], '\0');
	}
	turn(thinks.p, A, thinks.p);
	turn(thinks.p, B, thinks_not.p);
	turn(later.p, B, later_not.p);
	for (size_t k = 0; k < 4; k++)
		buf_free(all[k]);
}

/* ---- who it is ---- */

static void
a_session_is_its_keys_own(void **state)
{
	const char *thinks = BODY(THINKS("1") "," ASKS("2"));
	struct request *r;

	(void)state;
	turn(thinks, A, thinks);
	r = routing_ask(&world, "pc", thinks, session);
	r->rec.key_id = SLICE("key_2");
	conversation_begin(r);
	assert_true(r->conversation.known);
	assert_false(r->conversation.placed);
	routing_forget(r);
}

static void
without_a_header_it_is_known_by_its_beginning(void **state)
{
	const char *thinks = BODY(USER("only here") "," SAID(THOUGHT "," TEXT("a")) "," ASKS("2"));

	(void)state;
	for (int again = 0; again < 2; again++) {
		struct request *r = routing_ask(&world, "pc", thinks, NULL);

		conversation_begin(r);
		assert_int_equal(r->conversation.placed, again);
		routing_at(r, A, "m");
		assert_int_equal(conversation_enter(r), CONVERSATION_ENTERS);
		conversation_served(r);
		routing_forget(r);
	}
}

static void
who_cannot_be_known_is_nowhere(void **state)
{
	uint32_t account;

	(void)state;
	for (int again = 0; again < 2; again++) {
		struct request *r = routing_ask(&world, "pc", "{\"model\":\"m\"}", NULL);

		conversation_begin(r);
		assert_false(r->conversation.known);
		assert_false(r->conversation.placed);
		routing_at(r, B, "m");
		assert_int_equal(conversation_enter(r), CONVERSATION_ENTERS);
		conversation_served(r);
		assert_false(places_get(world.worker.arena, (struct key128){ r->conversation.session[0], r->conversation.session[1] }, NS_PER_S,
		    clock_mono_ns(), &account));
		routing_forget(r);
	}
}

static void
counting_moves_nothing(void **state)
{
	const char *thinks = BODY(THINKS("1") "," ASKS("2"));
	struct request *r;

	(void)state;
	turn(thinks, A, thinks);
	r = begin(thinks);
	r->route = ROUTE_COUNT_TOKENS;
	routing_at(r, B, "m");
	assert_int_equal(conversation_enter(r), CONVERSATION_ENTERS);
	conversation_served(r);
	routing_forget(r);
	assert_int_equal(home(thinks, B), A);
}

/* ---- the table ---- */

static void
one_of_last_week_is_new(void **state)
{
	const char *thinks = BODY(THINKS("1") "," ASKS("2"));

	(void)state;
	turn(thinks, A, thinks);
	for (int days = 6; days <= 8; days += 2) {
		struct request *r = routing_ask(&world, "pc", thinks, session);

		r->start_mono_ns += days * 24 * 3600 * NS_PER_S;
		conversation_begin(r);
		assert_int_equal(r->conversation.placed, days == 6);
		routing_forget(r);
	}
}

static void
one_that_is_pushed_out_of_the_table_is_new(void **state)
{
	const char *thinks = BODY(THINKS("1") "," ASKS("2"));
	struct request *r;

	(void)state;
	turn(thinks, A, thinks);
	r = begin(thinks);
	assert_true(r->conversation.placed);
	/* As many others of its set as there is room for, all told later. */
	for (uint64_t i = 1; i <= PLACES_WAYS; i++)
		places_put(world.worker.arena, (struct key128){ r->conversation.session[0] ^ i << 40, r->conversation.session[1] }, 7, r->start_mono_ns + 10 * NS_PER_S);
	routing_forget(r);
	r = begin(thinks);
	assert_true(r->conversation.known);
	assert_false(r->conversation.placed);
	assert_int_equal(conversation_home(r, routing_target(r, B)), ROUTE_ANY);
	routing_at(r, B, "m");
	assert_int_equal(conversation_enter(r), CONVERSATION_ENTERS);
	assert_ptr_equal(r->at.asked, r->asked);	/* it may be its own: it goes as it is */
	routing_forget(r);
}

static void
without_memory_it_says_so(void **state)
{
	struct request *r;

	(void)state;
	turn(PLAIN, A, PLAIN);
	r = begin(BODY(THINKS("1") "," ASKS("2")));
	routing_at(r, B, "m");
	scratch_init(&r->target_mem, 16);
	assert_int_equal(conversation_enter(r), CONVERSATION_NO_MEMORY);
	routing_forget(r);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, new_session)
	const struct CMUnitTest tests[] = {
		TEST(a_new_one_is_where_it_is_sent_first), TEST(without_state_it_goes_anywhere), TEST(with_state_it_goes_home),
		TEST(a_credential_is_an_account), TEST(what_is_left_behind_stays_left_behind), TEST(one_that_moved_without_thoughts_has_all_its_own),
		TEST(a_move_that_fails_moves_nothing), TEST(what_cannot_be_left_behind_binds), TEST(very_long_ones_lose_all_thoughts),
		TEST(a_session_is_its_keys_own), TEST(without_a_header_it_is_known_by_its_beginning), TEST(who_cannot_be_known_is_nowhere),
		TEST(counting_moves_nothing), TEST(one_of_last_week_is_new), TEST(one_that_is_pushed_out_of_the_table_is_new),
		TEST(without_memory_it_says_so),
	};

	return cmocka_run_group_tests(tests, open_world, close_world);
}
