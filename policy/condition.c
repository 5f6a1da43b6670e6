/*
 * policy/condition.c -- see condition.h.
 *
 * A query becomes a list of nodes in the order of its text: lists (a query is an
 * AND of its members) and comparisons. Where a comparison leads to, if it holds
 * and if it does not, is found out when it is compiled, by climbing from it to
 * the list that it does not decide; so a request follows jumps, and neither it
 * nor the compiler calls itself.
 *
 * Portkey's quirks are kept where they show in a config that makes sense: what
 * is missing is not equal to anything, so $ne and $nin hold; a pattern sees it
 * as the text "undefined"; and what stands behind a $regex in the same object is
 * not looked at. Not kept: $and and $or that end a query before its last member.
 */
#include "policy/condition.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/condition_key.h"
#include "policy/js.h"
#include "policy/json.h"
#include "policy/regex.h"

#define PATH_BYTES 1024
#define FRAMES_MAX (2 * CONDITION_DEPTH_MAX + 1)	/* a list, and the query in it */
#define HOLDS UINT32_MAX		/* jumps that end */
#define FAILS (UINT32_MAX - 1)
#define NO_NODE UINT32_MAX

enum operator {
	OP_EQ, OP_NE, OP_GT, OP_GTE, OP_LT, OP_LTE, OP_IN, OP_NIN, OP_REGEX,
	OPERATORS_COUNT
};

static const char *const operators[OPERATORS_COUNT] = {
	"$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$regex",
};

struct operand {			/* a value to be equal to */
	char kind;			/* '"' a string, '0' a number, 't', 'f', 'n' */
	double number;
	struct slice text;		/* of a string, unescaped */
};

enum kind { KIND_ALL, KIND_ANY, KIND_COMPARE, KIND_BEHIND_REGEX };

struct node {
	enum kind kind;
	uint32_t parent, end;		/* the list that it is in; the node behind all of it */
	uint32_t then[2];		/* where a comparison leads: [0] if it fails, [1] if it holds */
	enum operator op;
	struct condition_key *key;
	struct operand *operands;	/* with their texts behind them */
	uint32_t operands_count;
	double number;			/* of $gt and the like; NaN: it compares with nothing */
	struct regex *regex;
	char *written;			/* the operand's JSON */
};

struct condition {
	uint32_t count, first;		/* first: the jump to begin with */
	struct node nodes[];
};

/* ---- values ---- */

static bool
operand_is(const struct operand *o, const struct condition_value *v)
{
	if (!v->text.p)
		return false;
	if (!v->json)
		return o->kind == '"' && slice_eq(o->text, v->text);
	switch (o->kind) {
	case '"':
		return json_string_is(v->text, o->text);
	case '0':
		return (v->text.p[0] == '-' || (v->text.p[0] >= '0' && v->text.p[0] <= '9')) && js_number(v->text) == o->number;
	}
	return v->text.p[0] == o->kind;	/* true, false, null */
}

static bool
one_is(const struct node *n, const struct condition_value *v)
{
	for (uint32_t i = 0; i < n->operands_count; i++)
		if (operand_is(&n->operands[i], v))
			return true;
	return false;
}

/* A path begins with a slash, which no number does; what is missing is none either. */
static double
float_of(const struct condition_value *v)
{
	return v->text.p && v->json ? js_float(v->text) : NAN;
}

static __attribute__((noinline)) enum regex_verdict
match_written(const struct regex *r, struct slice json)
{
	char room[REGEX_SUBJECT_BYTES_MAX + 1];
	struct slice text = js_text(json, room, sizeof(room));

	return text.p ? regex_match(r, text) : REGEX_GAVE_UP;
}

static enum regex_verdict
match(const struct regex *r, const struct condition_value *v)
{
	if (!v->text.p)
		return regex_match(r, SLICE("undefined"));
	if (!v->json)
		return regex_match(r, v->text);
	if (v->text.p[0] == '"' && !memchr(v->text.p, '\\', v->text.n))
		return regex_match(r, (struct slice){ v->text.p + 1, v->text.n - 2 });
	return match_written(r, v->text);
}

