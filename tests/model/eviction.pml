/*
 * A meter leaves memory and comes back (docs/ledger.md; ledger_tick(),
 * ledger_evict(), ledger_load(), ledger_move()), for spin. That a step is whole,
 * whoever dies, is shown by ledger.pml; so a step is one statement here, but for
 * one thing: the keeper looks at the pages, one after the other, without the lock.
 * It may see one that is free in a step that is then undone, because its worker
 * died; and it may miss a request that moves, from a page that it comes to later
 * into one where it has been.
 *
 * Two workers make requests that are charged on one budget that is postpaid,
 * and so holds nothing: only the pages say that a request is in flight. A request
 * may move once, as one that leaves the meter in its page, whatever it does to it. If the
 * meter is not in memory they read its level from the store and load it. The
 * keeper ticks, stores the rings, and evicts, as often as it likes; it may
 * die, and another one begins again.
 *
 * Whenever a meter is in memory, what it says was spent is what was spent; and
 * a request ends on the meter it began on.
 */
#ifndef REQUESTS
#define REQUESTS 2		/* of each worker */
#endif
#ifndef ROUNDS
#define ROUNDS 4		/* of keepers, one after the other */
#endif
#ifndef DEATHS
#define DEATHS 2		/* of workers, in the step that ends a request */
#endif
#ifndef MOVES
#define MOVES 1			/* of a request */
#endif
#define WORKERS 2
#define PAGE(w, at) (2 * (w) + (at))

/* The arena. */
bool present;
byte level, used_at;		/* the meter's row: spent, tick of its last use */
byte tick, evictions, repairs;
bool open;			/* somebody is in the middle of a step */
bool page[2 * WORKERS];		/* in flight, charged on the meter: two pages of each worker */
byte ring[WORKERS];		/* bookings that are not stored yet */

byte store;

byte spent;			/* what is true */
byte loads;			/* how often the row was given out */
byte finished, deaths;

inline use()
{
	used_at = tick
}

/* By the worker, or if it dies by whoever comes after it. */
inline end_request()
{
	atomic { !open -> open = true };
	page[PAGE(_pid, at)] = false;
	do
	:: deaths < DEATHS ->
		atomic {		/* dies; the next one to lock undoes it */
			deaths++;
			page[PAGE(_pid, at)] = true;
			repairs++;
			open = false
		};
		atomic { !open -> open = true };
		page[PAGE(_pid, at)] = false
	:: true -> break
	od;
	atomic {
		assert(present && mine == loads);
		level++;
		spent++;
		ring[_pid]++;
		open = false;
#ifndef MUTANT_SETTLE_IS_NO_USE
		use();
#endif
		assert(level == spent);
		mine = 0
	}
}

/* Likewise. */
inline move()
{
	atomic { !open -> open = true };
	page[PAGE(_pid, 1 - at)] = true;
	page[PAGE(_pid, at)] = false;
	do
	:: deaths < DEATHS ->
		atomic {
			deaths++;
			page[PAGE(_pid, at)] = true;
			page[PAGE(_pid, 1 - at)] = false;
			repairs++;
			open = false
		};
		atomic { !open -> open = true };
		page[PAGE(_pid, 1 - at)] = true;
		page[PAGE(_pid, at)] = false
	:: true -> break
	od;
	atomic {
		assert(present && mine == loads);
		at = 1 - at;
		moved++;
		open = false;
#ifndef MUTANT_MOVE_IS_NO_USE
		use()
#endif
	}
}

inline load()
{
#ifdef MUTANT_EVICTIONS_READ_LATE
	stored = store;
	seen = evictions;
#else
	seen = evictions;
	stored = store;
#endif
	atomic {
		!open;
		if
		:: present		/* somebody else was faster */
#ifndef MUTANT_LOAD_NEVER_STALE
		:: !present && evictions != seen
		:: !present && evictions == seen ->
#else
		:: else ->
#endif
			present = true;
			level = stored;
			assert(level == spent);
			loads++;
			use()
		fi;
		seen = 0;
		stored = 0
	}
}

active [WORKERS] proctype worker()
{
	byte n, seen, stored, mine, moved;
	bit at;

	do
	:: n < REQUESTS ->
		if
		:: atomic {
			present && !open ->
			assert(level == spent);
			page[PAGE(_pid, at)] = true;
			mine = loads;
			use();
			n++
		};
			do
			:: moved < MOVES -> move()
			:: true -> break
			od;
			moved = 0;
			end_request()
		:: !present -> load()
		fi
	:: else -> break
	od;
	finished++
}

inline look()
{
	busy = page[0];
	busy = busy || page[1];
	busy = busy || page[2];
	busy = busy || page[3]
}

active proctype keeper()
{
	byte at, rounds, mended, from[WORKERS];
	bool busy;

	do
	:: rounds < ROUNDS ->
		rounds++;
#ifdef MUTANT_TICK_AFTER_READING
		from[0] = ring[0];
		from[1] = ring[1];
		d_step { !open -> tick++; at = tick };
#else
#ifdef MUTANT_SCAN_BEFORE_TICK
		mended = repairs;
		look();
#endif
		d_step { !open -> tick++; at = tick };
		from[0] = ring[0];
		from[1] = ring[1];
#endif
		d_step {		/* the commit, and the tails */
			store = store + from[0] + from[1];
			ring[0] = ring[0] - from[0];
			ring[1] = ring[1] - from[1];
			from[0] = 0;
			from[1] = 0
		}
		if
		:: true			/* dies; the next one begins */
		:: true ->
#ifndef MUTANT_SCAN_BEFORE_TICK
			mended = repairs;
			look();
#endif
			d_step {
				!open;
#ifndef MUTANT_SCAN_TRUSTS_THE_DEAD
				busy = busy || mended != repairs;
#endif
				if
#ifdef MUTANT_EVICTS_WITHOUT_SCAN
				:: present && used_at < at ->
#else
#ifdef MUTANT_EVICTS_WHAT_IS_NEW
				:: present && used_at <= at && !busy ->
#else
				:: present && used_at < at && !busy ->
#endif
#endif
					present = false;
					level = 0;
					evictions++
				:: else
				fi;
				busy = false;
				mended = 0;
				at = 0
			}
		fi
	:: else -> break
	od;
	finished++
}

active proctype monitor()
{
	d_step {
		finished == WORKERS + 1 ->
		assert(spent == WORKERS * REQUESTS);
		assert(store + ring[0] + ring[1] == spent);
		assert(!present || level == spent)
	}
}
