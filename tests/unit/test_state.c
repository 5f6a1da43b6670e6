/*
 * State of an account in a request: what is found and not taken for it, and the
 * same request without it, byte by byte. Random ones are compared with edited
 * trees in tests/oracle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/state.h"
#include "shm/base/scratch.h"

static struct scratch memory = { .max = 1 << 20 };
static struct body_scan body;

static int
free_all(void **state)
{
	(void)state;
	scratch_reset(&memory);
	return 0;
}

static struct state
found(const char *text)
{
	struct json_error why;

	if (!body_scan(slice_of(text), &body, &why))
		fail_msg("%s at %zu: %s", why.what, why.offset, text);
	return state_find(&body);
}

static void
becomes(const char *text, const char *wanted)
{
	struct state s = found(text);
	struct slice out;

	assert_true(state_strip(&body, &s, STATE_ALL, &memory, &out));
	if (!slice_eq(out, slice_of(wanted)))
		fail_msg("%s\nbecomes %.*s\nnot     %s", text, SLICE_FMT(out), wanted);
	assert_true((out.p == text) == (strcmp(text, wanted) == 0));
	assert_int_equal(state_can_drop(found(wanted).kinds), 0);
}

#define BODY(messages) "{\"model\":\"m\",\"messages\":[" messages "],\"max_tokens\":9}"
#define USER(content) "{\"role\":\"user\",\"content\":" content "}"
#define SAID(content) "{\"role\":\"assistant\",\"content\":" content "}"
#define THOUGHT "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"Eq==\"}"
#define REDACTED "{\"type\":\"redacted_thinking\",\"data\":\"Em==\"}"
#define TEXT(t) "{\"type\":\"text\",\"text\":\"" t "\"}"
#define CALL "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"Read\",\"input\":{\"file_id\":\"f\",\"a\":[{\"encrypted_content\":\"x\",\"type\":\"thinking\"}]}}"
#define RESULT "{\"type\":\"tool_result\",\"tool_use_id\":\"t1\",\"content\":\"ok\"}"

static void
each_kind_is_found(void **state)
{
	static const struct { const char *text; uint32_t kinds; } cases[] = {
		{ "{}", 0 }, { BODY(USER("\"thinking file_id\"")), 0 }, { "{\"messages\":7}", 0 }, { BODY("7,[],{},\"x\",{\"content\":[7,[],null]}"), 0 },
		{ BODY(SAID("[" THOUGHT "]")), STATE_THINKING }, { BODY(SAID("[" REDACTED "]")), STATE_THINKING },
		{ BODY("{\"content\":[" THOUGHT "],\"role\":\"assistant\"}"), STATE_THINKING },
		{ BODY("{\"rol\\u0065\":\"assistant\",\"content\":[{\"signature\":\"x\",\"t\\u0079pe\":\"thin\\u006bing\"}]}"), STATE_THINKING },
		{ BODY(SAID("[{\"file_id\":\"f\",\"type\":\"thinking\",\"x\":{\"encrypted_index\":\"y\"}}]")), STATE_THINKING },
		{ BODY(USER("[{\"file_id\":\"f\",\"type\":\"thinking\"}]")), STATE_FILE },
		{ BODY(USER("[" THOUGHT "]")), 0 }, { BODY("{\"content\":[" THOUGHT "],\"role\":\"user\"}"), 0 }, { BODY("{\"content\":[" THOUGHT "]}"), 0 },
		{ BODY(SAID("[" TEXT("thinking") "," CALL "]")), 0 }, { BODY(SAID("{\"type\":\"thinking\"}")), 0 },
		{ BODY(SAID("[{\"type\":\"x\",\"y\":{\"type\":\"thinking\"}}]")), 0 },
		{ "{\"container\":\"c_1\"}", STATE_CONTAINER }, { "{\"container\":{\"id\":\"c_1\",\"skills\":[]}}", STATE_CONTAINER },
		{ "{\"container\":null}", 0 }, { "{\"container\":\"\"}", 0 }, { "{\"container\":{\"skills\":[{\"type\":\"anthropic\",\"skill_id\":\"pdf\"}]}}", 0 },
		{ "{\"container\":{\"id\":null}}", 0 },
		{ BODY(USER("[{\"type\":\"document\",\"source\":{\"type\":\"file\",\"file_id\":\"f_1\"}}]")), STATE_FILE },
		{ BODY(USER("[{\"type\":\"container_upload\",\"file_id\":\"f_1\"}]")), STATE_FILE },
		{ BODY(USER("[{\"type\":\"tool_result\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_id\":\"f\"}}]}]")), STATE_FILE },
		{ BODY(SAID("[{\"type\":\"text\",\"text\":\"x\",\"citations\":[{\"file_id\":null}]}]")), 0 },
		{ "{\"tools\":[{\"input_schema\":{\"properties\":{\"file_id\":{\"type\":\"string\"}},\"file_id\":\"x\"}}],\"file_id\":\"x\"}", 0 },
		{ "{\"thread\":{\"type\":\"continue\",\"previous_message_id\":\"msg_1\"}}", STATE_THREAD }, { "{\"thread\":{\"type\":\"create\"}}", 0 },
		{ "{\"diagnostics\":{\"previous_message_id\":\"msg_1\"}}", STATE_DIAGNOSTICS }, { "{\"diagnostics\":{\"previous_message_id\":null}}", 0 },
		{ "{\"fallback_credit_token\":\"t\"}", STATE_CREDIT }, { "{\"fallback_credit_token\":{\"token\":\"t\",\"mode\":\"x\"}}", STATE_CREDIT },
		{ "{\"fallback_credit_token\":null}", 0 },
		{ BODY(SAID("[{\"type\":\"web_search_tool_result\",\"content\":[{\"encrypted_content\":\"x\"}]}]")), STATE_ENCRYPTED },
		{ BODY(SAID("[{\"type\":\"text\",\"citations\":[{\"encrypted_index\":\"x\"}]}]")), STATE_ENCRYPTED },
		{ BODY(SAID("[{\"type\":\"code_execution_tool_result\",\"content\":{\"encrypted_stdout\":\"x\"}}]")), STATE_ENCRYPTED },
		{ BODY(SAID("[{\"type\":\"compaction\",\"content\":null}]")), STATE_ENCRYPTED },
		{ BODY(SAID("[" CALL "," TEXT("x") "," THOUGHT "]") "," USER("[" RESULT ",{\"type\":\"container_upload\",\"file_id\":\"f\"}]")),
		    STATE_THINKING | STATE_FILE },
		{ BODY("{\"role\":\"assistant\",\"other\":[" THOUGHT "],\"content\":\"x\"}"), 0 },
		{ BODY("{\"role\":\"assistant\",\"content\":[],\"other\":[" THOUGHT ",{\"file_id\":\"f\"}]}"), 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (found(cases[i].text).kinds != cases[i].kinds)
			fail_msg("%x: %s", found(cases[i].text).kinds, cases[i].text);
}

static void
a_turn_that_goes_on_is_seen(void **state)
{
	static const struct { const char *text; bool goes_on; } cases[] = {
		{ BODY(USER("\"hi\"")), false }, { BODY(USER("[" RESULT "]")), true }, { BODY(USER("\"hi\"") "," SAID("\"x\"")), true },
		{ BODY(SAID("[" CALL "]") "," USER("[" RESULT "]")), true }, { BODY(SAID("[" CALL "]") "," USER("\"no\"")), false },
		{ BODY(SAID("[" CALL "]") "," USER("[" RESULT "]") "," SAID("\"done\"") "," USER("\"more\"")), false },
		{ BODY(SAID("[" CALL "]") "," USER("[" RESULT "]") "," "{\"role\":\"system\",\"content\":\"now\"}"), true },
		{ BODY(SAID("[" CALL "]") "," "{\"role\":\"system\",\"content\":\"now\"}" "," USER("[" TEXT("a") "," RESULT "]") "," USER("\"b\"")), true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (found(cases[i].text).in_turn != cases[i].goes_on)
			fail_msg("%s", cases[i].text);
}

static void
thinking_goes_block_by_block(void **state)
{
	(void)state;
	becomes(BODY(USER("\"hi\"")), BODY(USER("\"hi\"")));
	becomes(BODY(SAID("[" THOUGHT ", " TEXT("a") " ," CALL "]")), BODY(SAID("[" TEXT("a") " ," CALL "]")));
	becomes(BODY(SAID("[" TEXT("a") " , " THOUGHT " ," REDACTED "," CALL "]")), BODY(SAID("[" TEXT("a") "," CALL "]")));
	becomes(BODY(SAID("[" THOUGHT "," REDACTED "," TEXT("a") "," THOUGHT "]")), BODY(SAID("[" TEXT("a") "]")));
	becomes(BODY(SAID("[7," THOUGHT "]")), BODY(SAID("[7]")));
	becomes(BODY(USER("[" THOUGHT "," TEXT("a") "]") "," SAID("[]")), BODY(USER("[" THOUGHT "," TEXT("a") "]") "," SAID("[]")));
}

static void
a_turn_of_nothing_but_thinking_goes(void **state)
{
	(void)state;
	becomes(BODY(USER("\"a\"") " , " SAID("[" THOUGHT "," REDACTED "]") " ," USER("\"b\"")), BODY(USER("\"a\"") " ," USER("\"b\"")));
	becomes(BODY(SAID("[" THOUGHT "]") ", " USER("\"b\"")), BODY(USER("\"b\"")));
	becomes(BODY(USER("\"a\"") "," SAID("[" THOUGHT "," REDACTED "," THOUGHT "]")), BODY(USER("\"a\"")));
	becomes(BODY(SAID("[" THOUGHT "]") "," "{\"content\":[" REDACTED "," THOUGHT "],\"role\":\"assistant\"}"), BODY(""));
	becomes(BODY(SAID("[" THOUGHT "]") "," SAID("[" THOUGHT "," TEXT("a") "]") "," SAID("[" THOUGHT "]") "," SAID("[" TEXT("b") "," THOUGHT "]")),
	    BODY(SAID("[" TEXT("a") "]") "," SAID("[" TEXT("b") "]")));
}

static void
the_other_members_go(void **state)
{
	(void)state;
	becomes("{\"fallback_credit_token\":\"t\",\"a\":1 , \"diagnostics\":{\"previous_message_id\":\"m\"}}", "{\"a\":1}");
	becomes("{\"a\":1,\"diagnostics\":{\"previous_message_id\":null}}", "{\"a\":1,\"diagnostics\":{\"previous_message_id\":null}}");
	becomes("{\"container\":\"c\",\"fallback_cred\\u0069t_token\":{\"token\":\"t\"},\"thread\":{\"previous_message_id\":\"m\"}}",
	    "{\"container\":\"c\",\"thread\":{\"previous_message_id\":\"m\"}}");
	becomes("{ \"fallback_credit_token\":\"t\" }", "{  }");
}

/* As Claude Code sends it, with the old form of thinking. */
#define CLAUDE_CODE(thinking, first, last, edits) "{\"model\":\"claude-opus-4-5\",\"messages\":[" USER("[" TEXT("Fix it.") "]") ",\n" \
	SAID("[" first TEXT("I read it.") "," CALL "]") "," USER("[" RESULT "]") last "],\"system\":[" TEXT("x-anthropic-billing-header: cch=1;") "]," \
	"\"max_tokens\":32000,\"thinking\":" thinking ",\"context_management\":{\"edits\":[" edits "]},\"stream\":true}"
