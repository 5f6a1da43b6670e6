/*
 * Patterns: what is matched, what is refused and where, and that a match ends in
 * time and without memory. That all this is JavaScript's is the business of
 * tests/oracle, which asks RegExp itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/regex.h"

static struct regex *
compiled(const char *pattern)
{
	struct regex_error why;
	struct regex *r = regex_compile(slice_of(pattern), &why);

	if (!r)
		fail_msg("%s: %s at %zu", pattern, why.what, why.offset);
	return r;
}

static enum regex_verdict
match(const char *pattern, struct slice subject)
{
	struct regex *r = compiled(pattern);
	enum regex_verdict v = regex_match(r, subject);

	regex_free(r);
	return v;
}

static void
patterns_match_as_in_javascript(void **state)
{
	static const struct { const char *pattern, *subject; bool matches; } cases[] = {
		{ "", "", true }, { "", "x", true }, { "opus", "claude-opus-5-5", true }, { "opus", "claude-Opus", false },
		{ "^claude-", "claude-opus", true }, { "^claude-", "x claude-opus", false }, { "opus$", "claude-opus", true },
		{ "opus$", "claude-opus-5", false }, { "opus$", "opus\n", false }, { "^a$", "a", true }, { "^a$", "aa", false },
		{ "^aa$", "a", false }, { "^$", "", true }, { "^$", "a", false }, { "^aba$", "aba", true }, { "^ab\\$$", "ab$", true },
		{ "claude-(opus|sonnet)-[45]", "claude-sonnet-4-5", true }, { "^(opus|sonnet)$", "sonnets", false },
		{ "a.c", "abc", true }, { "a.c", "a\nc", false }, { "a.c", "a\xe2\x80\xa8""c", false }, { "a\\sc", "a\xc2\xa0""c", true },
		{ "a[\\S]c", "a\xc2\xa0""c", false }, { "^.$", "\xc3\xa4", true }, { "\\w", "\xc3\xa4", false }, { "\\d", "\xd9\xa1", false },
		{ "\xc3\xa4+$", "\xc3\xa4\xc3\xa4", true }, { "[\xc3\xa0-\xc3\xbc]", "\xc3\xa4", true }, { "\\u00e4", "\xc3\xa4", true },
		{ "\\ud83d\\ude00", "\xf0\x9f\x98\x80", true }, { "\\x41\\102", "AB", true }, { "\\p{L}", "p{L}", true },
		{ "a{,2}", "a{,2}", true }, { "a{,2}", "aa", false }, { "a{ 2}", "aa", false }, { "x{2}", "xx", true },
		{ "[[:alpha:]]", ":]", true }, { "[[:alpha:]]", "b", false }, { "\\Qa", "Qa", true }, { "\\Aa", "Aa", true },
		{ "[^]", "\n", true }, { "[]", "a", false }, { "a[]*b", "ab", true }, { "\\v", "\n", false }, { "[\\w-]+$", "a-b", true },
		{ "(a)\\1", "aa", true }, { "(a)|\\1b", "b", true }, { "(?<x>a)\\k<x>", "aa", true }, { "\\k<x>", "k<x>", true },
		{ "\\5", "\x05", true }, { "(?<=a)b", "ab", true }, { "(?<!a)b", "ab", false }, { "a(?!b)", "ab", false },
		{ "^(?:a|b)+?c", "abac", true }, { "\\$\\{", "${", true }, { "]", "]", true }, { "a|", "x", true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (match(cases[i].pattern, slice_of(cases[i].subject)) != (cases[i].matches ? REGEX_YES : REGEX_NO))
			fail_msg("/%s/ on \"%s\"", cases[i].pattern, cases[i].subject);
	assert_int_equal(match("a\\0b", SLICE("a\0b")), REGEX_YES);
}

static void
what_javascript_does_not_know_is_refused(void **state)
{
	static const struct { const char *pattern; size_t offset; const char *what; } cases[] = {
		{ "(?i)opus", 0, "JavaScript knows no such group, nor flags inside of a pattern" },
		{ "ab(?>c)", 2, "JavaScript knows no such group, nor flags inside of a pattern" },
		{ "(?R)", 0, "JavaScript knows no such group, nor flags inside of a pattern" },
		{ "x(*ACCEPT)", 2, "nothing to repeat" }, { "a++", 2, "nothing to repeat" }, { "*a", 0, "nothing to repeat" },
		{ "a|+", 2, "nothing to repeat" }, { "^*", 1, "nothing to repeat" }, { "\\b+", 2, "nothing to repeat" },
		{ "(?<=a)*", 6, "nothing to repeat" }, { "{2}", 0, "nothing to repeat" },
		{ "a(b", 3, "a '(' without its ')'" }, { "ab)", 2, "a ')' without its '('" }, { "ab[c", 2, "a class without its ']'" },
		{ "[b-a]", 0, "range out of order in character class" }, { "abc\\", 4, "the pattern ends with a backslash" },
		{ "[a\\", 3, "the pattern ends in a class" },
		{ "a{3,2}", 1, "the numbers of a quantifier are out of order" }, { "a{70000}", 1, "a quantifier of more than 65535" },
		{ "\\ud83d", 0, "half of a surrogate pair: no text has one" },
		{ "(?<x>a)(?<x>b)", 10, "two groups have this name" }, { "(?<1>a)", 3, "invalid name of a group" },
		{ "(?<x", 3, "a group needs a name and '>'" }, { "(?<", 3, "a group needs a name and '>'" },
		{ "(?<x>a)\\k<y>", 8, "\\k wants <name>, of a group that there is" }, { "(?<x>[\\k])", 7, "\\k in a class" },
		{ "(?:a{1,50}){1,5000}", 11, "too large: repeated groups are written out" },
		{ "ab\xff", 2, "UTF-8 error: illegal byte (0xfe or 0xff)" },
	};
	struct regex_error why;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		if (regex_compile(slice_of(cases[i].pattern), &why))
			fail_msg("taken: %s", cases[i].pattern);
		if (why.offset != cases[i].offset || strcmp(why.what, cases[i].what) != 0)
			fail_msg("%s: %s at %zu", cases[i].pattern, why.what, why.offset);
	}
}

static void
patterns_are_bounded(void **state)
{
	char pattern[REGEX_PATTERN_BYTES_MAX + 2];
	struct regex_error why;
	struct regex *r;

	(void)state;
	memset(pattern, 'a', sizeof(pattern));
	r = regex_compile((struct slice){ pattern, REGEX_PATTERN_BYTES_MAX }, &why);
	assert_non_null(r);
	regex_free(r);
	assert_null(regex_compile((struct slice){ pattern, REGEX_PATTERN_BYTES_MAX + 1 }, &why));
	assert_string_equal(why.what, "longer than 1024 bytes");
	/* The one that becomes the longest. */
	for (size_t i = 0; i < REGEX_PATTERN_BYTES_MAX; i++)
		pattern[i] = "\\S"[i % 2];
	pattern[0] = '[';
	pattern[REGEX_PATTERN_BYTES_MAX - 2] = ']';
	pattern[1] = pattern[REGEX_PATTERN_BYTES_MAX - 1] = '.';
	r = regex_compile((struct slice){ pattern, REGEX_PATTERN_BYTES_MAX }, &why);
	assert_non_null(r);
	regex_free(r);
	memset(pattern, '(', sizeof(pattern));
	assert_null(regex_compile((struct slice){ pattern, 100 }, &why));
	assert_string_equal(why.what, "too many groups in one another");
	regex_free(NULL);
}

