/*
 * policy/decimal.h -- decimal numbers as people write them, exactly.
 *
 * Money is integers; a double would round a budget of more than nine million
 * dollars. So amounts are taken from their text, digit by digit.
 */
#ifndef WEIR_POLICY_DECIMAL_H
#define WEIR_POLICY_DECIMAL_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"

#define DECIMAL_NUSD 9		/* scale of dollars in nano-dollars */

bool decimal_parse(struct slice text, int scale, int64_t most, int64_t *out) MUST_CHECK;
	/* A number of JSON's grammar, 12.5 or 1e3, times 10^scale. false: it is not
	 * one, is negative, is above `most`, or has digits below the scale. */

#endif