#define ENABLED "{\"type\":\"enabled\",\"budget_tokens\":31999}"
#define CLEAR "{\"type\":\"clear_thinking_20251015\",\"keep\":\"all\"}"
#define TOOLS "{\"type\":\"clear_tool_uses_20250919\"}"

static void
thinking_is_disabled_where_a_turn_goes_on(void **state)
{
	(void)state;
	becomes(CLAUDE_CODE(ENABLED, THOUGHT ",", "", CLEAR), CLAUDE_CODE("{\"type\":\"disabled\"}", "", "", ""));
	becomes(CLAUDE_CODE(ENABLED, THOUGHT ",", "", TOOLS ", " CLEAR), CLAUDE_CODE("{\"type\":\"disabled\"}", "", "", TOOLS));
	becomes(CLAUDE_CODE(ENABLED, THOUGHT ",", "", CLEAR ", " TOOLS), CLAUDE_CODE("{\"type\":\"disabled\"}", "", "", TOOLS));
	becomes(CLAUDE_CODE("{\"budget_tokens\":31999,\"type\":\"enabled\"}", THOUGHT ",", "," SAID("[" THOUGHT "," CALL "]"), CLEAR),
	    CLAUDE_CODE("{\"type\":\"disabled\"}", "", "," SAID("[" CALL "]"), ""));
	/* Not by other forms, nor when the turn is over, nor for nothing. */
	becomes(CLAUDE_CODE("{\"type\":\"adaptive\"}", THOUGHT ",", "", CLEAR), CLAUDE_CODE("{\"type\":\"adaptive\"}", "", "", CLEAR));
	becomes(CLAUDE_CODE(ENABLED, THOUGHT ",", "," SAID("\"Done.\"") "," USER("\"Good.\""), CLEAR),
	    CLAUDE_CODE(ENABLED, "", "," SAID("\"Done.\"") "," USER("\"Good.\""), CLEAR));
	becomes(CLAUDE_CODE(ENABLED, "", "", CLEAR), CLAUDE_CODE(ENABLED, "", "", CLEAR));
}

