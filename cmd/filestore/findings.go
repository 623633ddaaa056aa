package main

// A trouble is one thing that check can find. detail is a format. docs/OPERATING.md has a row for each kind.
type trouble struct{ severity, kind, detail, advice string }

const (
	severityError   = "error"
	severityWarning = "warning"
	severityNote    = "note"
)

// Advice that is given more than once.
const (
	asOwner   = "Run check as the directory's owner"
	findOut   = "Find out who put it there, then remove it"
	rmLater   = "Its user has lost what it held and gets a new session; rm it when nobody needs it"
	giveAway  = "Find out who wrote it; if it is a session of yours, give it to the directory's user (chown)"
	remakeDir = "Stop the programs, remove it (rm -r .locks), and start them: they make it again"
	localDisk = "Move the sessions to a local disk"
)

// A session's file, from outside.
var (
	systemFails   = trouble{severityError, "unreadable", "%v", asOwner}
	diskFails     = trouble{severityError, "unreadable", "%v", "Look at the system's log: the disk may be failing"}
	notPermitted  = trouble{severityError, "unreadable", "you may not read it", asOwner}
	ownerMayNot   = trouble{severityError, "unreadable", "its owner may not read it (%04o)", "chmod 600"}
	alwaysWritten = trouble{severityWarning, "unreadable",
		"it is replaced or written all the time",
		"Find out which program does that, and run check again"}

	unsafeFile = trouble{severityError, "unsafe", "%s", findOut}
	notAFile   = trouble{severityError, "unsafe",
		"%s, which no program takes for a session",
		findOut + "; rm removes it and not the target of a link"}
	aDirectory = trouble{severityError, "unsafe",
		"%s, which no program takes for a session",
		findOut + "; beware of Node: its destroy and its reaper remove it with all that is in it"}
	strangers = trouble{severityError, "unsafe",
		"it is user %d's, the directory is user %d's, whose programs refuse it", giveAway}
	linked = trouble{severityError, "unsafe",
		"it has more than one hard link, so that somebody else may write to it; no program reads it",
		"Find the other name (find / -xdev -samefile FILE), and remove one of the two"}
	linkedCopy = trouble{severityError, "unsafe",
		"%s have more than one hard link, as a copy by cp -al or rsnapshot leaves them: whoever has the copy can write to them, so no program reads a session",
		"Remove that copy, or with the programs stopped give each its own file (cp -p FILE FILE.new; mv FILE.new FILE); back up with cp -a, tar or rsync without --link-dest"}

	rootsFile = trouble{severityWarning, "owner",
		"it is root's, the directory is user %d's, whose programs can read it only if its mode lets them", giveAway}
	inRootsDir = trouble{severityWarning, "owner",
		"it is user %d's, the directory is root's: only programs of these two users read it", giveAway}

	othersMay = trouble{severityWarning, "modes",
		"others can %s it (%04o)",
		"chmod 600, or check --fix; run Node with umask 077, as it makes 0644"}
	groupMay = trouble{severityNote, "modes",
		"the group can %s it (%04o)",
		"Keep it so only if Node runs as another user of this group"}
)

// What is in it.
var (
	corrupt = trouble{severityError, "corrupt",
		"it holds no session: %s",
		rmLater + "; if it never was a session, move it elsewhere, as Node's reaper removes what is not JSON"}
	largerThanDefault = trouble{severityWarning, "too large",
		"%s; programs refuse more than 1 MiB, unless Options.MaxSize says otherwise",
		"Raise Options.MaxSize in all programs, or keep less in a session"}
	tooLarge = trouble{severityError, "too large", "it was not read, as it is larger than 16 MiB (%s)", rmLater}

	otherKey = trouble{severityError, "undecryptable",
		"it was encrypted with another secret or key, or changed since, or is another session's file",
		"Give its older secret or key if there is one. " + rmLater}
	notEncrypted = trouble{severityError, "undecryptable",
		"it is not encrypted, but the others are: programs refuse it",
		rmLater + "; nothing is ever read as plain text"}
	notTried = trouble{severityError, "undecryptable",
		"the first %d files could not be decrypted, so %d others were not tried",
		"Give the right --secret-file or --key-file"}
	noKey = trouble{severityWarning, "encrypted", "%s could not be looked into: they are encrypted", giveKey}
	mixed = trouble{severityWarning, "encrypted",
		"%s could not be looked into: they are encrypted, while %d are not; no program reads both", giveKey}

	undated = trouble{severityWarning, "undated",
		"it has no usable __lastAccess: to Node it never ends",
		"Let a Go program write or reap it: Go dates it by its file"}
	textAge = trouble{severityWarning, "undated",
		"its originalMaxAge is text: to Go it has no maxAge, to Node it never ends",
		"Let the program that writes cookie.maxAge set a number"}
	usedAhead = trouble{severityWarning, "future",
		"it was last used %s ahead of now",
		"Set the clock right; Go counts from the last change of its file, Node from that time"}
	longAge = trouble{severityNote, "future",
		"its maxAge is %s; browsers keep no cookie for longer than 400 days",
		"Set a shorter maxAge, or expect it to stay"}
	endsAhead = trouble{severityWarning, "future",
		"its modification time is %s ahead, and so further than it can live",
		"Set the clock right if it is wrong; no reaper removes the file until then, and the session's next use sets its time right"}
	longerTTL = trouble{severityNote, "future",
		"the modification times of %s without a maxAge say that they live longer than %v",
		"If the programs' TTL is longer, give it with --ttl; else the clock was wrong"}

	due = trouble{severityNote, "expired",
		"%s expired and not removed yet, the first %s ago", "A reaper removes them"}
	overdue = trouble{severityWarning, "expired",
		"%s expired and not removed yet, the first %s ago: no reaper seems to run here",
		"filestore reap; and let one program reap (Options.ReapInterval)"}
)

