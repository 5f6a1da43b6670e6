/*
 * The headers that weir reads, out of heads as they come: each in any spelling,
 * none that is only like it, the first of several; and names in a header that
 * lists them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gateway/headers.h"

#define HEAD_MAX 65536

static const struct { const char *name; size_t at; } known[] = {
#define OF(length)
#define X(member, text) { text, offsetof(struct known_headers, member) },
	KNOWN_HEADERS(OF, X)
#undef X
#undef OF
};
#define KNOWN (sizeof(known) / sizeof(known[0]))
_Static_assert(sizeof(struct known_headers) == KNOWN * sizeof(struct slice), "there is nothing else in it");

struct reader { struct http1 http; struct scratch mem; };

/* The known ones of a head with these lines. */
static struct known_headers
found(struct reader *r, const char *lines)
{
	static char text[HEAD_MAX];
	struct known_headers out;
	int n = snprintf(text, sizeof(text), "POST /v1/messages HTTP/1.1\r\nhost: x\r\n%s\r\n", lines);
	struct slice input = { text, (size_t)n };

	memset(&out, 0xa5, sizeof(out));
	*r = (struct reader){ .mem = { .max = 1 << 20 } };
	http1_init(&r->http, false, HEAD_MAX);
	http1_begin(&r->http, &r->mem, false);
	if (http1_feed(&r->http, &input) != HTTP1_HEAD)
		fail_msg("%s: %s", r->http.error, lines);
	headers_find(&r->http.head, &out);
	return out;
}

static void
done(struct reader *r)
{
	http1_free(&r->http);
	scratch_reset(&r->mem);
}

static struct slice
member(const struct known_headers *h, size_t i)
{
	return *(const struct slice *)(const void *)((const char *)h + known[i].at);
}

/* That line has just these of the known ones: by name, whoever compares. */
static void
finds(const char *name)
{
	struct reader r;
	struct known_headers h;
	char line[256];

	snprintf(line, sizeof(line), "%s:  v \r\n", name);
	h = found(&r, line);
	for (size_t i = 0; i < KNOWN; i++) {
		struct slice value = member(&h, i);

		if (strcasecmp(known[i].name, name) != 0 ? value.p != NULL : !slice_eq(value, SLICE("v")))
			fail_msg("%s: %s is \"%.*s\"", name, known[i].name, SLICE_FMT(value));
	}
	done(&r);
}

static void
each_is_found_in_any_spelling(void **state)
{
	char name[64];

	(void)state;
	for (size_t i = 0; i < KNOWN; i++) {
		for (int spelling = 0; spelling < 4; spelling++) {
			snprintf(name, sizeof(name), "%s", known[i].name);
			for (size_t j = 0; name[j]; j++)
				if (spelling == 1 || (spelling == 2 && (j == 0 || name[j - 1] == '-')) || (spelling == 3 && j % 2))
					name[j] = (char)toupper((unsigned char)name[j]);
			finds(name);
		}
	}
}

static void
what_is_like_it_is_not_taken_for_it(void **state)
{
	char name[64];

	(void)state;
	finds("x");
	for (size_t i = 0; i < KNOWN; i++) {
		size_t n = strlen(known[i].name);

		for (size_t j = 0; j < n; j++) {	/* a byte is another one, or is not there */
			snprintf(name, sizeof(name), "%s", known[i].name);
			name[j] = name[j] == 'q' ? 'z' : 'q';
			finds(name);
			snprintf(name, sizeof(name), "%s", known[i].name);
			memmove(name + j, name + j + 1, n - j);
			finds(name);
		}
		snprintf(name, sizeof(name), "%s-", known[i].name);
		finds(name);
		snprintf(name, sizeof(name), "x%s", known[i].name);
		finds(name);
	}
}

static void
the_first_counts_and_an_empty_one_is_there(void **state)
{
	struct reader r;
	struct known_headers h = found(&r, "x-portkey-config: \r\nX-Portkey-Config: pc-a\r\nanthropic-beta: a\r\nANTHROPIC-BETA: b\r\n");

	(void)state;
	assert_non_null(h.config.p);
	assert_int_equal(h.config.n, 0);
	assert_true(slice_eq(h.beta, SLICE("a")));
	assert_null(h.provider.p);
	done(&r);
}

static void
all_of_them_at_once(void **state)
{
	char lines[8192];
	size_t n = 0;
	struct reader r;

	(void)state;
	for (size_t i = KNOWN; i-- > 0;)
		n += (size_t)snprintf(lines + n, sizeof(lines) - n, "%s: v%zu\r\nx-other-%zu: w\r\n", known[i].name, i, i);
	struct known_headers h = found(&r, lines);
	for (size_t i = 0; i < KNOWN; i++) {
		char value[16];

		snprintf(value, sizeof(value), "v%zu", i);
		assert_true(slice_eq(member(&h, i), slice_of(value)));
	}
	done(&r);
}

/* ---- lists of names ---- */

static void
lists_are_read_in_each_form(void **state)
{
	static const struct { const char *list, *names; } rows[] = {
		{ "", "" }, { " , ;", "" }, { "x-a", "x-a|" }, { "X-A, x-b", "X-A|x-b|" }, { "x-a,x-b,", "x-a|x-b|" }, { ",,x-a", "x-a|" },
		{ "['x-a', \"X_b\"]", "x-a|X_b|" }, { "x-a x-b\tx-c", "x-a|x-b|x-c|" }, { "[]", "" }, { "x-a:1", "x-a|1|" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		char names[128] = "";
		size_t at = 0, n = 0;
		struct slice name;

		while (headers_next(slice_of(rows[i].list), &at, &name))
			n += (size_t)snprintf(names + n, sizeof(names) - n, "%.*s|", SLICE_FMT(name));
		assert_string_equal(names, rows[i].names);
		assert_false(headers_next(slice_of(rows[i].list), &at, &name));
	}
	size_t at = 0;
	struct slice name;
	assert_false(headers_next(SLICE_NONE, &at, &name));
}

static void
a_name_is_listed_as_a_whole(void **state)
{
	static const struct { const char *list, *name; bool is; } rows[] = {
		{ "x-a, x-b", "x-b", true }, { "X-A", "x-a", true }, { "['x-a','x-b']", "x-a", true }, { "x-ab", "x-a", false }, { "x-a", "x-ab", false },
		{ "my-x-a", "x-a", false }, { "x-a-", "x-a", false }, { "", "x-a", false }, { "x a", "x-a", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (headers_listed(slice_of(rows[i].list), slice_of(rows[i].name)) != rows[i].is)
			fail_msg("%s in %s", rows[i].name, rows[i].list);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_is_found_in_any_spelling),
		cmocka_unit_test(what_is_like_it_is_not_taken_for_it),
		cmocka_unit_test(the_first_counts_and_an_empty_one_is_there),
		cmocka_unit_test(all_of_them_at_once),
		cmocka_unit_test(lists_are_read_in_each_form),
		cmocka_unit_test(a_name_is_listed_as_a_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
