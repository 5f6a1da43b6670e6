/*
 * tests/unit/config_fixture.h -- configs from texts, for tests.
 */
#ifndef WEIR_TESTS_UNIT_CONFIG_FIXTURE_H
#define WEIR_TESTS_UNIT_CONFIG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "policy/config.h"

static char *trusted[] = { (char[]){ "127.0.0.1" } };
static const struct host_trust trust = { trusted, 1 };
static const struct config_source source = { .path = "", .trust = &trust };

static inline struct config *
parse(const char *json, struct problems *p)
{
	problems_init(p);
	return config_parse_text(slice_of(json), &source, p);
}

static inline struct config *
accept(const char *json)
{
	struct problems p;
	struct config *c = parse(json, &p);

	if (!c)
		fail_msg("%s: %.*s", json, SLICE_FMT(buf_slice(&p.text)));
	assert_int_equal(p.count, 0);
	problems_free(&p);
	return c;
}

struct row { const char *json, *text; };
#define ALL(what, rows) what(rows, sizeof(rows) / sizeof((rows)[0]))

#endif
