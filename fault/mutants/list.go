package main

const (
	core   = "."
	faults = "fault"
	web    = "session"
	node   = "kruptein"
	box    = "sealed"
)

var mutants = []mutant{
	{"writes in place", []edit{
		{"sys_unix.go", "unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW", "unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW"},
		{"filestore.go", `		tmp = "." + st.name + "-" + rand.Text() + "~"`, `		rand.Text()
		tmp = name`},
		{"filestore.go", "	if err = s.dir.rename(tmp, name); err != nil {\n		return s.explain(name, err)\n	}\n	return s.sync()", "	return s.sync()"},
		{"filestore.go", `	s.swaps = s.opts.NoSync && s.dir.flushesRename()`, ``},
	}, core, "TestReadersSeeWholeValues|TestKill"},
	{"does not flush the file", []edit{{"sys_unix.go", "if err == nil && flush {", "if err == nil && false {"}}, faults, "TestPowerCut$"},
	{"does not flush the directory", []edit{{"sys_unix.go", "	err := d.file.Sync()\n", "	var err error\n"}}, faults, "TestPowerCut$"},
	{"does not flush a removal", []edit{{"filestore.go", "		return s.sync() // even where", "		return nil // even where"}}, faults, "TestPowerCut$"},
	{"does not flush a new directory's name", []edit{{"filestore.go", "	return d.sync()\n}\n\n// Close ends", "	return nil\n}\n\n// Close ends"}}, faults, "TestPowerCut$"},
	{"keeps a file after a failed flush", []edit{{"sys_unix.go", "		err = retry(func() error { return fsync(fd) })\n", "		retry(func() error { return fsync(fd) })\n"}}, faults, "TestCalls"},
	{"leaves the temporary file of a failure", []edit{{"filestore.go", "			s.dir.unlink(tmp)\n		}\n	}()", "		}\n	}()"}}, faults, "TestCalls|TestFullDisk"},
	{"takes an existing file as temporary", []edit{{"sys_unix.go", "unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW", "unix.O_WRONLY|unix.O_CREAT"}}, core, "TestPlantedTemporaryFile"},
	{"follows links when it looks", []edit{
		{"sys_unix.go", "unix.AT_SYMLINK_NOFOLLOW) })\n	if err != nil {\n		return meta{}, err", "0) })\n	if err != nil {\n		return meta{}, err"},
		{"sys_unix.go", "unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC", "unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC"},
	}, core, "TestPlantedObjects"},
	{"follows a link put there since it looked", []edit{
		{"sys_unix.go", "unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC", "unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC"},
	}, core, "TestRacingReplacement"},
	{"reads files with other names", []edit{{"cache.go", "case m.links > 1:", "case m.links > 1000:"}}, core, "TestPlantedObjects"},
	{"reads other users' files", []edit{{"cache.go", "case m.uid != 0 && m.uid != os.Geteuid() && m.uid != trusted && os.Geteuid() != 0:", "case m.uid == -5 && m.uid != trusted && os.Geteuid() != 0:"}}, core, "TestOtherUsers"},
	{"waits for a FIFO", []edit{
		{"sys_unix.go", "unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC", "unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC"},
		{"cache.go", "if !m.regular { // not", "if false { // not"},
	}, core, "TestPlantedObjects"},
	{"has no size cap", []edit{{"cache.go", "case m.size > limit:", "case false:"}}, core, "TestTooLarge"},
	{"takes any id", []edit{{"filestore.go", "return !temp && ValidID(id) && !strings.HasSuffix(id, ext)", "return !temp"}}, core, "TestInvalidIDs"},
	{"looks once in Reap", []edit{{"list.go", "	if d == nil || !d.settled || err != nil || m.version != d.version {", "	if m == (meta{}) {"}}, core, "TestReaperLooksTwice"},
	{"reaps by the modification time alone", []edit{{"list.go", "	if doomed(err) {", "	if doomed(ErrExpired) {"}}, core, "TestReap|TestReaper"},
	{"believes a reaper's hint of another TTL", []edit{{"reaper.go", "rest == s.ttlTag && left-clockSkew < s.opts.TTL ||", "rest >= 0 ||"}}, core, "TestReapAfterShorterTTL"},
	{"reaps after a step of the clock", []edit{{"reaper.go", "step > clockSkew {", "step > 1<<62 {"}}, faults, "TestClock"},
	{"believes a date to come", []edit{{"codec.go", "if s.LastAccess.After(now.Add(clockSkew)) {", "if false {"}}, faults, "TestClock"},
	{"believes a copied date", []edit{{"reaper.go", " && left < 400*24*time.Hour", ""}}, core, "TestReapOfCopies"},
	{"tries a taken name once", []edit{{"filestore.go", "for range 3 { // nobody", "for range 1 { // nobody"}}, core, "TestPlantedTemporaryFile"},
	{"encodes under the lock", []edit{{"filestore.go", "		data, stamp, err := s.encode(k.id, sess) // what has no JSON form fails before anything is touched\n		if err != nil {\n			return err\n		}\n		st, err := s.lock(ctx, k.id)\n		if err != nil {\n			return err\n		}\n		defer st.unlock()\n", "		st, err := s.lock(ctx, k.id)\n		if err != nil {\n			return err\n		}\n		defer st.unlock()\n		data, stamp, err := s.encode(k.id, sess)\n		if err != nil {\n			return err\n		}\n"}}, core, "TestUnwritableBeforeLock"},
	{"reads on after its end", []edit{{"reaper.go", "	if stuck || ctx.Err() != nil {", "	if stuck {"}}, core, "TestReapEndsWithContext"},
	{"waits for each of a stopped holder's", []edit{{"reaper.go", "	if stuck || ctx.Err() != nil {", "	if stuck && s == nil || ctx.Err() != nil {"}}, core, "TestReapBesideAStoppedHolder"},
	{"ignores a failed close", []edit{{"sys_unix.go", "err == nil && closeErr != unix.EINTR {", "err == nil && closeErr == unix.EPROTO {"}}, faults, "TestCalls"},
	{"sweeps a living writer's file", []edit{{"reaper.go", "if ok, err := s.tryLock(st); !ok {\n			return err == nil, err\n		}\n		defer st.unlock()\n		if err := s.stands(st); err != nil {\n			return false, err\n		}\n", "if st == nil {\n			return false, nil\n		}\n"}}, core, "TestSweep"},
	{"makes what it touches", []edit{{"filestore.go", "	sess, err := s.load(k, true)\n	if err != nil {\n		return err\n	}\n	if err := fn(sess)", "	sess, err := s.load(k, true)\n	if err != nil {\n		sess = new(Session)\n	}\n	if err := fn(sess)"}}, core, "TestTouchDoesNotResurrect|TestDestroyedStaysDestroyed"},
	{"loads before it locks", []edit{{"filestore.go", "	st, err := s.lock(ctx, k.id)\n	if err != nil {\n		return err\n	}\n	defer st.unlock()\n	sess, err := s.load(k, true)\n	if err != nil {\n		return err\n	}\n	if err := fn(sess)", "	sess, err := s.load(k, true)\n	if err != nil {\n		return err\n	}\n	st, err := s.lock(ctx, k.id)\n	if err != nil {\n		return err\n	}\n	defer st.unlock()\n	if err := fn(sess)"}}, core, "TestNoLostUpdateBetweenGoroutines"},
	{"deletes what it cannot read", []edit{{"cache.go", "	if err != nil {\n		return nil, saving, err\n	}\n	wait", "	if err != nil {\n		s.dir.unlink(k.name)\n		return nil, saving, err\n	}\n	wait"}}, core, "TestCorruptFiles"},
	{"clears what is not its own", []edit{{"filestore.go", "return key{id: id, name: name}, ok && s.validID(id)", "return key{id: id, name: name}, id != \"\" || ok"}}, core, "TestIterators"},
	{"locks processes only", []edit{{"lock.go", "	case st.slot <- struct{}{}:\n	case <-timeout.C:\n		return nil, ErrLockTimeout", "	case func() chan struct{} { c := make(chan struct{}, 1); st.slot = make(chan struct{}, 1); st.slot <- struct{}{}; return c }() <- struct{}{}:\n	case <-timeout.C:\n		return nil, ErrLockTimeout"}}, core, "TestNoLostUpdateBetweenGoroutines"},
	{"locks goroutines only", []edit{{"lock.go", "	ok, err := st.file.TryLock()\n	switch {", "	ok, err := true, error(nil)\n	st.file.RLock()\n	switch {"}}, core, "TestNoLostUpdateBetweenProcesses"},
	{"keeps a deleted lock", []edit{{"lock.go", "	if err == nil && !same || errors.Is(err, fs.ErrNotExist) {\n		return errLockLost\n	}\n	return err", "	if same || err != nil {\n		return nil\n	}\n	return nil"}}, core, "TestLockFilesDeleted"},
	{"locks what .locks has become", []edit{{"lock.go", "	if err != nil {\n		return err\n	}\n	m, err := s.dir.stat(st.path())", "	m, err := s.dir.stat(st.path())"}}, core, "TestLocksReplacedByLink"},
	{"trusts a new lock file at once", []edit{{"lock.go", "err == nil && age < settle {", "err == nil && age < 0 {"}}, faults, "TestLockDeletedBeforeRename"},
	{"waits for a lock for ever", []edit{{"lock.go", "			case <-timeout.C:\n				err = ErrLockTimeout\n", ""}}, core, "TestStoppedHolder"},
	{"keeps its place in the queue", []edit{{"lock.go", "		<-st.slot\n		return nil, err\n	}\n}\n\n// tryLock", "		return nil, err\n	}\n}\n\n// tryLock"}}, core, "TestWaitEndsWithContext|TestStoppedHolder"},
	{"reports an interruption", []edit{{"sys_unix.go", "if err := call(); err != unix.EINTR {", "if err := call(); true {"}}, faults, "TestCalls"},
	{"reports an interrupted lock", []edit{{"lock.go", "	case errors.Is(err, syscall.EINTR):", "	case errors.Is(err, syscall.EPROTO):"}}, faults, "TestCalls"},
	{"works without locks where there are none", []edit{{"lock.go", "	case err != nil:\n		if fi", "	case errors.Is(err, syscall.ENOLCK):\n		return true, nil\n	case err != nil:\n		if fi"}}, faults, "TestNoLocks"},
	{"trusts the cache without a look", []edit{{"cache.go", "	for i := range 100 {\n", "	for i := range 100 {\n		if k.cached != nil {\n			return k.cached, nil\n		}\n"}}, core, "TestCacheIsCoherent"},
	{"caches what has just changed", []edit{{"cache.go", "ago > wait\n", "ago > wait || true\n"}}, faults, "TestSameStamps"},
	{"trusts stamps of whole seconds", []edit{{"cache.go", "		wait = settledCoarse", "		wait += 0"}}, faults, "TestStampsOfSeconds"},
	{"gives the cache's bytes away", []edit{{"codec.go", "	b := []byte(d.values)\n", "	b := unsafe.Slice(unsafe.StringData(d.values), len(d.values))\n"}, {"codec.go", "	\"unicode/utf8\"\n", "	\"unicode/utf8\"\n	\"unsafe\"\n"}}, core, "TestCacheKeepsToItself"},
	{"goes by the umask", []edit{{"sys_unix.go", "	if err == nil && fs.FileMode(st.Mode)&fs.ModePerm != mode {", "	if false {"}}, core, "TestUmask"},
	{"shows ids in errors", []edit{{"filestore.go", "		e.ID = hex.EncodeToString(sum[:4])", "		e.ID = id + hex.EncodeToString(sum[:4])"}}, core, "TestErrors|TestNoDataInErrors"},
	{"closes without waiting", []edit{{"filestore.go", "	s.stop()\n	s.ops.Wait()\n", "	s.stop()\n"}}, core, "TestClose"},

	{"compares signatures with ==", []edit{{"session/cookie.go", "if hmac.Equal([]byte(Sign(signed[:dot], secret)), []byte(signed)) {", "if Sign(signed[:dot], secret) == signed {"}}, web, "TestConstantTime"},
	{"looks up before it verifies", []edit{{"session/session.go", "	if id := m.cookieID(r); id != \"\" {", "	if v, _, _ := strings.Cut(strings.TrimPrefix(cookieValue(r, m.name()), \"s:\"), \".\"); v != \"\" {\n		m.Store.Get(r.Context(), v)\n	}\n	if id := m.cookieID(r); id != \"\" {"}}, web, "TestForgedCookies"},
	{"accepts any signature", []edit{{"session/cookie.go", "	if !ok {\n		return \"\", false\n	}\n	return signed[:dot], true", "	return signed[:dot], true"}}, web, "TestForgedCookies|TestMutatedSignatures"},
	{"makes ids of weak numbers", []edit{{"session/session.go", "		rand.Read(b) // crashes", "		rand.Read(make([]byte, 1))\n		copy(b, time.Now().String()) // crashes"}}, web, "TestIDsAreFromCryptoRand"},
	{"adopts an unknown id", []edit{{"session/session.go", "	s.id = id\n	s.Session = &filestore.Session{", "	if known := s.m.cookieID(s.r); known != \"\" {\n		id = known\n	}\n	s.id = id\n	s.Session = &filestore.Session{"}}, web, "TestForgedCookies"},

	{"reads plain files beside encrypted ones", []edit{{"kruptein/kruptein.go", "	e, err := parse(file)\n	if err != nil {\n		return nil, err\n	}\n	key", "	e, err := parse(file)\n	if err != nil {\n		if json.Valid(file) {\n			return file, nil\n		}\n		return nil, err\n	}\n	key"}}, node, "TestHostileEnvelopes|TestStore"},
	{"compares no HMAC", []edit{{"kruptein/kruptein.go", "if subtle.ConstantTimeCompare([]byte(mac), []byte(e.hmac)) == 1 {", "if subtle.ConstantTimeCompare([]byte(mac), []byte(e.hmac)) < 2 {"}}, node, "TestAltered|TestRotation"},
	{"takes another session's encrypted file", []edit{{"kruptein/kruptein.go", "string(data) != string(aad(id, len(data))) {", "false {"}}, node, "TestSwap"},
	{"takes any spelling of an escape", []edit{{"kruptein/envelope.go", "			if raw[i] == 'u' && bytes.ContainsAny(raw[i+1:i+5], \"ABCDEF\") {", "			if raw[i] == 'u' && bytes.ContainsAny(raw[i+1:i+5], \"G\") {"}}, node, "TestAltered"},
	{"derives keys for impossible sizes", []edit{{"kruptein/envelope.go", "	if !ok || !gcm && !cbc {", "	if !ok || e == nil && (gcm || cbc) {"}}, node, "TestHostileEnvelopes|TestSizes"},
	{"keeps one salt for ever", []edit{{"kruptein/keyring.go", "	k.left--\n", ""}}, node, "TestNonces"},
	{"keeps the bytes of a forgotten key", []edit{{"kruptein/keyring.go", "{ clear(key[:]) })", "{})"}}, node, "TestForget"},
	{"derives a key for each reader", []edit{{"kruptein/keyring.go", "	turn.Lock()\n	defer turn.Unlock()\n", "	turn.Lock()\n	turn.Unlock()\n"}}, node, "TestDerivesOnce"},
	{"seals for any session", []edit{{"sealed/sealed.go", "return append(bytes.Clone(k.prefix), id...) }", "return append(bytes.Clone(k.prefix), id[:0]...) }"}}, box, "TestForeign"},
	{"seals with one nonce", []edit{{"sealed/sealed.go", "	rand.Read(nonce) // never fails", "	rand.Read(make([]byte, 1))"}}, box, "TestNonces"},
	{"reads what is sealed in two spellings", []edit{{"sealed/sealed.go", "encoding.EncodedLen(len(box)) != len(text) ||", ""}}, box, "TestAltered"},
}
