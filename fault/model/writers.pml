/*
 * The write protocol of filestore, for the model checker Spin.
 *
 * Three processes do OPERATIONS operations on one session, in any order and at the same time: Set, Create, Update,
 * Touch, Destroy, Reap and Get. A process can be killed before each of its steps. The power can fail at any moment.
 * Spin tries every order of all steps, and finds out whether these promises are kept:
 *
 *	P1  a reader sees one complete version, the present one; a power cut leaves one complete version, or none
 *	P2  what was acknowledged stays; after a kill too, and after a power cut if it was not a Touch
 *	P4  no Update is lost
 *	P5  a destroyed session does not come back, neither by a writer nor by a power cut
 *	P6  the reaper removes no session that was renewed
 *	P9  nobody waits for the lock of a killed process
 *
 * Each switch leaves out one rule of the protocol, and then a promise is broken. model_test.go says which one.
 *
 *	NO_COMPARE            a writer does not look again under the lock
 *	CREATE_WITHOUT_LOOK   a Create does not
 *	REAP_WITHOUT_LOOK     the reaper does not
 *	VERSION_ONLY          a writer looks at the version, and never at the bytes
 *	LATE_CLOCK            a reader looks at the clock after the file, not before
 *	CACHE_UNSETTLED       the cache also keeps what is not settled
 *	GIVE_UP               a writer that meets a conflict does not try again, and returns nil
 *	NO_LOCK               nobody takes the lock
 *	SET_WITHOUT_LOCK      a Set does not take it
 *	TOUCH_WITHOUT_LOCK    a Touch does not
 *	DESTROY_WITHOUT_LOCK  a Destroy does not
 *	REAP_WITHOUT_LOCK     the reaper does not
 *	LOCK_OUTLIVES_KILL    the kernel does not free the lock of a killed process
 *	IN_PLACE              a writer writes into the file that has the name
 *	NO_WRITE_OUT          bytes are not written out before the rename
 *	FLUSH_LATE            they are flushed, but after the rename
 *	TOUCH_UNORDERED       a Touch does not write them out
 *	ONE_FLUSH_ON_BTRFS    they are written out, but not flushed, on btrfs too
 *	NO_DIR_FLUSH          the directory is not flushed
 *	DESTROY_WITHOUT_FLUSH a Destroy does not flush it
 *	FLUSH_OWN_ONLY        a Destroy flushes it only if it has removed something
 *
 * Settings: OPERATIONS=n, up to 15. TICKS=n: how often the clock ticks. POWER: there is a disk, and power cuts.
 * ORDERED=0: the file system does not commit bytes before the rename, as btrfs. NODE: each Set and each Destroy is
 * Node's, which takes no lock. ONLY=n: only promise n counts.
 *
 * The shortest way to a broken promise:
 *
 *	spin -a -DNO_COMPARE writers.pml && cc -DSAFETY -DBFS -o pan pan.c && ./pan
 *	spin -t -p -DNO_COMPARE writers.pml
 */

#ifndef OPERATIONS
#define OPERATIONS 4
#endif
#ifndef TICKS
#define TICKS 1
#endif
#ifndef ORDERED
#define ORDERED 1
#endif
#ifndef ONLY
#define ONLY 0
#endif

/* The promises are variables, because Spin prints the name of what is not true. */
bool P1 = true, P2 = true, P4 = true, P5 = true, P6 = true, P9 = true;

inline promise(n, p, condition) {
	p = (condition) || (ONLY && ONLY != n);
	assert(p)
}

/*
 * The session's file holds a document: a value, OLD or NEW, and the number of Updates since that was set. So an
 * Update is an increment, and a lost one shows. Two documents that are equal have equal bytes. All Sets store the
 * same, so that bytes do come back.
 *
 * Temporary files are not in the model. Nobody looks at those of others, and what a kill leaves has no effect.
 */
byte document;
#define NONE 0 /* there is no file */
#define COUNT 15
#define OLD 16
#define RENEWED 32 /* accessed since the beginning */
#define NEW 64
#define TORN 128 /* bytes are missing */
#define value(d) ((d) & NEW)
#define count(d) ((d) & COUNT)

/* The session has expired if it was not renewed: from some moment on. */
bool over;
#define expired(d) ((d) == OLD && over)
#define live(d) ((d) != NONE && !expired(d))

/*
 * A file's version is its inode and its ctime, which is that of the rename. Size and mtime do not count: they can be
 * equal. The clock ticks seldom, so many changes have one ctime.
 *
 * since says what has happened to the name since a process looked. A file that takes the name of another one
 * exists beside it, and has another inode. The next file can have the first inode again.
 */