/* The same, whatever makes the match long: it explodes, it reads the rest of
 * the subject from each byte, or nobody sees what it compares. */
static void
a_costly_match_is_given_up(void **state)
{
	static const char *const patterns[] = {
		"(?:a+)+[yz]", "(a*)*[yz]", "(?:a|a)*[yz]", "(?:a|aa)+[yz]", ".*.*.*.*[yz]", "a*[yz]", "(a*)\\1\\1\\1[yz]",
		"(?=(a+))\\1*[yz]", "(?:(?=a*)|(?=a*a)|(?=a*aa))x?[yz]", "(?:a?){50}a{50}[yz]", "a{500,}[yz]", "((a*)*)*\\1[yz]",
		"(?:a*?)*?[yz]", "[^yz]*[yz]", "(?:|a)*?[yz]",
	};
	static char subject[REGEX_SUBJECT_BYTES_MAX + 1];

	(void)state;
	memset(subject, 'a', sizeof(subject));
	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++) {
		if (match(patterns[i], (struct slice){ subject, 4000 }) != REGEX_GAVE_UP)
			fail_msg("/%s/ is not given up", patterns[i]);
		if (match(patterns[i], SLICE("aaz")) != REGEX_YES)	/* its end; the engine is as before */
			assert_true(strstr(patterns[i], "50"));
	}
	/* A repeat that fails at its last character has moved nowhere. */
	for (size_t i = 60; i < 4000; i += 60)
		subject[i] = 'b';
	assert_int_equal(match("[ac]{60}[yz]", (struct slice){ subject, 4000 }), REGEX_GAVE_UP);
	assert_int_equal(match("[ac][yz]", (struct slice){ subject, 4000 }), REGEX_NO);
	memset(subject, 'a', sizeof(subject));
	assert_int_equal(match("a", (struct slice){ subject, REGEX_SUBJECT_BYTES_MAX }), REGEX_YES);
	assert_int_equal(match("a", (struct slice){ subject, sizeof(subject) }), REGEX_GAVE_UP);
	/* What is usual is not: one pass over a long text. */
	assert_int_equal(match("^(?:[^,]*,){3}x", (struct slice){ subject, REGEX_SUBJECT_BYTES_MAX }), REGEX_NO);
	assert_int_equal(match("^[a-z]+$", (struct slice){ subject, REGEX_SUBJECT_BYTES_MAX }), REGEX_YES);
}

