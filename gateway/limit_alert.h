/*
 * gateway/limit_alert.h -- a budget has passed its alert level, or is used up.
 *
 * Told by the keeper, when the spending is durable: a line in the log and a
 * counter each. A level is passed once in a period, so it is told once.
 */
#ifndef WEIR_GATEWAY_LIMIT_ALERT_H
#define WEIR_GATEWAY_LIMIT_ALERT_H

#include "store/records.h"

writer_booked_fn limit_alert;
	/* `arg`: the struct arena, which knows the meter's limit, alert level and
	 * name. One that it does not know is of nobody's interest now. */

#endif