byte clock, ctime;
#define NOTHING 0
#define REPLACED 1
#define REUSED 2 /* replaced again: maybe the same inode */
#define DESTROYED 3 /* removed, and maybe made again: maybe the same inode */
#define UNSEEN 4 /* there is nothing to remember */
byte since[4] = UNSEEN;

#define sameFile(since, time) (document != NONE && (time) == ctime && (since) == NOTHING)
#define versionMatches(since, time) (document != NONE && (time) == ctime && (since) != REPLACED && (since) != UNSEEN)

inline note(s, what) {
	if
	:: what == DESTROYED && s != UNSEEN -> s = DESTROYED
	:: what == REPLACED && s < REUSED -> s++
	:: else
	fi
}

inline changed(what) {
	note(since[1], what);
	note(since[2], what);
	note(since[3], what);
	note(cachedSince, what)
}

/* All processes have one cache, of one document. They need not fill it, and a Destroy or a kill does not empty it.
 * So it stands for any document in the cache of any process. */
byte cached, cachedTime, cachedSince = UNSEEN;
#ifdef CACHE_UNSETTLED
#define cacheable (seen != NONE)
#else
#define cacheable (seen != NONE && settled)
#endif

mtype = { Set, Create, Update, Touch, Destroy, Reap, Get };
mtype = { Idle, Clock, Lock, Compare, Change, Half, Unlock, Conflict, Again, Date, Flush, Ack };
mtype step[4] = Idle; /* what each process does next; the processes are 1 to 3 */
byte left = OPERATIONS;
byte lock; /* who holds it; 0: nobody */

#if defined(NO_LOCK)
#define locks false
#elif defined(SET_WITHOUT_LOCK)
#define locks (op != Set)
#elif defined(TOUCH_WITHOUT_LOCK)
#define locks (op != Touch)
#elif defined(DESTROY_WITHOUT_LOCK)
#define locks (op != Destroy)
#elif defined(REAP_WITHOUT_LOCK)
#define locks (op != Reap)
#elif defined(NODE)
#define locks (op != Set && op != Destroy)
#else
#define locks true
#endif
#define canLock (!locks || lock == 0)

inline unlock() {
	if
	:: lock == me -> lock = 0
	:: else
	fi
}

/*
 * The disk. kept[0] is what the session's name held when the directory was flushed last. The rest of kept is what it
 * held after each change since then. The file system commits the changes in this order, when it likes: because time
 * has passed, or because somebody flushes something. So a power cut can leave any of them. Bytes that were not
 * flushed before the rename can be missing then. On an ordered file system it is enough that they were written out.
 * This is not proved here. TestPowerCut measures it.
 */
mtype = { Dirty, WrittenOut, Flushed };
#if defined(NO_WRITE_OUT) || defined(FLUSH_LATE)
#define bytes Dirty
#elif defined(TOUCH_UNORDERED)
#define bytes (op == Touch -> Dirty : (ORDERED -> WrittenOut : Flushed))
#elif defined(ONE_FLUSH_ON_BTRFS)
#define bytes WrittenOut
#else
#define bytes (ORDERED -> WrittenOut : Flushed)
#endif

#ifdef POWER
byte kept[OPERATIONS + 1];
byte changes;
byte mine[4]; /* the change that each process will acknowledge; 0: it was flushed, or there is none */
byte ackedWrite, ackedDestroy; /* the last change that was acknowledged and not flushed; 0: none */

inline journal() {
	changes++;
	kept[changes] = document;
	if
	:: document == NONE || bytes == Flushed || bytes == WrittenOut && ORDERED
	:: else -> kept[changes] = document | TORN
	fi
}

inline flushDirectory() {
	kept[0] = kept[changes];
	do
	:: changes > 0 -> kept[changes] = NONE; changes--
	:: else -> break
	od;
	mine[1] = 0;
	mine[2] = 0;
	mine[3] = 0;
	ackedWrite = 0;
	ackedDestroy = 0
}

#else
inline journal() { skip }
#endif

#if defined(NO_DIR_FLUSH)
#define flushes false
#elif defined(DESTROY_WITHOUT_FLUSH)
#define flushes (op != Destroy)
#elif defined(FLUSH_OWN_ONLY)
#define flushes (op != Destroy || removed)
#else
#define flushes true
#endif

inline forget() {
	seen = NONE;
	seenTime = 0;
	settled = false;
	since[me] = UNSEEN
}