static size_t
allocated(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static void
matches_need_no_memory(void **state)
{
	struct regex *deep = compiled("^(?:a|b)+[yz]"), *refers = compiled("^((a)|b)+\\1[yz]"), *usual = compiled("a-?(b|c)");
	static char subject[4000];
	size_t before = allocated();

	(void)state;
	memset(subject, 'a', sizeof(subject));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(regex_match(deep, (struct slice){ subject, sizeof(subject) }), REGEX_GAVE_UP);
		assert_int_equal(regex_match(refers, (struct slice){ subject, sizeof(subject) }), REGEX_GAVE_UP);
		assert_int_equal(regex_match(usual, SLICE("a-c")), REGEX_YES);
		assert_int_equal(allocated(), before);
	}
	regex_free(deep);
	regex_free(refers);
	regex_free(usual);
}

static void
bytes_that_are_no_text_match_nothing(void **state)
{
	(void)state;
	assert_int_equal(match("^.+$", SLICE("a\xff")), REGEX_NO);
	assert_int_equal(match("[^b]", SLICE("\xff")), REGEX_NO);
	assert_int_equal(match("b+", SLICE("\xff\xffxbb\xc3")), REGEX_YES);
	assert_int_equal(match("a.b", SLICE("a\xff""b")), REGEX_NO);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matches_need_no_memory),	/* first: no other one has asked for it yet */
		cmocka_unit_test(patterns_match_as_in_javascript), cmocka_unit_test(what_javascript_does_not_know_is_refused),
		cmocka_unit_test(patterns_are_bounded), cmocka_unit_test(a_costly_match_is_given_up),
		cmocka_unit_test(bytes_that_are_no_text_match_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
