/* gateway/health_watch.c -- see health_watch.h. */
#include "gateway/health_watch.h"

#include <stdio.h>

#include "gateway/answer.h"
#include "gateway/request.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/base/siphash.h"

#define MODEL_BYTES_MAX 256	/* of a name that is told apart; what is longer is one with others */
#define TOLD_TO_WAIT_NS_MAX (60 * NS_PER_S)	/* a provider that asks for more is asked again all the same */
#define UNTOLD_WAIT_NS (5 * NS_PER_S)	/* one that is busy and does not say for how long */

/* ---- rows ---- */

enum row_of { ROW_ACCOUNT, ROW_MODEL, ROW_BREAKER, ROW_OWN_ACCOUNT };

/* By names and not by numbers, which a reload may change. Names of models and of
 * inline configs come from clients, so the key is not one that they know. */
static struct health_ref
ref_of(uint64_t epoch, enum row_of of, struct slice owner, struct slice part)
{
	const uint64_t key[2] = { epoch, of };
	const struct siphash first = siphash128(key, owner);
	const struct siphash second = siphash128((const uint64_t[2]){ first.lo, first.hi }, part);

	return (struct health_ref){ .id = { second.lo, second.hi }, .row = HEALTH_NO_ROW };
}

/* What a saved target goes to by a host or a credential of its own: whatever
 * becomes of that says nothing of its provider's account. */
static struct health_ref
own_account_ref(uint64_t epoch, struct slice account, const struct config_target *t)
{
	const struct host_url *h = &t->custom_host;
	/* From the URL: its host, port and path stand there in a row. */
	struct slice place = t->use_custom_host ? (struct slice){ h->host.p, (size_t)(h->path.p + h->path.n - h->host.p) } : SLICE_NONE;

	return ref_of(epoch, ROW_OWN_ACCOUNT, t->api_key.n ? t->api_key : account, place);
}

/* The account that a request has at a target. NULL: one that it brought itself,
 * of which nobody else learns anything. */
static struct health_ref *
account_at(const struct request *r, const struct config_target *t, const struct setting_provider *p)
{
	struct plane_target *known = (struct plane_target *)(uintptr_t)plane_target_of(r->plane, r->config, t);

	if (r->known.custom_host.n)
		return NULL;
	if (known && known->endpoint.target)
		return &known->account;
	return t->api_key.n || t->use_custom_host ? NULL : &plane_provider(r->plane, p)->health;
}

/* Failures are those of the place that is asked, also where it shares its account. */
static struct health_ref
model_ref(const struct request *r, const struct setting_provider *p, const struct health_ref *account, struct slice model)
{
	struct plane_provider *provider = plane_provider(r->plane, p);
	struct slice id = { (const char *)&account->id, sizeof(account->id) };

	if (model.n > MODEL_BYTES_MAX)
		model.n = MODEL_BYTES_MAX;
	return ref_of(arena_epoch(r->worker->arena), ROW_MODEL, account == &provider->health ? provider->slug : id, model);
}

void
health_watch_name(struct plane *p, const struct arena *a)
{
	const struct settings *s = p->settings;
	const uint64_t epoch = arena_epoch(a);

	for (uint32_t i = 0; i < s->providers_count; i++)
		p->providers[i].health = ref_of(epoch, ROW_ACCOUNT, p->providers[i].account, SLICE_NONE);
	for (uint32_t i = 0; i < s->configs_count; i++) {
		const struct config *c = s->configs[i];

		for (uint32_t j = 0; j < c->targets_count; j++) {
			const struct config_target *t = &c->targets[j];
			struct plane_target *known = &p->targets[p->first[i] + j];

			known->breaker = ref_of(epoch, ROW_BREAKER, c->slug, c->nodes[t->node].path);
			if (known->endpoint.target)
				known->account = own_account_ref(epoch, plane_provider(p, known->provider)->account, t);
		}
	}
}

static struct slice
model_at(const struct request *r, const struct config_target *t)
{
	struct slice named = t->model.n ? t->model : r->model_named.n ? r->model_named : t->default_model, slug, bare;

	config_split_model(named, &slug, &bare);
	return bare;
}

static struct health_ref *
breaker_of(const struct request *r, const struct config_target *t)
{
	const struct plane_target *known = plane_target_of(r->plane, r->config, t);

	return known && t->breaker ? (struct health_ref *)(uintptr_t)&known->breaker : NULL;
}