const giveKey = "Give --secret-file (Node's and kruptein's) or --key-file (sealed)"

// Names.
var (
	badName = trouble{severityWarning, "name",
		"ends in %s, but no session can have this name",
		"If it is a session of Node's, its id is one that Go refuses: let its user log in again; else move it elsewhere, as Node's reaper removes such files"}
	alike = trouble{severityWarning, "case",
		"its id differs from another session's in case only: on a file system that folds case (macOS, Windows) they would be one session",
		"Let one of the two users log in again"}
	foreign = trouble{severityNote, "foreign",
		"%s that is neither filestore's nor Node's",
		"Neither of them reads or removes it; if it is not needed, remove it"}
	datedCopy = trouble{severityNote, "foreign",
		"it may be a temporary file of Node's, or a dated copy of a session",
		"If it is not yours, and older than an hour, you can remove it"}
	deadWriter = trouble{severityWarning, "temporary",
		byDeadWriter + " %s ago",
		"filestore reap, or check --fix; no reaper seems to run here"}
	deadNode = trouble{severityWarning, "temporary",
		byDeadNode + " %s ago",
		"filestore reap, or check --fix"}
	unsafeTemporary = trouble{severityWarning, "unsafe", "it is named like a temporary file, but is %s", findOut}
)

const (
	byDeadWriter = "a writer that died has left it"
	byDeadNode   = "a Node process that died has left it"
)

// The directory.
var (
	othersWrite = trouble{severityError, "directory",
		"others can write to it (%04o)",
		"chmod 700; then look through the files, as others could make and remove sessions"}
	othersAdd = trouble{severityWarning, "directory",
		"others can put files into it (%04o, sticky: they cannot remove yours)",
		"chmod 700"}
	othersEnter = trouble{severityWarning, "directory",
		"others can list or enter it (%04o), and the names of the files are the sessions' ids",
		"chmod 700; run the programs that share it as one user"}
	openParent = trouble{severityError, "parent",
		"everybody can write to it (%04o), and so put another directory in the place of the sessions'",
		"chmod o-w"}
	notYours = trouble{severityNote, "owner", "it is user %d's, and you are user %d", "To see all, run check as that user"}
	replaced = trouble{severityError, "replaced",
		"while it was checked the name came to lead elsewhere",
		"Restart the programs that have opened the old one, and run check again"}

	onNetwork = trouble{severityWarning, "network",
		"it is on a network file system (%s), whose locks are not trusted", localDisk}
	onFUSE = trouble{severityNote, "network",
		"its file system is made by a program (FUSE); its locks may not hold",
		"If other machines write to it, move the sessions to a local disk"}

	oneFlush   = trouble{severityNote, "flush", "a write waits for one flush of the disk", ""}
	twoFlushes = trouble{severityNote, "flush", "a write waits for two flushes of the disk, as this file system does not commit in order, or does not say so", ""}
	noJournal  = trouble{severityNote, "flush",
		"this ext4 has no journal: a power cut may take sessions, whatever was flushed",
		"If they must survive one, give it a journal (tune2fs -O has_journal, unmounted)"}

	lowSpace  = trouble{severityWarning, "space", onlySpace, makeRoom}
	noSpace   = trouble{severityError, "space", onlySpace, makeRoom}
	lowInodes = trouble{severityWarning, "inodes", onlyInodes, makeInodes}
	noInodes  = trouble{severityError, "inodes", onlyInodes, makeInodes}
)

const (
	onlySpace  = "only %.1f %% of the file system's space are free (%s)"
	onlyInodes = "only %.1f %% of the file system's inodes are free (%s)"
	makeRoom   = "Make room; without it no session can be written"
	makeInodes = "Remove files, or reap more often; without inodes no session can be written"
)

// .locks and what is in it.
var (
	noLocks = trouble{severityNote, "locks",
		"there is no .locks, so no Go program has written here",
		"Nothing to do: filestore makes it at Open, Node needs none"}
	locksFail     = trouble{severityError, "locks", "%v", asOwner}
	locksClosed   = trouble{severityError, "locks", "it cannot be opened: %v", asOwner}
	locksUnlisted = trouble{severityError, "locks", "it cannot be listed: %v", asOwner}
	locksReplaced = trouble{severityError, "locks",
		"it was replaced while it was checked",
		"Find out which program does that, and run check again"}
	locksNoDir = trouble{severityError, "locks", "it is %s: no Go program can open the directory", remakeDir}
	locksFewer = trouble{severityNote, "locks",
		"%s of %d missing",
		"Nothing to do: they are made again when they are needed"}

	lockNoFile = trouble{severityError, "locks",
		"it is %s: a 64th of the sessions cannot be written",
		"Remove it: it is made again"}
	lockLinked = trouble{severityError, "locks",
		"it has more than one hard link: whoever has the other name can hold the lock",
		"Stop the programs, remove it, and start them: it is made again"}
	lockStrange = trouble{severityError, "locks",
		"it is user %d's, the directory is user %d's, whose programs cannot lock",
		"Give it to the directory's user (chown)"}
	lockOpen = trouble{severityWarning, "locks",
		"its mode is %04o: others who can open it can hold the lock, and stop every writer", chmodLocks}
	lockShut  = trouble{severityWarning, "locks", "its mode is %04o: its owner cannot use it", chmodLocks}
	lockFull  = trouble{severityNote, "locks", "it holds %s, and a lock file holds nothing", "Nothing to do: programs do not read it"}
	lockExtra = trouble{severityNote, "locks", "it is not a lock file", "If it is not needed, remove it"}
)

const chmodLocks = "chmod 600 a lock file and 700 .locks, or check --fix"
