/*
 * policy/js.h -- JSON values as JavaScript sees them: as numbers, as text.
 *
 * Conditions are written for Portkey, whose values are JavaScript's. So a number
 * is a double here (nobody pays by it), and prints as a browser prints it.
 *
 * `raw` is always a value inside of an object or an array, of valid JSON: a byte
 * that is not the value's follows it.
 */
#ifndef WEIR_POLICY_JS_H
#define WEIR_POLICY_JS_H

#include "shm/base/slice.h"

#define JS_FLOAT_BYTES 1024	/* js_float() looks at no more of a text that has to be written first */
#define JS_NUMBER_BYTES 32	/* the longest is -1.2345678901234567e-300 */

double js_number(struct slice raw);
	/* Of a JSON number; infinite if it is too large. */
double js_float(struct slice raw);
	/* parseFloat(String(value)): of text, the number at its beginning. NaN: none. */
size_t js_number_text(double number, char out[JS_NUMBER_BYTES]);
	/* String(number), with a NUL behind it; its length. */
struct slice js_text(struct slice raw, char *room, size_t size);
	/* String(value). It lies in `raw`, or in `room` with a NUL behind it; none:
	 * it does not fit, and `room` has its beginning. size > 0. */

#endif