/* Thinking of the messages before one is another account's, the rest is this one's. */
static void
becomes_before(uint32_t before, const char *text, const char *wanted)
{
	struct state s = found(text);
	struct slice out;

	assert_true(state_strip(&body, &s, before, &memory, &out));
	if (!slice_eq(out, slice_of(wanted)))
		fail_msg("before %u: %s\nbecomes %.*s\nnot     %s", before, text, SLICE_FMT(out), wanted);
	assert_true((out.p == text) == (strcmp(text, wanted) == 0));
}

static void
what_was_thought_here_stays(void **state)
{
	const char *both = BODY(USER("\"a\"") "," SAID("[" THOUGHT "," TEXT("b") "]") "," USER("\"c\"") "," SAID("[" THOUGHT "," TEXT("d") "]") ","
	    USER("\"e\""));
	const char *later = BODY(USER("\"a\"") "," SAID("[" TEXT("b") "]") "," USER("\"c\"") "," SAID("[" THOUGHT "," TEXT("d") "]") ","
	    USER("\"e\""));

	(void)state;
	assert_int_equal(found(both).messages, 5);
	becomes_before(0, both, both);
	becomes_before(1, both, both);
	becomes_before(2, both, later);
	becomes_before(3, both, later);
	becomes_before(4, both, BODY(USER("\"a\"") "," SAID("[" TEXT("b") "]") "," USER("\"c\"") "," SAID("[" TEXT("d") "]") "," USER("\"e\"")));
	/* The others are about the message before: that is this account's own. */
	becomes_before(1, "{\"messages\":[],\"fallback_credit_token\":\"t\"}", "{\"messages\":[],\"fallback_credit_token\":\"t\"}");
	/* Thinking is disabled only if the turn that goes on has lost its own. */
	assert_int_equal(found(CLAUDE_CODE(ENABLED, THOUGHT ",", "," SAID("[" THOUGHT "," CALL "]") "," USER("[" RESULT "]"), CLEAR)).last_turn, 3);
	becomes_before(3, CLAUDE_CODE(ENABLED, THOUGHT ",", "," SAID("[" THOUGHT "," CALL "]") "," USER("[" RESULT "]"), CLEAR),
	    CLAUDE_CODE(ENABLED, "", "," SAID("[" THOUGHT "," CALL "]") "," USER("[" RESULT "]"), CLEAR));
	becomes_before(3, CLAUDE_CODE(ENABLED, THOUGHT ",", "," SAID("[" CALL "]") "," USER("[" RESULT "]"), CLEAR),
	    CLAUDE_CODE("{\"type\":\"disabled\"}", "", "," SAID("[" CALL "]") "," USER("[" RESULT "]"), ""));
	becomes_before(4, CLAUDE_CODE(ENABLED, THOUGHT ",", "," SAID("[" THOUGHT "," CALL "]") "," USER("[" RESULT "]"), CLEAR),
	    CLAUDE_CODE("{\"type\":\"disabled\"}", "", "," SAID("[" CALL "]") "," USER("[" RESULT "]"), ""));
}