static bool
is_watched(const struct request *r, const struct config_target *t)
{
	return r->config->several_targets || (t->breaker && r->config->slug.n);
}

/* ---- looking ---- */

static bool
may_ask(const struct request *r, struct health_ref *ref, int64_t now_ns)
{
	enum health_state state = health_look(r->worker->arena, ref, now_ns);

	return state == HEALTH_UP || state == HEALTH_PROBE_FREE;
}

bool
health_usable(struct request *r, const struct config_target *t)
{
	const struct plane_target *known = plane_target_of(r->plane, r->config, t);
	const struct setting_provider *p = known ? known->provider : settings_provider_of(r->plane->settings, t);
	struct health_ref *breaker = breaker_of(r, t), *account, model;
	int64_t now_ns = clock_mono_ns();

	if (!is_watched(r, t))
		return true;
	if (breaker && !may_ask(r, breaker, now_ns))
		return false;
	if (!p)		/* the request says where it goes: that is seen there */
		return true;
	if (!(account = account_at(r, t, p)))
		return true;
	model = model_ref(r, p, account, model_at(r, t));
	return may_ask(r, account, now_ns) && may_ask(r, &model, now_ns);
}

/* false: it is out, or somebody else tries it. */
static bool
take(struct request *r, struct health_ref *ref, struct health_try *t, int64_t now_ns)
{
	struct arena *a = r->worker->arena;

	t->worker = r->worker->index;
	t->began_mono_ns = now_ns;
	t->probe = 0;
	switch (health_look(a, ref, now_ns)) {
	case HEALTH_UP:
		return true;
	case HEALTH_PROBE_FREE:
		return health_probe_take(a, ref, t, now_ns);
	case HEALTH_OUT:
	case HEALTH_PROBE_BUSY:
		break;
	}
	return false;
}

bool
health_enter(struct request *r)
{
	struct health_watch *h = &r->health;
	int64_t now_ns;

	if (!is_watched(r, r->at.target))
		return true;
	now_ns = clock_mono_ns();
	r->at.watched = true;
	*h = (struct health_watch){ .breaker = NULL };
	h->breaker = breaker_of(r, r->at.target);
	h->account = account_at(r, r->at.target, r->at.provider);
	if (h->breaker && !take(r, h->breaker, &h->at_breaker, now_ns))
		return false;
	if (!h->account)
		return true;
	h->model = model_ref(r, r->at.provider, h->account, r->at.model);
	return take(r, h->account, &h->at_account, now_ns) && take(r, &h->model, &h->at_model, now_ns);
}

void
health_leave(struct request *r)
{
	struct health_watch *h = &r->health;
	struct arena *a = r->worker->arena;

	if (!r->at.watched)
		return;
	if (h->account) {
		health_probe_drop(a, h->account, &h->at_account);
		health_probe_drop(a, &h->model, &h->at_model);
	}
	if (h->breaker)
		health_probe_drop(a, h->breaker, &h->at_breaker);
	r->at.watched = false;
}

void
health_begins(struct request *r)
{
	struct health_watch *h = &r->health;

	if (r->at.watched)
		h->at_account.began_mono_ns = h->at_model.began_mono_ns = h->at_breaker.began_mono_ns = clock_mono_ns();
}

/* ---- reporting ---- */

static struct health_rule
rule_of(const struct request *r)
{
	const struct settings *s = r->plane->settings;

	return (struct health_rule){
		.failures = s->health.failures, .share_permille = s->health.failure_percent * 10,
		.requests_min = s->health.minimum_requests, .window_ns = s->health.window_ms * NS_PER_MS,
		.cooldown_ns = s->health.cooldown_ms * NS_PER_MS, .cooldown_max_ns = s->health.cooldown_max_ms * NS_PER_MS,
	};
}

static struct health_rule
breaker_rule(const struct request *r)
{
	const struct config_breaker *b = r->at.target->breaker;
	struct health_rule rule = rule_of(r);

	rule.failures = b->failure_threshold;
	rule.share_permille = b->failure_permille;
	rule.requests_min = b->minimum_requests;
	rule.cooldown_ns = b->cooldown_ms * NS_PER_MS;
	if (rule.cooldown_max_ns < rule.cooldown_ns)
		rule.cooldown_max_ns = rule.cooldown_ns;
	return rule;
}

struct names {
	char account[HEALTH_NAME_BYTES], model[HEALTH_NAME_BYTES], breaker[HEALTH_NAME_BYTES];
};

