/*
 * store/records.h -- records and durable meters in LMDB: the keeper's side,
 * and the readers'.
 *
 * <data>/records/YYYY-MM-DD, one environment a day (UTC day of the commit):
 *	`records`	id (u64, big-endian) -> epoch, worker, sequence, charges, record
 *	`positions`	(epoch, worker) -> last sequence in this environment
 * <data>/ledger:
 *	`meters`	(meter id) -> kind, unit, period, period index, spent; or when a bucket is full; name
 *	`positions`	(epoch, worker) -> last sequence whose charges are in `meters`
 *
 * ("worker" is a ring's row: the workers', then that of the tools.)
 *
 * A record's id is max(last id + 1, wall clock in ns at the commit): strictly
 * rising, and near enough to time to seek by it. It lies in the day of its id,
 * also when the clock was set back. A flush commits the records first, then
 * the meters; positions are written in the same transactions, so that a replay
 * after a crash at any point counts nothing twice, and a start can carry over
 * into the ledger what only a day's environment has. (So a lost ledger is
 * rebuilt from the records that are kept.)
 */
#ifndef WEIR_STORE_RECORDS_H
#define WEIR_STORE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/arena.h"
#include "shm/base/check.h"
#include "shm/base/slice.h"
#include "shm/ring.h"
#include "store/record.h"

/* ---- writing: keeper, and the recovery child at start ---- */

struct writer;

#define WRITER_BATCH_RECORDS 8192	/* some 10 MB: a commit of a few ms */

struct writer *writer_open(const char *data_dir, char *why, size_t why_size);
	/* Creates what is missing. One at a time (a lock file says who has it).
	 * Carries records that the ledger lacks into it. NULL: see why. */
struct writer_options {
	int64_t (*wall_ns)(void);	/* names the day and the ids */
	size_t day_map_bytes;		/* a day's map at first; it doubles when full */
};
struct writer *writer_open_with(const char *data_dir, const struct writer_options *options, char *why, size_t why_size);
	/* For tests of midnight and of full maps: writer_open() takes
	 * clock_wall_ns() and 16 GiB (of address space, not of disk). */
void writer_close(struct writer *w);
int writer_flush(struct writer *w, struct arena *a, uint32_t *records, char *why, size_t why_size) MUST_CHECK;
	/*
	 * Drains all rings, bounded to a batch: records, positions, meters,
	 * then ring_advance(). 0 and the number of items taken off the rings;
	 * *records 0: they are empty. -1 and a sentence when the store failed
	 * (disk full): nothing advanced, try again later.
	 */
bool writer_drained(const struct writer *w);
	/* The last flush worked, and read each ring to its end: all that was in
	 * them when it began is durable. */
typedef void writer_booked_fn(struct meter_id id, uint64_t what, int64_t before, int64_t after, void *arg);
void writer_on_booked(struct writer *w, writer_booked_fn *booked, void *arg);
	/* Called after each commit for each budget that it changed, with what was
	 * spent before and after (of the same period; a new one begins at 0). These
	 * come from inside the commit, so no change is told twice, whoever dies; what
	 * a dead keeper had stored and not booked is told at once, by this call. (A
	 * death in the moment between commit and call is the one way to miss one.)
	 * For thresholds. */

/* ---- reading: workers, tools, tests ---- */

struct reader;

struct reader *reader_open(const char *data_dir, char *why, size_t why_size);
	/* After the fork, once a process (LMDB's rule). NULL: see why. */
void reader_close(struct reader *r);
typedef bool reader_each_fn(uint64_t id, const struct record *rec, const struct ring_charge *charges, uint32_t n, void *arg);
	/* The charges were those of the request: aligned, valid during the call. */
int reader_scan(struct reader *r, uint64_t from_id, uint64_t to_id, reader_each_fn *each, void *arg) MUST_CHECK;
	/* Records with from_id <= id < to_id, over all days, in order. Stops
	 * when each() returns false. Finds days that appear later (--follow).
	 * Leaves out what is not a record of a version that we know. -1: the
	 * store could not be read. */
struct stored_meter {
	struct meter_id id;
	struct level level;
	struct slice name;	/* as of its last booking; valid during the call */
};
typedef bool reader_meter_fn(const struct stored_meter *m, void *arg);
int reader_meters(struct reader *r, reader_meter_fn *each, void *arg) MUST_CHECK;
	/* Durable levels: what a worker would load. */
int reader_level(struct reader *r, struct meter_id id, struct level *out) MUST_CHECK;
	/* One of them, for whoever meets a meter that is not in memory: a few loads
	 * and no lock. 0; out->known says whether the store has it. -1: it could
	 * not be read, which must not be taken for "nothing was spent". */

#endif