static bool
compare(const struct node *n, const struct condition_value *v, bool *gave_up)
{
	enum regex_verdict verdict;

	switch (n->op) {
	case OP_EQ:
	case OP_IN:
		return one_is(n, v);
	case OP_NE:
	case OP_NIN:
		return !one_is(n, v);
	case OP_GT:
		return float_of(v) > n->number;
	case OP_GTE:
		return float_of(v) >= n->number;
	case OP_LT:
		return float_of(v) < n->number;
	case OP_LTE:
		return float_of(v) <= n->number;
	case OP_REGEX:
	case OPERATORS_COUNT:
		break;
	}
	verdict = match(n->regex, v);
	if (verdict == REGEX_GAVE_UP && gave_up)
		*gave_up = true;
	return verdict == REGEX_YES;
}

bool
condition_holds(const struct condition *c, const struct condition_facts *f)
{
	uint32_t at = c->first;

	while (at < c->count) {		/* jumps lead forward */
		const struct node *n = &c->nodes[at];
		struct condition_value v = condition_key_find(n->key, f);

		at = n->then[compare(n, &v, f->gave_up)];
	}
	return at == HOLDS;
}

/* ---- for people ---- */

static void
describe_outcome(const struct node *n, const struct condition_facts *f, struct buf *out)
{
	struct condition_value v = condition_key_find(n->key, f);
	const char *quote = v.json ? "" : "\"";
	bool gave_up = false, holds = compare(n, &v, &gave_up);

	buf_add_str(out, gave_up ? "no: the pattern is too costly for this value, " : holds ? "yes, " : "no, ");
	if (v.text.p)
		buf_printf(out, "it is %s%s%s\n", quote, problem_name(v.text).text, quote);
	else
		buf_add_str(out, "it is missing\n");
}

/* A query with one member is as good as the member. */
static bool
has_line(const struct condition *c, uint32_t i)
{
	const struct node *n = &c->nodes[i];

	return n->kind != KIND_ALL || n->end == i + 1 || c->nodes[i + 1].end != n->end;
}

void
condition_describe(const struct condition *c, const struct condition_facts *f, struct buf *out)
{
	for (uint32_t i = 1; i < c->count; i++) {
		const struct node *n = &c->nodes[i];

		if (!has_line(c, i))
			continue;
		for (uint32_t at = n->parent; at != 0; at = c->nodes[at].parent)
			if (has_line(c, at))
				buf_add_str(out, "  ");
		if (n->kind == KIND_ALL || n->kind == KIND_ANY) {
			buf_add_str(out, n->kind == KIND_ALL ? "all of:\n" : "one of:\n");
			continue;
		}
		buf_printf(out, "%s %s %s: ", problem_name(n->key->written).text, operators[n->op],
		    problem_name(slice_of(n->written)).text);
		if (n->kind == KIND_COMPARE)
			describe_outcome(n, f, out);
		else
			buf_add_str(out, "not looked at, behind $regex\n");
	}
}

/* ---- compiling ---- */

struct frame {				/* a query, or a list of queries, that is being read */
	struct json_iter it;
	struct slice json;
	bool list;
	uint32_t node, elements;
	size_t path_n;			/* of its own path */
};

struct compile {
	struct condition *c;
	struct problems *problems;
	struct frame frames[FRAMES_MAX];
	uint32_t depth;
	bool full;			/* and it has been said */
	char path[PATH_BYTES];
};

static void *
allocate(size_t n)
{
	void *p = malloc(n);

	CHECK(p);
	return p;
}

/* The path of something in what has the path's first n bytes. */
static void
path_add(struct compile *k, size_t n, const char *separator, const char *name)
{
	snprintf(k->path + n, PATH_BYTES - n, "%s%s", n > 0 ? separator : "", name);
}