/* Rows are made by failures, and only then need names. */
static void
name_rows(struct request *r, struct names *n)
{
	struct health_watch *h = &r->health;
	const struct plane_provider *p = plane_provider(r->plane, r->at.provider);
	struct slice model = r->at.model;

	if (model.n > MODEL_BYTES_MAX)
		model.n = MODEL_BYTES_MAX;
	if (h->account == &p->health) {
		snprintf(n->account, sizeof(n->account), "provider %.*s", SLICE_FMT(p->account));
		snprintf(n->model, sizeof(n->model), "provider %.*s, model %.*s", SLICE_FMT(p->slug), SLICE_FMT(model));
	} else if (h->account) {
		snprintf(n->account, sizeof(n->account), "config %.*s %.*s, account", SLICE_FMT(r->rec.config), SLICE_FMT(r->rec.target));
		snprintf(n->model, sizeof(n->model), "config %.*s %.*s, model %.*s", SLICE_FMT(r->rec.config), SLICE_FMT(r->rec.target),
		    SLICE_FMT(model));
	}
	if (h->account) {
		h->account->name = n->account;
		h->model.name = n->model;
	}
	if (!h->breaker)
		return;
	snprintf(n->breaker, sizeof(n->breaker), "config %.*s %.*s", SLICE_FMT(r->rec.config), SLICE_FMT(r->rec.target));
	h->breaker->name = n->breaker;
}

static void
forget_names(struct request *r)
{
	struct health_watch *h = &r->health;

	if (h->account)
		h->account->name = h->model.name = NULL;
	if (h->breaker)
		h->breaker->name = NULL;
}

static void
end_tries(struct health_watch *h)
{
	h->at_account.probe = h->at_model.probe = h->at_breaker.probe = 0;
}

void
health_served(struct request *r)
{
	struct health_watch *h = &r->health;
	struct health_rule rule;
	struct arena *a = r->worker->arena;
	int64_t now_ns;

	if (!r->at.watched)
		return;
	now_ns = clock_mono_ns();
	rule = rule_of(r);
	if (h->account) {
		health_success(a, h->account, &rule, &h->at_account, now_ns);
		health_success(a, &h->model, &rule, &h->at_model, now_ns);
	}
	if (h->breaker) {
		rule = breaker_rule(r);
		health_success(a, h->breaker, &rule, &h->at_breaker, now_ns);
	}
	end_tries(h);
}

/* A 400 quotes what it does not like, so a client could have any words come back
 * ("credit balance: Extra inputs are not permitted") and take the account from all. */
static bool
may_be_quoted(const struct request *r, const struct attempt_end *end, struct slice words)
{
	struct slice asked = r->asked ? r->asked->body : SLICE_NONE;

	return end->status == 400 && (slice_contains(asked, words) || slice_contains(asked, SLICE("\\u00")));
}

/* Words of a refusal that no short wait cures: the account's money, or its plan. */
static bool
is_about_money(const struct request *r, const struct attempt_end *end)
{
	static const char *const marks[] = {
		"credit balance", "enforced_spend_limit_reached", "contract_spend_limit_reached", "ramp_limit_exceeded", "spend limit",
	};

	if (end->status == 402)
		return true;
	if (end->status != 400 && end->status != 429)
		return false;
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
		if (slice_contains(end->body, slice_of(marks[i])) && !may_be_quoted(r, end, slice_of(marks[i])))
			return true;
	/* The cap of a tier does not say when it ends; a rate always does. */
	return end->status == 429 && end->answered && end->retry_after_ms < 0 && !end->in_stream;
}

static void
account_out(struct request *r, enum health_why why, int64_t now_ns)
{
	struct health_watch *h = &r->health;
	int64_t for_ns = r->plane->settings->health.account_ms * NS_PER_MS;

	log_warn("provider %s is out for %lld s: %s", r->at.provider->slug, (long long)(for_ns / NS_PER_S),
	    why == HEALTH_MONEY ? "it has no money or no room in its plan" : "its credential is refused");
	health_eject(r->worker->arena, h->account, &h->at_account, why, for_ns, now_ns);
	h->at_account.probe = 0;
}

