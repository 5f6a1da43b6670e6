/*
 * shm/period.c -- which day, week, month or span of days it is, in UTC.
 *
 * A period is a number, so that "has it changed?" is a comparison and a
 * roll-over happens at the moment of use. Days are counted from 1970-01-01;
 * months come from days by the usual trick of years that begin in March, in
 * which a leap day is the last day.
 */
#include "shm/period.h"

#define DAYS_PER_ERA 146097	/* 400 years: the Gregorian calendar repeats */
#define ERA_OFFSET 719468	/* days from 0000-03-01 to 1970-01-01 */
#define FIRST_MONDAY 4		/* 1970-01-05 in days */

static int64_t
floor_div(int64_t n, int64_t d)
{
	return n / d - (n % d < 0);
}

static int64_t
month_of_day(int64_t day)
{
	int64_t z = day + ERA_OFFSET;
	int64_t era = floor_div(z, DAYS_PER_ERA);
	int64_t d = z - era * DAYS_PER_ERA;	/* day of the era */
	int64_t y = (d - d / 1460 + d / 36524 - d / 146096) / 365;
	int64_t in_year = d - (365 * y + y / 4 - y / 100);
	int64_t m = (5 * in_year + 2) / 153;	/* 0 is March */

	return (era * 400 + y - 1970) * 12 + m + 2;
}

static int64_t
first_day_of_month(int64_t month)
{
	int64_t since_march = month + 1970 * 12 - 2;
	int64_t y = floor_div(since_march, 12);
	int64_t m = since_march - y * 12;
	int64_t era = floor_div(y, 400);

	y -= era * 400;
	return era * DAYS_PER_ERA + 365 * y + y / 4 - y / 100 + (153 * m + 2) / 5 - ERA_OFFSET;
}

int64_t
period_day(int64_t wall_ns)
{
	return floor_div(wall_ns, NS_PER_DAY);
}

int64_t
period_of_day(struct period p, int64_t day)
{
	switch (p.kind) {
	case PERIOD_TOTAL:
		return 0;
	case PERIOD_DAILY:
		return day;
	case PERIOD_WEEKLY:
		return floor_div(day - FIRST_MONDAY, 7);
	case PERIOD_MONTHLY:
		return month_of_day(day);
	case PERIOD_DAYS:
		CHECK(p.days > 0);
		return floor_div(day - p.anchor, p.days);
	}
	check_failed("no such period", __FILE__, __LINE__);
}

static int64_t
first_day(struct period p, int64_t index)
{
	switch (p.kind) {
	case PERIOD_TOTAL:
		return 0;
	case PERIOD_DAILY:
		return index;
	case PERIOD_WEEKLY:
		return index * 7 + FIRST_MONDAY;
	case PERIOD_MONTHLY:
		return first_day_of_month(index);
	case PERIOD_DAYS:
		return index * p.days + p.anchor;
	}
	check_failed("no such period", __FILE__, __LINE__);
}

int64_t
period_index(struct period p, int64_t wall_ns)
{
	return period_of_day(p, period_day(wall_ns));
}

int64_t
period_begin_ns(struct period p, int64_t index)
{
	return first_day(p, index) * NS_PER_DAY;
}

int64_t
period_end_ns(struct period p, int64_t wall_ns)
{
	return p.kind == PERIOD_TOTAL ? 0 : period_begin_ns(p, period_index(p, wall_ns) + 1);
}

int64_t
period_around(struct period outer, struct period inner, int64_t inner_index)
{
	return period_of_day(outer, first_day(inner, inner_index));
}

bool
period_contains(struct period outer, int64_t outer_index, struct period inner, int64_t inner_index)
{
	if (outer.kind == PERIOD_TOTAL || inner.kind == PERIOD_TOTAL)
		return outer.kind == PERIOD_TOTAL;
	return first_day(inner, inner_index) >= first_day(outer, outer_index) &&
	    first_day(inner, inner_index + 1) <= first_day(outer, outer_index + 1);
}
