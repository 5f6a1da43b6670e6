/*
 * The lock, the undo journal, the repair, a dead worker's pages, the rings and
 * the keeper (docs/ledger.md; shm/journal.c, ledger.c, inflight.c, ring.c), for
 * spin, which tries every order in which the processes can take their steps,
 * with a death between any two of them.
 *
 * Two workers serve requests: admit on two meters (or undo, as a load does that
 * finds no row), send, meter, settle. A master ends what dead workers left and
 * starts them again, a keeper stores the rings, one process only looks. A
 * statement is one store to shared memory; what stands in an atomic or d_step
 * is one store with the test's own notes beside it. Death is what the kernel
 * makes of SIGKILL: nothing more is done, and a lock that was held says so to
 * the next one.
 *
 * A move (shm/move.c) is not here: it is one more step of noted words, and what it
 * writes before is in a page that nobody looks at. Who looks at pages without the
 * lock is in eviction.pml.
 *
 * Each MUTANT_... is a protocol with one fault; run.py wants an error of each.
 * Not modelled: power loss (the arena does not survive it) and stores that
 * another processor sees in another order (program order is enough for a death;
 * for those who look, layout.h pairs a release with an acquire).
 */
#ifndef REQUESTS0
#define REQUESTS0 1		/* of each worker */
#define REQUESTS1 1
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#define WORKERS 2
#define RING 1			/* items of a ring: it is often full */
#define LIMIT 2			/* of the second meter: one request at a time */

/* Processes by _pid: workers are 0 and 1. */
#define MASTER 2
#define KEEPER 3
#define NOBODY 254
#define DIED 255		/* what the kernel leaves in a lock */

/* Words that a step changes, all in one array, so that a note can name one. */
#define HELD(m) (m)
#define SPENT(m) (2 + (m))
#define PAGE(w) (4 + (w))
#define HEAD(w) (6 + (w))
#define WORDS 8
byte mem[WORDS];
byte snap[WORDS];		/* the test's: as the last step left them */

#define FREE 0
#define ADMITTED 1
#define SENT 2
#define DONE 3

#define NOTES 8
byte count[WORKERS];		/* the journals */
byte noted[WORKERS * NOTES];
byte old[WORKERS * NOTES];

byte owner = NOBODY;		/* the robust mutex */
bool broken;			/* locked after a death, not yet called consistent */
byte sequence;

byte visible[WORKERS], tail[WORKERS];
byte slot[WORKERS * RING];
byte metered_a[WORKERS * 2], metered_b[WORKERS * 2];	/* two words of one metering, two copies */
bit metered_at[WORKERS];

bool dead[4], running[4];
byte deaths;

/* What is true, as the test knows it. */
byte asked[WORKERS];
byte spent_truly[2];
#define ALL (REQUESTS0 + REQUESTS1)
bool admitted[ALL], ended[ALL], stored[ALL];
byte stored_sequence[WORKERS];	/* in the store, one transaction with the items */
bool finished[WORKERS];

#define REQUEST(w) ((w) * REQUESTS0 + asked[w] - 1)

inline audit()
{
	d_step {
		assert(mem[0] == snap[0] && mem[1] == snap[1] && mem[2] == snap[2] && mem[3] == snap[3]);
		assert(mem[4] == snap[4] && mem[5] == snap[5] && mem[6] == snap[6] && mem[7] == snap[7]);
		assert(count[0] == 0 && count[1] == 0);
		assert(mem[HELD(0)] == 2 * ((mem[PAGE(0)] != FREE) + (mem[PAGE(1)] != FREE)));
		assert(mem[HELD(1)] == 2 * ((mem[PAGE(0)] != FREE) + (mem[PAGE(1)] != FREE)));
		assert(mem[HELD(1)] <= LIMIT);
		assert(mem[SPENT(0)] == spent_truly[0] && mem[SPENT(1)] == spent_truly[1]);
		assert(sequence % 2 == 0);
	}
}

/* ---- the journal ---- */

inline set(j, word, value)
{
#ifdef MUTANT_NOTE_LATE
	mem[word] = value;
#endif
	d_step {
		noted[j * NOTES + count[j]] = word;
#ifdef MUTANT_NOTE_LATE
		old[j * NOTES + count[j]] = snap[word];
#else
		old[j * NOTES + count[j]] = mem[word];
#endif
	}
	count[j] = count[j] + 1;
#ifndef MUTANT_NOTE_LATE
	mem[word] = value;
#endif
}

inline roll_back(j)
{
	n = count[j];
#ifdef MUTANT_EMPTIED_FIRST
	count[j] = 0;
#endif
#ifdef MUTANT_UNDO_FORWARD
	i = 0;
	do
	:: i < n -> d_step { mem[noted[j * NOTES + i]] = old[j * NOTES + i]; i++ }
	:: else -> break
	od;
#else
	do
	:: n > 0 -> d_step { n--; mem[noted[j * NOTES + n]] = old[j * NOTES + n] }
	:: else -> break
	od;
#endif
	count[j] = 0;
	n = 0;
	i = 0
}