static void
told_to_wait(struct request *r, const struct attempt_end *end, int64_t now_ns)
{
	struct health_watch *h = &r->health;
	int64_t for_ns = end->retry_after_ms < 0 ? UNTOLD_WAIT_NS : end->retry_after_ms * NS_PER_MS;

	health_eject(r->worker->arena, &h->model, &h->at_model, HEALTH_BUSY, for_ns < TOLD_TO_WAIT_NS_MAX ? for_ns : TOLD_TO_WAIT_NS_MAX,
	    now_ns);
	h->at_model.probe = 0;
}

/* Is it the provider that does not work? A request that it refuses for what is in
 * it shows that it does. */
static bool
is_failure(const struct attempt_end *end)
{
	return !end->answered || end->status >= 500 || end->status == 408;
}

static void
report_breaker(struct request *r, const struct attempt_end *end, int64_t now_ns)
{
	struct health_watch *h = &r->health;
	struct health_rule rule = breaker_rule(r);

	if (status_set_has(&r->at.target->breaker->failure_status_codes, end->status))
		health_failure(r->worker->arena, h->breaker, &rule, &h->at_breaker, now_ns);
	else
		health_success(r->worker->arena, h->breaker, &rule, &h->at_breaker, now_ns);
	h->at_breaker.probe = 0;
}

/* At the account, and at the model there. */
static void
report_account(struct request *r, const struct attempt_end *end, int64_t now_ns)
{
	struct health_watch *h = &r->health;
	struct arena *a = r->worker->arena;
	struct health_rule rule = rule_of(r);

	if (is_about_money(r, end))
		account_out(r, HEALTH_MONEY, now_ns);
	else if (end->status == 401)
		account_out(r, HEALTH_CREDENTIAL, now_ns);
	else if (end->status == 403)
		health_eject(a, &h->model, &h->at_model, HEALTH_CREDENTIAL, r->plane->settings->health.account_ms * NS_PER_MS, now_ns);
	else if (end->status == 429)
		told_to_wait(r, end, now_ns);
	else if (is_failure(end) && !h->breaker)
		health_failure(a, &h->model, &rule, &h->at_model, now_ns);
	else if (!is_failure(end))
		health_success(a, &h->model, &rule, &h->at_model, now_ns);
	/* What is left of a probe: it was answered, or it says nothing of the account. */
	if (end->answered && end->status != 401 && end->status != 402)
		health_success(a, h->account, &rule, &h->at_account, now_ns);
	health_probe_drop(a, h->account, &h->at_account);
	health_probe_drop(a, &h->model, &h->at_model);
}

void
health_failed(struct request *r, const struct attempt_end *end)
{
	struct health_watch *h = &r->health;
	struct names names;
	int64_t now_ns;

	if (!r->at.watched || end->ours)
		return;
	now_ns = clock_mono_ns();
	name_rows(r, &names);
	if (h->breaker)
		report_breaker(r, end, now_ns);
	if (h->account)
		report_account(r, end, now_ns);
	end_tries(h);
	forget_names(r);
}

/* ---- words ---- */

static bool
find_out(const struct request *r, const struct health_ref *ref, int64_t now_ns, struct health_view *v)
{
	return ref->row != HEALTH_NO_ROW && health_at(r->worker->arena, ref->row, now_ns, v) && v->state != HEALTH_UP &&
	    v->id.hi == ref->id.hi && v->id.lo == ref->id.lo;
}

int64_t
health_reason(struct request *r, const struct config_target *t, struct buf *out)
{
	const struct plane_target *known = plane_target_of(r->plane, r->config, t);
	const struct setting_provider *p = known ? known->provider : settings_provider_of(r->plane->settings, t);
	struct health_ref *breaker = breaker_of(r, t), *account, model;
	int64_t now_ns = clock_mono_ns();
	struct health_view v;

	if (health_usable(r, t))
		return 0;
	if (!breaker || !find_out(r, breaker, now_ns, &v)) {
		if (!p || !(account = account_at(r, t, p)))
			return 0;
		model = model_ref(r, p, account, model_at(r, t));
		(void)health_look(r->worker->arena, &model, now_ns);	/* finds its row */
		if (!find_out(r, account, now_ns, &v) && !find_out(r, &model, now_ns, &v))
			return 0;
	}
	buf_printf(out, "%s is out (%s", v.name, health_why_name(v.why));
	if (v.state == HEALTH_OUT)
		buf_printf(out, ", for %lld s more", (long long)((v.over_in_ns + NS_PER_S - 1) / NS_PER_S));
	buf_add_str(out, ")");
	return v.state == HEALTH_OUT ? v.over_in_ns : NS_PER_S;	/* a probe is under way, and is soon over */
}