static void
words_and_bounds(void **state)
{
	char words[STATE_WORDS_BYTES];
	struct scratch small = { .max = 16 };
	struct state s = found(BODY(SAID("[" THOUGHT "]")));
	struct slice out;

	(void)state;
	assert_false(state_strip(&body, &s, STATE_ALL, &small, &out));
	assert_int_equal(state_can_drop(127), STATE_THINKING | STATE_CREDIT | STATE_DIAGNOSTICS);
	state_describe(0, words);
	assert_string_equal(words, "");
	state_describe(STATE_FILE | STATE_ENCRYPTED, words);
	assert_string_equal(words, "an uploaded file, encrypted results");
	state_describe(UINT32_MAX, words);
	assert_string_equal(words, "signed thinking, a container, an uploaded file, a thread that the provider keeps, encrypted results, "
	    "a fallback credit, the id of an earlier message for diagnosis");
	/* What was not found is not looked for. */
	s.kinds = STATE_CREDIT;
	assert_true(state_strip(&body, &s, STATE_ALL, &memory, &out));
	assert_ptr_equal(out.p, body.body.p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_is_found), cmocka_unit_test(a_turn_that_goes_on_is_seen), cmocka_unit_test(thinking_goes_block_by_block),
		cmocka_unit_test(a_turn_of_nothing_but_thinking_goes), cmocka_unit_test(the_other_members_go),
		cmocka_unit_test(thinking_is_disabled_where_a_turn_goes_on), cmocka_unit_test(what_was_thought_here_stays),
		cmocka_unit_test(words_and_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, free_all);
}