inline repair()
{
	roll_back(0);
	roll_back(1);
#ifndef MUTANT_REPAIR_HIDES
	visible[0] = mem[HEAD(0)];
	visible[1] = mem[HEAD(1)];
#endif
#ifndef MUTANT_SEQUENCE_STAYS_ODD
	if
	:: sequence % 2 == 1 -> sequence++
	:: else
	fi
#endif
}

inline lock(me)
{
	if
	:: atomic { owner == NOBODY -> owner = me }
	:: atomic { owner == DIED -> owner = me; broken = true };
		repair();
#ifndef MUTANT_NEVER_CONSISTENT
		broken = false
#endif
	fi;
	audit()
}

inline unlock()
{
	atomic {
		assert(!broken);	/* or nobody could ever lock it again */
		owner = NOBODY
	}
}

inline begin(me)
{
	lock(me);
#ifndef MUTANT_STEP_UNMARKED
	sequence++
#endif
}

inline end(j)
{
	visible[j] = mem[HEAD(j)];
#ifdef MUTANT_STEP_UNMARKED
	sequence++;
#endif
	sequence++;
	unlock()
}

inline remember()
{
	snap[0] = mem[0]; snap[1] = mem[1]; snap[2] = mem[2]; snap[3] = mem[3];
	snap[4] = mem[4]; snap[5] = mem[5]; snap[6] = mem[6]; snap[7] = mem[7]
}

/* ---- the steps ---- */

/* Two charges on the first meter, so that a word changes twice. */
inline admit(w)
{
	begin(w);
	set(w, HELD(0), mem[HELD(0)] + 1);
	set(w, HELD(0), mem[HELD(0)] + 1);
	if
	:: mem[HELD(1)] + 2 > LIMIT ->
		roll_back(w);
		audit_after_undo()
	:: else ->
		set(w, HELD(1), mem[HELD(1)] + 2);
#ifdef MUTANT_PAGE_WITHOUT_NOTE
		mem[PAGE(w)] = ADMITTED;
#else
		set(w, PAGE(w), ADMITTED);
#endif
		d_step { count[w] = 0; remember(); admitted[REQUEST(w)] = true }
	fi;
	end(w)
}

inline audit_after_undo()
{
	d_step { assert(mem[0] == snap[0] && mem[1] == snap[1]); assert(count[0] == 0 && count[1] == 0) }
}

/* Ends the request of worker w by whoever acts for it, with what it has cost:
 * 0 is a cancel too. There is room in the ring. */
inline finish(me, w, cost)
{
	slot[w * RING + mem[HEAD(w)] % RING] = REQUEST(w);	/* behind the head: nobody looks */
	begin(me);
	set(w, HELD(0), mem[HELD(0)] - 2);
	set(w, SPENT(0), mem[SPENT(0)] + cost);
	set(w, HELD(1), mem[HELD(1)] - 2);
	set(w, SPENT(1), mem[SPENT(1)] + cost);
	set(w, HEAD(w), mem[HEAD(w)] + 1);
	set(w, PAGE(w), FREE);
	d_step {
		count[w] = 0;
		remember();
		ended[REQUEST(w)] = true;
		spent_truly[0] = spent_truly[0] + cost;
		spent_truly[1] = spent_truly[1] + cost
	}
	end(w)
}

#define ROOM(w) (mem[HEAD(w)] - tail[w] < RING)

/* By the page's owner, without the lock. */
inline state(w, value)
{
	d_step { mem[PAGE(w)] = value; snap[PAGE(w)] = value }
}

inline meter(w, value)
{
#ifdef MUTANT_ONE_COPY
	metered_a[w * 2 + metered_at[w]] = value;
	metered_b[w * 2 + metered_at[w]] = value
#else
	metered_a[w * 2 + 1 - metered_at[w]] = value;
	metered_b[w * 2 + 1 - metered_at[w]] = value;
	metered_at[w] = 1 - metered_at[w]
#endif
}

inline serve(w)
{
	admit(w);
	if
	:: mem[PAGE(w)] == ADMITTED ->
		state(w, SENT);
		meter(w, 1);
		if
		:: ROOM(w)
		:: !ROOM(w) ->
			state(w, DONE);
			ROOM(w)
		fi;
		finish(w, w, 2)
	:: else
	fi
}