static uint32_t
node_add(struct compile *k, enum kind kind, uint32_t parent)
{
	if (k->c->count == CONDITION_NODES_MAX) {
		if (!k->full)
			problem_add(k->problems, k->path, "more than %d comparisons and lists in one query", CONDITION_NODES_MAX);
		k->full = true;
		return NO_NODE;
	}
	k->c->nodes[k->c->count] = (struct node){ .kind = kind, .parent = parent, .end = k->c->count + 1 };
	return k->c->count++;
}

static bool
given_before(struct slice object, struct slice name)
{
	struct slice other, value;
	struct json_iter it;

	if (json_iter_object(&it, object))
		while (json_next(&it, &other, &value) && other.p != name.p)
			if (json_strings_same(other, name))
				return true;
	return false;
}

static void
unknown_operator(struct compile *k, struct slice name, const char *const *known, uint32_t count)
{
	struct problem_guess guess = { .wanted = name };

	for (uint32_t i = 0; i < count; i++)
		problem_guess_try(&guess, known[i]);
	if (problem_guess_best(&guess))
		problem_add(k->problems, k->path, "unknown operator; did you mean \"%s\"?", problem_guess_best(&guess));
	else
		problem_add(k->problems, k->path, "unknown operator");
}

static bool
operand_take(struct operand *o, struct slice json, char **texts)
{
	*o = (struct operand){ .kind = json.p[0] };
	switch (json.p[0]) {
	case '{':
	case '[':
		return false;
	case '"':
		o->text = (struct slice){ *texts, json_unescape(json, *texts, json.n) };
		*texts += o->text.n;
		return true;
	case 't': case 'f': case 'n':
		return true;
	}
	o->kind = '0';
	o->number = js_number(json);
	return true;
}

/* Room for operands, and for their texts: these are never longer than their JSON. */
static char *
operands_room(struct node *n, uint32_t count, struct slice json)
{
	n->operands = allocate(count * sizeof(*n->operands) + json.n);
	return (char *)(n->operands + count);
}

static void
operand_add(struct compile *k, struct node *n, struct slice json, char **texts)
{
	if (!operand_take(&n->operands[n->operands_count++], json, texts))
		problem_add(k->problems, k->path, "must be a string, a number, true, false or null: nothing else is ever equal");
}

static void
operands_take(struct compile *k, struct node *n, struct slice array)
{
	size_t path_n = strlen(k->path);
	struct json_iter all, it;
	struct slice name, value;
	uint32_t count = 0;
	char part[32];

	if (!json_iter_array(&all, array)) {
		problem_add(k->problems, k->path, "must be an array of values");
		return;
	}
	for (it = all; json_next(&it, &name, &value);)
		count++;
	if (count > CONDITION_VALUES_MAX) {
		problem_add(k->problems, k->path, "more than %d values", CONDITION_VALUES_MAX);
		return;
	}
	char *texts = operands_room(n, count, array);
	while (json_next(&all, &name, &value)) {
		snprintf(part, sizeof(part), "[%" PRIu32 "]", n->operands_count);
		path_add(k, path_n, "", part);
		operand_add(k, n, value, &texts);
	}
	k->path[path_n] = '\0';
}

static void
pattern_take(struct compile *k, struct node *n, struct slice json)
{
	struct regex_error why;
	char *pattern;

	if (json.p[0] != '"') {
		problem_add(k->problems, k->path, "must be a string: a pattern of JavaScript, without slashes and flags");
		return;
	}
	pattern = allocate(json.n);
	size_t pattern_n = json_unescape(json, pattern, json.n);
	n->regex = regex_compile((struct slice){ pattern, pattern_n }, &why);
	if (!n->regex)
		problem_add(k->problems, k->path, "%s, at byte %zu of the pattern", why.what, why.offset + 1);
	free(pattern);
}