inline finish() {
	forget();
	op = 0;
	done = false;
#ifdef POWER
	mine[me] = 0;
#endif
	step[me] = Idle
}

/* An operation returns nil. */
inline acknowledge() {
	promise(4, P4, op != Update || done);
	promise(2, P2, op != Create || done);
#ifdef POWER
	if
	:: op == Destroy && mine[me] > ackedDestroy -> ackedDestroy = mine[me]
	:: op != Destroy && mine[me] > ackedWrite -> ackedWrite = mine[me]
	:: else
	fi;
#endif
	finish()
}

/* Idle processes are all alike, so only the first one begins. An operation begins with its first look: what it does
 * before that concerns nobody. */
#define idle (left > 0 && step[me] == Idle && (me < 2 || step[1] != Idle) && (me < 3 || step[2] != Idle))

inline begin(what) {
	left--;
	op = what
}

/* What is read is what had the name when it was opened. If its ctime is that of an earlier tick, all later changes
 * have a later one. */
inline readFile() {
	seen = document;
	seenTime = ctime;
	promise(1, P1, !(seen & TORN));
	if
	:: seen != NONE -> since[me] = NOTHING
	:: else
	fi;
#ifdef LATE_CLOCK
	step[me] = Clock
#else
	settled = (ctime < clock);
	judge()
#endif
}

#define hit (cached != NONE && versionMatches(cachedSince, cachedTime))

inline readCache() {
	seen = cached;
	seenTime = ctime;
	promise(1, P1, seen == document);
	since[me] = NOTHING;
	settled = true;
	judge()
}

inline judge() {
	if
	:: (op == Update || op == Touch) && live(seen) -> step[me] = Lock
	:: op == Create && !live(seen) -> step[me] = Lock
	:: op == Reap && expired(seen) -> step[me] = Lock
	:: op == Reap && live(seen) -> step[me] = Date
	:: else -> finish()
	fi
}

/* The look under the lock. Another file can have the version that was seen, or not. */
#if defined(NO_COMPARE)
#define compares false
#elif defined(CREATE_WITHOUT_LOOK)
#define compares (op != Set && op != Destroy && op != Create)
#elif defined(REAP_WITHOUT_LOOK)
#define compares (op != Set && op != Destroy && op != Reap)
#else
#define compares (op != Set && op != Destroy)
#endif
#ifdef VERSION_ONLY
#define sameBytes true
#else
#define sameBytes (settled || seen == document)
#endif
#define stillNone (seen == NONE && document == NONE)
#define maySeemSame (stillNone || versionMatches(since[me], seenTime) && sameBytes)
#define maySeemChanged (!stillNone && !sameFile(since[me], seenTime))

#define made (op == Set || op == Create -> OLD | NEW | RENEWED : (seen | RENEWED) + (op == Update -> 1 : 0))

/* The new document takes the place of the present one. What is in that, and was not seen, is lost. */
inline rename() {
	if
	:: op == Update || op == Touch ->
		promise(5, P5, document != NONE && (since[me] != DESTROYED || seen == document));
		promise(4, P4, value(seen) != value(document) || count(seen) >= count(document));
		promise(2, P2, value(seen) == value(document) && count(seen) <= count(document))
	:: op == Create ->
		promise(2, P2, !live(document))
	:: else
	fi;
	document = made;
	ctime = clock;
	changed(REPLACED);
	journal()
}

inline unlink() {
	if
	:: op == Reap -> promise(6, P6, !live(document))
	:: else
	fi;
#ifdef FLUSH_OWN_ONLY
	removed = (document != NONE);
#endif
	if
	:: document != NONE ->
		document = NONE;
		ctime = 0;
		changed(DESTROYED);
		journal()
	:: else /* somebody has removed it, and may not have flushed */
	fi
}

inline take() {
	if
	:: op == Destroy || op == Reap -> unlink()
	:: else -> rename()
	fi;
	forget();
	done = true;
#ifdef POWER
	mine[me] = changes;
#endif
	step[me] = Unlock
}

