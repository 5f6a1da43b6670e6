/* gateway/config_memo.c -- see config_memo.h. */
#include "gateway/config_memo.h"

#include <stdlib.h>
#include <string.h>

#include "gateway/recent.h"

#define CONFIGS_KEPT_MAX 256	/* clients with configs of their own are few */

struct node {
	struct recent_entry recent;
	uint64_t version;	/* of the settings */
	struct config *config;
};

struct config_memo {
	struct recent nodes;
};

struct config_memo *
config_memo_new(void)
{
	struct config_memo *m = calloc(1, sizeof(*m));

	if (m && !recent_init(&m->nodes, CONFIGS_KEPT_MAX, sizeof(struct node))) {
		config_memo_free(m);
		return NULL;
	}
	return m;
}

void
config_memo_free(struct config_memo *m)
{
	if (!m)
		return;
	for (struct recent_entry *e = m->nodes.newest; e; e = e->older)
		config_put(((struct node *)e)->config);
	recent_free(&m->nodes);
	free(m);
}

struct config *
config_memo_get(struct config_memo *m, const struct settings *s, struct slice json, struct problems *p)
{
	struct siphash tag = recent_tag(&m->nodes, json);
	struct recent_entry *e = recent_find(&m->nodes, tag), *forgotten = NULL;
	struct node *n = (struct node *)e;

	if (!n || n->version != s->version) {
		struct config *c = settings_inline_config(s, json, p);

		if (!c)
			return NULL;
		if (!n)
			n = (struct node *)recent_add(&m->nodes, tag, &forgotten);
		if (e || forgotten)
			config_put(n->config);
		n->version = s->version;
		n->config = c;
	}
	recent_touch(&m->nodes, &n->recent);
	return config_get(n->config);
}