static void
number_take(struct compile *k, struct node *n, struct slice json)
{
	if (json.p[0] == '{' || json.p[0] == '[')
		problem_add(k->problems, k->path, "must be a number");
	else
		n->number = js_float(json);
}

/* `key` is NULL if it is none: the rest is looked at all the same. */
static bool
comparison_add(struct compile *k, struct condition_key *key, enum operator op, struct slice json, bool behind_regex)
{
	uint32_t i = node_add(k, behind_regex ? KIND_BEHIND_REGEX : KIND_COMPARE, k->frames[k->depth - 1].node);
	char *texts;

	if (i == NO_NODE)
		return false;
	struct node *n = &k->c->nodes[i];
	n->op = op;
	n->key = key;
	n->written = allocate(json.n + 1);
	memcpy(n->written, json.p, json.n);
	n->written[json.n] = '\0';
	switch (op) {
	case OP_EQ:
	case OP_NE:
		texts = operands_room(n, 1, json);
		operand_add(k, n, json, &texts);
		break;
	case OP_IN:
	case OP_NIN:
		operands_take(k, n, json);
		break;
	case OP_GT: case OP_GTE: case OP_LT: case OP_LTE:
		number_take(k, n, json);
		break;
	case OP_REGEX:
	case OPERATORS_COUNT:
		pattern_take(k, n, json);
		break;
	}
	return true;
}

/* false: nothing has taken the key. */
static bool
operators_add(struct compile *k, struct condition_key *key, struct slice object)
{
	size_t path_n = strlen(k->path);
	bool taken = false, behind_regex = false, any = false;
	struct slice name, value;
	struct json_iter it;
	uint32_t op;

	CHECK(json_iter_object(&it, object));
	while (json_next(&it, &name, &value)) {
		struct slice plain = { name.p + 1, name.n - 2 };

		path_add(k, path_n, ".", problem_name(plain).text);
		for (op = 0; op < OPERATORS_COUNT && !json_string_eq(name, operators[op]); op++)
			;
		if (given_before(object, name))
			problem_add(k->problems, k->path, "given twice");
		if (op == OPERATORS_COUNT)
			unknown_operator(k, plain, operators, OPERATORS_COUNT);
		else
			taken |= comparison_add(k, key, (enum operator)op, value, behind_regex);
		behind_regex |= op == OP_REGEX;
		any = true;
		k->path[path_n] = '\0';
	}
	if (!any)
		problem_add(k->problems, k->path, "must have an operator");
	return taken;
}

/* A query, or a list of them, whose path is in k->path. */
static void
push(struct compile *k, struct slice json, bool list, enum kind kind)
{
	struct frame *f = &k->frames[k->depth];
	uint32_t parent = k->depth > 0 ? k->frames[k->depth - 1].node : NO_NODE;

	if (k->depth == FRAMES_MAX) {
		problem_add(k->problems, k->path, "more than %d of $and and $or in one another", CONDITION_DEPTH_MAX);
		return;
	}
	if (list ? !json_iter_array(&f->it, json) : !json_iter_object(&f->it, json)) {
		problem_add(k->problems, k->path, list ? "must be an array of queries" : "must be an object: a query");
		return;
	}
	f->json = json;
	f->list = list;
	f->elements = 0;
	f->path_n = strlen(k->path);
	f->node = node_add(k, kind, parent);
	if (f->node != NO_NODE)
		k->depth++;
}

