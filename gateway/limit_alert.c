/* gateway/limit_alert.c -- see limit_alert.h. */
#include "gateway/limit_alert.h"

#include "gateway/tool_text.h"
#include "policy/limit.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/metrics.h"

static bool
passes(int64_t level, int64_t before, int64_t after)
{
	return level > 0 && before < level && after >= level;
}

void
limit_alert(struct meter_id id, uint64_t what, int64_t before, int64_t after, void *arg)
{
	char spent[TOOL_AMOUNT_BYTES], limit[TOOL_AMOUNT_BYTES], level[TOOL_AMOUNT_BYTES];
	const char *period = limit_period_name(meter_what_period(what).kind);
	const struct now now = { clock_mono_ns(), clock_wall_ns() };
	enum meter_unit unit = meter_what_unit(what);
	struct arena *a = arg;
	struct meter_view m;

	if (!ledger_meter(a, id, now, &m) || m.kind != METER_BUDGET)
		return;
	tool_amount(unit, after, spent);
	tool_amount(unit, m.limit, limit);
	if (passes(m.alert, before, after)) {
		log_warn("limit: %s (%s) has passed its alert level of %s: %s of %s are spent", m.name, period,
		    tool_amount(unit, m.alert, level), spent, limit);
		metrics_add(a, metrics_keeper_row(a), COUNTER_ALERTS_THRESHOLD, 1);
	}
	if (passes(m.limit, before, after)) {
		log_warn("limit: %s (%s) is used up: %s of %s are spent", m.name, period, spent, limit);
		metrics_add(a, metrics_keeper_row(a), COUNTER_ALERTS_EXHAUSTED, 1);
	}
}
