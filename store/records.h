/*
 * store/records.h -- records and durable meters in LMDB: the keeper's side,
 * and the readers'.
 *
 * <data>/records/YYYY-MM-DD, one environment a day (UTC day of the commit):
 *	`records`	id (u64, big-endian) -> epoch, worker, sequence, charges, record
 *	`positions`	(epoch, worker) -> last sequence in this environment
 * <data>/ledger:
 *	`meters`	(meter id) -> period, period index, spent
 *	`positions`	(epoch, worker) -> last sequence whose charges are in `meters`
 *
 * A record's id is max(last id + 1, wall clock in ns at the commit): strictly
 * rising, and near enough to time to seek by it. A flush commits the records
 * first, then the meters; positions are written in the same transactions, so
 * that a replay after a crash at any point counts nothing twice, and a start
 * can carry over into the ledger what only the day's environment has.
 */
#ifndef WEIR_STORE_RECORDS_H
#define WEIR_STORE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/arena.h"
#include "shm/base/check.h"
#include "shm/base/slice.h"
#include "store/record.h"

/* ---- writing: keeper, and the recovery child at start ---- */

struct writer;

struct writer *writer_open(const char *data_dir, char *why, size_t why_size);
	/* Creates what is missing. One at a time (a lock file says who has it).
	 * Carries records that the ledger lacks into it. NULL: see why. */
void writer_close(struct writer *w);
int writer_flush(struct writer *w, struct arena *a, uint32_t *records, char *why, size_t why_size) MUST_CHECK;
	/*
	 * Drains all rings, bounded to a batch: records, positions, meters,
	 * then ring_advance(). 0 and the number of records stored; -1 when the
	 * store failed (disk full): nothing advanced, try again later.
	 */
int writer_load_meters(struct writer *w, struct arena *a) MUST_CHECK;
	/* Durable budget levels into a new arena (ledger_load). */

/* ---- reading: weir logs, admin, tests ---- */

struct reader;

struct reader *reader_open(const char *data_dir, char *why, size_t why_size);
void reader_close(struct reader *r);
typedef bool reader_each_fn(uint64_t id, const struct record *rec, void *arg);
int reader_scan(struct reader *r, uint64_t from_id, uint64_t to_id, reader_each_fn *each, void *arg) MUST_CHECK;
	/* Records with from_id <= id < to_id, over all days, in order. Stops
	 * when each() returns false. Finds days that appear later (--follow). */
typedef bool reader_meter_fn(uint64_t hi, uint64_t lo, uint32_t period, int64_t period_index,
    int64_t spent_nusd, void *arg);
int reader_meters(struct reader *r, reader_meter_fn *each, void *arg) MUST_CHECK;
	/* Durable levels: what a start after a power loss would load. */

#endif