active [WORKERS] proctype worker()
{
	byte n, i;

	do
	:: asked[_pid] < (_pid == 0 -> REQUESTS0 : REQUESTS1) ->
		d_step {
			asked[_pid] = asked[_pid] + 1;
			metered_a[_pid * 2 + metered_at[_pid]] = 0;
			metered_b[_pid * 2 + metered_at[_pid]] = 0;
			running[_pid] = true
		}
		{ serve(_pid) } unless { dead[_pid] };
		atomic { running[_pid] = false; n = 0; i = 0 }
		!dead[_pid]		/* the master starts another one */
	:: else -> break
	od;
	finished[_pid] = true
}

inline reclaim(w)
{
#ifndef MUTANT_RECLAIM_BEFORE_REPAIR
	lock(MASTER);
	unlock();
#endif
	if
	:: mem[PAGE(w)] == FREE
	:: mem[PAGE(w)] != FREE ->
		d_step {
			cost = (mem[PAGE(w)] == ADMITTED -> 0 : metered_a[w * 2 + metered_at[w]]);
			assert(mem[PAGE(w)] == ADMITTED || metered_b[w * 2 + metered_at[w]] == cost);
			cost = (mem[PAGE(w)] == DONE -> 2 : cost)
		}
		ROOM(w);
		finish(MASTER, w, cost)
	fi;
	d_step { dead[w] = false; cost = 0 }
}

active proctype master()
{
	byte n, i, cost;

end_idle:
	do
	:: d_step { dead[0] && !running[0] -> running[MASTER] = true; i = 0 }
		{ reclaim(0) } unless { dead[MASTER] };
		atomic { running[MASTER] = false; dead[MASTER] = false; n = 0; i = 0; cost = 0 }
	:: d_step { dead[1] && !running[1] -> running[MASTER] = true; i = 0 }
		{ reclaim(1) } unless { dead[MASTER] };
		atomic { running[MASTER] = false; dead[MASTER] = false; n = 0; i = 0; cost = 0 }
	od
}

/* An item that a keeper before us has stored. */
#ifdef MUTANT_STORES_TWICE
#define KNOWN(w, at) false
#else
#define KNOWN(w, at) (at < stored_sequence[w])
#endif

/* Stores item by item what it can see; the store's transaction is one statement. */
inline keep(w)
{
#ifdef MUTANT_KEEPER_SEES_THE_HEAD
	to = mem[HEAD(w)];
#else
	to = visible[w];
#endif
	do
	:: at < to ->
		item = slot[w * RING + at % RING];
#ifdef MUTANT_TAIL_FIRST
		tail[w] = at + 1;
#endif
		d_step {
			assert(KNOWN(w, at) || (ended[item] && !stored[item]));
			stored[item] = true;
			stored_sequence[w] = (KNOWN(w, at) -> stored_sequence[w] : at + 1)
		}
		tail[w] = at + 1;
		at++
	:: else -> break
	od
}

active proctype keeper()
{
	byte at, to, item;

end_idle:
	do
#ifdef MUTANT_KEEPER_SEES_THE_HEAD
	:: d_step { tail[0] != mem[HEAD(0)] -> at = tail[0]; running[KEEPER] = true }
#else
	:: d_step { tail[0] != visible[0] -> at = tail[0]; running[KEEPER] = true }
#endif
		{ keep(0) } unless { dead[KEEPER] };
		atomic { running[KEEPER] = false; dead[KEEPER] = false; at = 0; to = 0; item = 0 }
	:: d_step { tail[1] != visible[1] -> at = tail[1]; running[KEEPER] = true }
		{ keep(1) } unless { dead[KEEPER] };
		atomic { running[KEEPER] = false; dead[KEEPER] = false; at = 0; to = 0; item = 0 }
	od
}

/* SIGKILL: at once, and the kernel marks the lock. */
inline strike(who)
{
	running[who] && !dead[who] && deaths < DEATHS ->
		dead[who] = true;
		deaths++;
		owner = (owner == who -> DIED : owner)
}

active proctype killer()
{
end_idle:
	do
	:: d_step { strike(0) }
	:: d_step { strike(1) }
	:: d_step { strike(MASTER) }
	:: d_step { strike(KEEPER) }
	od
}

/* If this is not reached, something is lost or stuck: an invalid end state. */
active proctype monitor()
{
	byte i;

	atomic {
		finished[0] && finished[1] && tail[0] == mem[HEAD(0)] && tail[1] == mem[HEAD(1)] && owner == NOBODY ->
		audit()
	};
	d_step {
		assert(mem[HELD(0)] == 0 && mem[HELD(1)] == 0);
		i = 0;
		do
		:: i < ALL -> assert(admitted[i] == ended[i] && ended[i] == stored[i]); i++
		:: else -> break
		od
	}
}

#ifdef LOOKER
/* A look is good if the sequence was even and is the same afterwards. Every
 * step leaves the same held on both meters. */
active proctype looker()
{
	byte before, a, b;

	d_step { sequence % 2 == 0 -> before = sequence }
	a = mem[HELD(0)];
	b = mem[HELD(1)];
	assert(sequence != before || a == b)
}
#endif