/* Each alternative of the loop is one step. Another process can do any number of its own before and after it. */
proctype process(byte me) {
	mtype op;
	byte seen, seenTime; /* the document that was loaded, and its ctime */
	bool settled; /* no later version can look the same */
	bool done; /* renamed or unlinked */
#ifdef FLUSH_OWN_ONLY
	bool removed;
#endif
end:
	do
	/* The process is killed, before its next step. Another one takes its place. */
	:: d_step { step[me] != Idle && (step[me] != Lock || canLock) ->
#ifndef LOCK_OUTLIVES_KILL
		unlock();
#endif
		finish()
	}

	/* 1. Load. */
	:: d_step { idle -> begin(Get); readFile() }
	:: d_step { idle && hit -> begin(Get); readCache() }
	:: d_step { idle -> begin(Create); readFile() }
	:: d_step { idle && hit -> begin(Create); readCache() }
	:: d_step { idle -> begin(Update); readFile() }
	:: d_step { idle && hit -> begin(Update); readCache() }
	:: d_step { idle -> begin(Touch); readFile() }
	:: d_step { idle && hit -> begin(Touch); readCache() }
	:: d_step { idle -> begin(Reap); readFile() }
	:: d_step { step[me] == Again -> readFile() }
	:: d_step { step[me] == Again && hit && op != Reap -> readCache() }
#ifdef LATE_CLOCK
	:: d_step { step[me] == Clock -> settled = (seenTime < clock); judge() }
#endif
	:: d_step { step[me] == Lock && cacheable && op != Reap ->
		cached = seen;
		cachedTime = seenTime;
		cachedSince = since[me]
	}

	/* A Set and a Destroy load nothing. */
	:: d_step { idle -> begin(Set); step[me] = Lock }
	:: d_step { idle -> begin(Destroy); step[me] = Lock }

	/* 2. Write a temporary file, which nobody sees. 3. Lock. */
	:: d_step { step[me] == Lock && canLock ->
		if
		:: locks -> lock = me
		:: else
		fi;
		if
		:: compares -> step[me] = Compare
		:: else -> step[me] = Change
		fi
	}

	/* 4. Look again. */
	:: d_step { step[me] == Compare && maySeemSame -> step[me] = Change }
#ifdef GIVE_UP
	:: d_step { step[me] == Compare && maySeemChanged -> forget(); step[me] = Unlock }
#else
	:: d_step { step[me] == Compare && maySeemChanged -> forget(); step[me] = Conflict }
#endif
	:: d_step { step[me] == Conflict -> unlock(); step[me] = Again }

	/* 5. Rename or unlink. */
#ifdef IN_PLACE
	:: d_step { step[me] == Change && op != Destroy && op != Reap -> document = document | TORN; step[me] = Half }
	:: d_step { step[me] == Change && (op == Destroy || op == Reap) -> take() }
	:: d_step { step[me] == Half -> document = document & ~TORN; take() }
#else
	:: d_step { step[me] == Change -> take() }
#endif

	/* 6. Unlock. 7. Flush the directory. 8. Return. */
#ifndef POWER
	:: d_step { step[me] == Unlock -> unlock(); acknowledge() }
#else
	:: d_step { step[me] == Unlock ->
		unlock();
		if
		:: op == Touch || op == Reap -> finish()
		:: else -> step[me] = (flushes -> Flush : Ack)
		fi
	}
	:: d_step { step[me] == Flush ->
#ifdef FLUSH_LATE
		kept[mine[me]] = kept[mine[me]] & ~TORN;
#endif
		flushDirectory();
		step[me] = Ack
	}
	:: d_step { step[me] == Ack -> acknowledge() }
#endif

	/* The reaper sets the mtime of a session that is alive. It takes no lock. */
	:: d_step { step[me] == Date ->
		if
		:: versionMatches(since[me], seenTime) -> ctime = clock
		:: else
		fi;
		finish()
	}
	od
}

proctype time() {
end:
	do
	:: d_step { clock < TICKS -> clock++ }
	:: d_step { !over -> over = true }
	od
}

#ifdef POWER
/* The power can fail at any moment. So at any moment all that it could leave has to be right. */
proctype power() {
	byte k;
end:
	do
	:: d_step { true ->
		assert((kept[changes] & ~TORN) == (document & ~TORN)); /* the model is right: readers see the last change */
		do
		:: k <= changes ->
			promise(1, P1, !(kept[k] & TORN));
			promise(2, P2, k >= ackedWrite);
			promise(5, P5, k >= ackedDestroy || kept[k] == NONE);
			k++
		:: else -> break
		od;
		k = 0
	}
	od
}
#else
/* If nobody can go on, all have ended. */
proctype quiet() {
end:
	atomic { timeout -> promise(9, P9, step[1] == Idle && step[2] == Idle && step[3] == Idle) }
}
#endif

init {
	atomic {
		if
		:: document = OLD
		:: skip
		fi;
#ifdef POWER
		kept[0] = document;
		run power();
#else
		run quiet();
#endif
		run time();
		run process(1);
		run process(2);
		run process(3)
	}
}