static void
member_add(struct compile *k, struct slice object, struct slice raw_name, struct slice value)
{
	static const char *const lists[] = { "$and", "$or" };
	struct slice plain = { raw_name.p + 1, raw_name.n - 2 };
	char text[CONDITION_KEY_BYTES_MAX + 2];
	struct condition_key *key;
	bool taken = false;

	path_add(k, k->frames[k->depth - 1].path_n, ".", problem_name(plain).text);
	if (given_before(object, raw_name))
		problem_add(k->problems, k->path, "given twice");
	for (uint32_t i = 0; i < 2; i++)
		if (json_string_eq(raw_name, lists[i])) {
			push(k, value, true, i == 0 ? KIND_ALL : KIND_ANY);
			return;
		}
	if (slice_starts(plain, SLICE("$"))) {
		unknown_operator(k, plain, lists, 2);
		return;
	}
	size_t n = json_unescape(raw_name, text, sizeof(text));
	key = condition_key_compile((struct slice){ text, n < sizeof(text) ? n : sizeof(text) - 1 }, k->path, k->problems);
	if (value.p[0] == '{')
		taken = operators_add(k, key, value);
	else if (value.p[0] == '[')
		problem_add(k->problems, k->path, "must be a value or an object of operators; one of several is {\"$in\": [...]}");
	else
		taken = comparison_add(k, key, OP_EQ, value, false);
	if (!taken)
		free(key);
}

/* The next member or element of the innermost query or list; at its end, back to the outer one. */
static void
read_on(struct compile *k)
{
	struct frame *f = &k->frames[k->depth - 1];
	struct slice name, value;
	char part[32];

	if (json_next(&f->it, &name, &value)) {
		if (!f->list) {
			member_add(k, f->json, name, value);
			return;
		}
		snprintf(part, sizeof(part), "[%" PRIu32 "]", f->elements++);
		path_add(k, f->path_n, "", part);
		push(k, value, false, KIND_ALL);
		return;
	}
	k->path[f->path_n] = '\0';
	if (f->list && f->elements == 0)
		problem_add(k->problems, k->path, "must have a query");
	k->c->nodes[f->node].end = k->c->count;
	k->depth--;
}

/* From node i on, when all before it in its list has not decided the list: the
 * next comparison. With `known`, node i itself came out as `holds`. */
static uint32_t
follow(const struct condition *c, uint32_t i, bool known, bool holds)
{
	for (;;) {
		const struct node *n = &c->nodes[i];

		if (!known) {
			if (n->kind == KIND_COMPARE)
				return i;
			known = n->kind == KIND_BEHIND_REGEX || n->end == i + 1;
			holds = true;		/* all of nothing */
			i += !known;
		} else if (n->parent == NO_NODE) {
			return holds ? HOLDS : FAILS;
		} else if ((c->nodes[n->parent].kind == KIND_ALL) == holds && n->end < c->nodes[n->parent].end) {
			i = n->end;
			known = false;
		} else {
			i = n->parent;
		}
	}
}

static void
link_nodes(struct condition *c)
{
	c->first = follow(c, 0, false, false);
	for (uint32_t i = 0; i < c->count; i++)
		if (c->nodes[i].kind == KIND_COMPARE)
			for (uint32_t holds = 0; holds < 2; holds++)
				c->nodes[i].then[holds] = follow(c, i, true, holds);
}

struct condition *
condition_compile(struct slice query, const char *path, struct problems *p)
{
	struct compile *k = allocate(sizeof(*k));
	struct condition *c = allocate(sizeof(*c) + CONDITION_NODES_MAX * sizeof(c->nodes[0]));
	uint32_t before = p->count;

	c->count = 0;
	k->c = c;
	k->problems = p;
	k->depth = 0;
	k->full = false;
	snprintf(k->path, sizeof(k->path), "%s", path);
	push(k, query, false, KIND_ALL);
	while (k->depth > 0)
		read_on(k);
	free(k);
	if (p->count > before) {
		condition_free(c);
		return NULL;
	}
	link_nodes(c);
	struct condition *small = realloc(c, sizeof(*c) + c->count * sizeof(c->nodes[0]));
	CHECK(small);
	return small;
}

void
condition_free(struct condition *c)
{
	for (uint32_t i = 0; c && i < c->count; i++) {
		struct node *n = &c->nodes[i];

		if (i == 0 || c->nodes[i - 1].key != n->key)	/* the operators of one key stand together */
			free(n->key);
		regex_free(n->regex);
		free(n->operands);
		free(n->written);
	}
	free(c);
}
