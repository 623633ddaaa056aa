package filestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// found returns what Find yields, sorted. An error or a session that is yielded twice fails the test.
func found(s *filestore.Store, member, value string) (ids []string, err error) {
	for e, err := range s.Find(ctx, member, value) {
		if err != nil {
			return nil, fmt.Errorf("Find yields %q, %w", e.ID, err)
		}
		if slices.Contains(ids, e.ID) {
			return nil, fmt.Errorf("Find yields %q twice", e.ID)
		}
		if e.Session == nil || e.Session.LastAccess.IsZero() {
			return nil, fmt.Errorf("Find yields %q with %+v", e.ID, e.Session)
		}
		ids = append(ids, e.ID)
	}
	slices.Sort(ids)
	return ids, nil
}

func wantFound(t testing.TB, s *filestore.Store, member, value string, want ...string) {
	t.Helper()
	got, err := found(s, member, value)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Find(%q, %q) = %q, %v, want %q", member, value, got, err, want)
	}
}

// What is found, with an index and without one.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.TTL = time.Hour
	s := open(t, dir, o)
	ids := []string{"a", "-dash", "a.b", "a,b~c", "x.admin", strings.Repeat("z", 200), "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx"}
	for _, id := range ids {
		set(t, s, id, "user", "anna")
	}
	slices.Sort(ids)
	set(t, s, "bob", "user", "bob")
	set(t, s, "number", "user", 42)
	set(t, s, "nobody")
	set(t, s, "deep", "passport", map[string]any{"user": "dora", "n": map[string]int64{"id": 9007199254740993}})
	write(t, dir, "node.json", `{ "cookie" : {"path":"/"} , "user" : "\u0061nna2" , "user":"anna3","__lastAccess":`+fmt.Sprint(nowMs())+"}\n")
	write(t, dir, "expired.json", doc(nowMs()-7_200_000, `,"user":"anna"`))
	write(t, dir, "corrupt.json", `{"cookie":{},"user":"anna"`)
	write(t, dir, "foreign.txt", doc(nowMs(), `,"user":"anna"`))
	write(t, dir, ".hidden.json", doc(nowMs(), `,"user":"anna"`))
	ro := quick()
	ro.ReadOnly = true
	for kind, s := range map[string]*filestore.Store{"indexed": s, "read-only": open(t, dir, ro)} {
		t.Run(kind, func(t *testing.T) {
			for range 2 {
				wantFound(t, s, "user", "anna", ids...)
				wantFound(t, s, "user", "bob", "bob")
				wantFound(t, s, "user", "4.2e1", "number")
				wantFound(t, s, "user", "anna2")
				wantFound(t, s, "user", "anna3", "node")
				wantFound(t, s, "User", "anna")
				wantFound(t, s, "passport.user", "dora", "deep")
				wantFound(t, s, "passport.n.id", "9007199254740993", "deep")
				wantFound(t, s, "passport.n.id", "9007199254740992")
				wantFound(t, s, "nothing", "")
				wantFound(t, s, "user", "null")
				wantFound(t, s, "cookie.path", "/")
			}
			for _, member := range []string{"", ".", "user.", ".user", "a..b"} {
				n := 0
				for e, err := range s.Find(ctx, member, "anna") {
					if n++; err == nil {
						t.Errorf("Find(%q) yields %q", member, e.ID)
					}
				}
				if n != 1 {
					t.Errorf("Find(%q) yields %d times", member, n)
				}
			}
			for e := range s.Find(ctx, "user", "anna") { // a loop can be left
				if e.Session == nil {
					t.Error("no session")
				}
				break
			}
			c, cancel := context.WithCancel(ctx)
			cancel()
			for e, err := range s.Find(c, "user", "anna") {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Find, cancelled, yields %q, %v", e.ID, err)
				}
			}
		})
	}
	// What changes is known at once.
	if err := s.Update(ctx, "a", func(sess *filestore.Session) error { return sess.Put("user", "bob") }); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, "user", "bob", "a", "bob")
	if err := s.Destroy(ctx, "bob"); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, "user", "bob", "a")
	write(t, dir, "corrupt.json", doc(nowMs(), `,"user":"bob"`)) // in place
	wantFound(t, s, "user", "bob", "a", "corrupt")
	storetest.Write(t, filepath.Join(dir, "a.json"), []byte(doc(nowMs(), `,"user":7`))) // as Node does
	wantFound(t, s, "user", "bob", "corrupt")
	wantFound(t, s, "user", "7", "a")
}

// A directory of two stores: each finds its own.
func TestFindBesideAnotherExtension(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	plain := open(t, dir, o)
	set(t, plain, "x", "user", "anna")
	wantFound(t, plain, "user", "anna", "x")
	o.Extension = ".admin.json"
	admin := open(t, dir, o)
	set(t, admin, "x", "user", "anna")
	set(t, admin, "y", "user", "anna")
	wantFound(t, plain, "user", "anna", "x")
	wantFound(t, admin, "user", "anna", "x", "y")
}

// Of more members than have an index at once each is found.
func TestFindManyMembers(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	var wg sync.WaitGroup
	for range 3 {
		for i := range 10 {
			m := fmt.Sprint("m", i)
			set(t, s, m, m, "x")
			wantFound(t, s, m, "x", m)
			wg.Go(func() { wantFound(t, s, m, "x", m) })
		}
		wg.Wait()
	}
}

// Fifty Finds at once, the first of their Store, while others write.
func TestFindAtOnce(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	users := storetest.Brief(5, 50)
	for i := range 10 * users {
		set(t, s, fmt.Sprint("id", i), "user", i%users)
	}
	stop := make(chan struct{})
	var writers, wg sync.WaitGroup
	writers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				set(t, s, fmt.Sprint("other", i%100), "user", "x")
			}
		}
	})
	for i := range users {
		wg.Go(func() {
			for range 5 {
				got, err := found(s, "user", fmt.Sprint(i))
				if err != nil || len(got) != 10 {
					t.Errorf("Find(%d) = %q, %v, want ten", i, got, err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	writers.Wait()
}

// Nothing is there before the first Find, and nothing after Close.
func TestFindCosts(t *testing.T) {
	dir := t.TempDir()
	goroutines, files := runtime.NumGoroutine(), storetest.OpenFiles()
	s, err := filestore.Open(dir, quick())
	if err != nil {
		t.Fatal(err)
	}
	set(t, s, "a", "user", "anna")
	if n, f := runtime.NumGoroutine(), storetest.OpenFiles(); n > goroutines || f > files+3 {
		t.Errorf("%d goroutines and %d files before a Find, %d and %d before Open", n, f, goroutines, files)
	}
	wantFound(t, s, "user", "anna", "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if runtime.NumGoroutine() <= goroutines && storetest.OpenFiles() <= files+1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines and %d files after Close, %d and %d before", runtime.NumGoroutine(), storetest.OpenFiles(), goroutines, files)
}

// Close ends the Finds that wait, and does not wait for a loop.
func TestFindClosed(t *testing.T) {
	for i := range storetest.Brief(4, 20) {
		dir := t.TempDir()
		s := open(t, dir, nil)
		for j := range 200 {
			set(t, s, fmt.Sprint("id", j), "user", "anna")
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for s.Destroy(ctx, "none") == nil {
					for e, err := range s.Find(ctx, "user", "anna") {
						if err != nil && !errors.Is(err, filestore.ErrClosed) {
							t.Errorf("Find yields %q, %v", e.ID, err)
						}
					}
				}
			})
		}
		if i%2 == 0 {
			wantFound(t, s, "user", "bob")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
	s := open(t, t.TempDir(), nil)
	set(t, s, "a", "user", "anna")
	set(t, s, "b", "user", "anna")
	n := 0
	for e, err := range s.Find(ctx, "user", "anna") {
		switch n++; {
		case n == 1 && err != nil, n == 2 && !errors.Is(err, filestore.ErrClosed), n > 2:
			t.Errorf("%d: Find yields %q, %v", n, e.ID, err)
		}
		s.Close()
	}
}

// A session that cannot be read for a moment is told, and found when it can.
type flaky struct{ broken atomic.Bool }

func (f *flaky) Encode(id string, doc []byte) ([]byte, error) {
	return append([]byte("x"), doc...), nil
}

func (f *flaky) Decode(id string, file []byte) ([]byte, error) {
	if f.broken.Load() && id == "b" {
		return nil, fmt.Errorf("the key's server is away: %w", os.ErrNotExist)
	}
	if len(file) == 0 || file[0] != 'x' {
		return nil, filestore.ErrDecrypt
	}
	return file[1:], nil
}

func TestFindTemporaryErrors(t *testing.T) {
	dir := t.TempDir()
	c := new(flaky)
	o := quick()
	o.Codec, o.CacheSize = c, -1
	s := open(t, dir, o)
	write(t, dir, "plain.json", doc(nowMs(), `,"user":"anna"`))
	both := func() {
		t.Helper()
		var ids, bad []string
		for e, err := range s.Find(ctx, "user", "anna") {
			if err != nil {
				bad = append(bad, e.ID)
			} else {
				ids = append(ids, e.ID)
			}
		}
		if !slices.Equal(ids, []string{"a"}) || !slices.Equal(bad, []string{"b"}) {
			t.Errorf("Find yields %q, and errors of %q", ids, bad)
		}
	}
	set(t, s, "a", "user", "anna")
	set(t, s, "b", "user", "anna")
	c.broken.Store(true)
	both() // the first scan
	c.broken.Store(false)
	wantFound(t, s, "user", "anna", "a", "b")
	c.broken.Store(true)
	set(t, s, "b", "user", "anna")
	both() // a change
	both()
	c.broken.Store(false)
	wantFound(t, s, "user", "bob")
	wantFound(t, s, "user", "anna", "a", "b")
}

// The directory is deleted, and made again by this store or by another one; it is moved.
func TestFindDirectoryDeleted(t *testing.T) {
	if runtime.GOOS == "windows" {
		skip.Test(t, "an open directory cannot be deleted")
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	s := open(t, dir, nil)
	for i := range 5 {
		set(t, s, "a", "user", "anna")
		wantFound(t, s, "user", "anna", "a")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			other, err := filestore.Open(dir, quick())
			if err != nil {
				t.Fatal(err)
			}
			set(t, other, "b", "user", "anna")
			other.Close()
			wantFound(t, s, "user", "anna", "b")
			s.Destroy(ctx, "b")
		}
		wantFound(t, s, "user", "anna")
	}
	set(t, s, "a", "user", "anna")
	wantFound(t, s, "user", "anna", "a")
	moved := filepath.Join(parent, "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	other := open(t, moved, nil)
	set(t, other, "b", "user", "anna")
	wantFound(t, s, "user", "anna", "a", "b")
	set(t, s, "c", "user", "anna")
	wantFound(t, s, "user", "anna", "a", "b", "c")
	wantFound(t, other, "user", "anna", "a", "b", "c")
}

// A session that is moved to a new id again and again is never missed.
func TestFindBesideRenewals(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	set(t, s, "first", "user", "anna")
	set(t, s, "x-first", "user", "bob")
	p := storetest.Start(t, "renew", dir, "x-first", "bob") // in another process
	p.Line(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for old, i := "first", 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				old = renew(s, old, "anna", fmt.Sprint("id", i))
			}
		}
	})
	for range storetest.Brief(50, storetest.Long(300, 10_000)) {
		for _, user := range []string{"anna", "bob"} {
			if got, err := found(s, "user", user); err != nil || len(got) == 0 {
				t.Errorf("Find(%s) = %q, %v", user, got, err)
			}
		}
	}
	close(stop)
	wg.Wait()
	p.Kill()
	storetest.Sweep(t, dir) // what the killed one was writing
}

// A holding codec lets nobody read the session of a gate until that is opened.
type holding map[string]chan bool

func (h holding) Encode(id string, doc []byte) ([]byte, error) { return doc, nil }

func (h holding) Decode(id string, file []byte) ([]byte, error) {
	if gate := h[id]; gate != nil {
		<-gate
	}
	return file, nil
}

// A session that was emptied, to go, before the index has read it for the first time may have a successor.
func TestFindEmptied(t *testing.T) {
	dir := t.TempDir()
	writer := open(t, dir, nil)
	gates := holding{"gate": make(chan bool), "new": make(chan bool)}
	o := quick()
	o.Codec = gates
	s := open(t, dir, o)
	wantFound(t, s, "user", "anna")
	set(t, writer, "gate", "user", "bob") // whoever reads events waits here
	set(t, writer, "old", "user", "anna")
	answer := make(chan []string, 1)
	go func() {
		ids, err := found(s, "user", "anna")
		if err != nil {
			t.Error(err)
		}
		answer <- ids
	}()
	time.Sleep(200 * time.Millisecond) // Find has made its mark
	set(t, writer, "new", "user", "anna")
	must(empty(writer, "old"))
	close(gates["gate"])
	time.Sleep(200 * time.Millisecond)
	close(gates["new"])
	if ids := <-answer; !slices.Equal(ids, []string{"new"}) {
		t.Errorf("Find = %q, want the successor", ids)
	}
}

// empty takes a session as the middleware does before it destroys it.
func empty(s *filestore.Store, id string) error {
	return s.Update(ctx, id, func(sess *filestore.Session) error {
		sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil
		return nil
	})
}

func renew(s *filestore.Store, old, user, id string) string {
	sess := new(filestore.Session)
	must(sess.Put("user", user))
	must(s.Create(ctx, id, sess))
	must(empty(s, old))
	must(s.Destroy(ctx, old))
	return id
}

func init() {
	workers["renew"] = func(args []string) {
		s, err := filestore.Open(args[0], quick())
		must(err)
		fmt.Println("begins")
		for old, i := args[1], 0; ; i++ {
			old = renew(s, old, args[2], fmt.Sprint("x", i))
		}
	}
	// "find" answers lines, each a member and a value, with the ids found.
	workers["find"] = func(args []string) {
		s, err := filestore.Open(args[0], quick())
		must(err)
		answer(s, os.Stdin, os.Stdout)
	}
	workers["crowd"] = crowd
}

func answer(s *filestore.Store, r io.Reader, w io.Writer) {
	for in := bufio.NewScanner(r); in.Scan(); {
		member, value, _ := strings.Cut(in.Text(), " ")
		ids, err := found(s, member, value)
		must(err)
		fmt.Fprintln(w, strings.Join(ids, " "))
	}
}

// kill -9 during Find leaves a mark at most, which the reaper sweeps.
func TestFindKilled(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	set(t, s, "a", "user", "anna")
	const kills = 20
	for range kills {
		p := storetest.Start(t, "find", dir)
		for range 1 + rand.IntN(20) {
			fmt.Fprintln(p.Stdin, "user anna")
		}
		p.Line(t)
		p.Kill()
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*~"))
	if err != nil || len(left) > kills {
		t.Errorf("%d marks are left, %v", len(left), err)
	}
	storetest.Sweep(t, dir)
	wantFound(t, s, "user", "anna", "a")
}

// Two processes, each with four users who log in, log out, renew, change and touch their sessions, by this package and
// as Node does. What both processes find of a user is exactly what there is, whenever the user stands still. Others
// look for users who do not. In the long form there are a million operations.
func TestFindBetweenProcesses(t *testing.T) {
	dir, n, others := t.TempDir(), storetest.Long(5_000, 1_000_000), 1000
	if runtime.GOOS != "linux" { // without an index Find reads them all
		n, others = 1000, 100
	}
	socket := filepath.Join(t.TempDir(), "s")
	if l, err := net.Listen("unix", socket); err != nil {
		skip.Test(t, "this system has no sockets in files") // Wine
	} else {
		l.Close()
	}
	s := open(t, dir, nil)
	for i := range others {
		set(t, s, fmt.Sprint("other", i), "user", fmt.Sprint("other", i%100), "id", i%100)
	}
	began := time.Now()
	var both []*storetest.Process
	for i := range 2 {
		both = append(both, storetest.Start(t, "crowd", dir, socket, fmt.Sprint(i), fmt.Sprint(n/2)))
	}
	for _, p := range both {
		t.Log(p.Line(t))
	}
	t.Logf("%d operations in %v", n, time.Since(began).Round(time.Second))
	for _, p := range both {
		p.Stdin.Close()
		if err := p.Wait(); err != nil {
			t.Errorf("the other process: %v", err)
		}
	}
}

// A user has sessions of one process. Nobody else changes them.
type user struct {
	name, member, value string
	all                 map[string]bool // their ids, and whether they have the value
	next                int
}

func crowd(args []string) {
	dir, me := args[0], args[2]
	n, err := strconv.Atoi(args[3])
	must(err)
	s, err := filestore.Open(dir, quick())
	must(err)
	listener, err := net.Listen("unix", args[1]+me)
	must(err)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go answer(s, c, c)
		}
	}()
	peer := args[1] + map[string]string{"0": "1", "1": "0"}[me]
	const users = 4
	var wg, lookers sync.WaitGroup
	var finds, looks atomic.Int64
	stop := make(chan struct{})
	for i := range users {
		u := &user{name: fmt.Sprint("u", me, i), member: []string{"user", "id", "passport.user"}[i%3], all: make(map[string]bool)}
		u.value = u.name
		if u.member == "id" {
			u.value = fmt.Sprint("900719925474099", me, i)
		}
		wg.Go(func() {
			var c net.Conn
			var err error
			for range 1000 { // the other process may just be starting
				if c, err = net.Dial("unix", peer); err == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			must(err)
			defer c.Close()
			answers := bufio.NewReader(c)
			for op := range n / users {
				must(u.act(s, dir))
				if op%5 != 0 {
					continue
				}
				ids, err := found(s, u.member, u.value)
				must(err)
				must(u.same(ids))
				fmt.Fprintln(c, u.member, u.value)
				line, err := answers.ReadString('\n')
				must(err)
				must(u.same(strings.Fields(line)))
				finds.Add(2)
			}
		})
	}
	lookers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_, err := found(s, "user", fmt.Sprint("u", i%2, i/2%4))
				must(err)
				looks.Add(1)
				time.Sleep(time.Millisecond)
			}
		}
	})
	wg.Wait()
	close(stop)
	lookers.Wait()
	fmt.Println("process", me, "has compared", finds.Load(), "Finds, and made", looks.Load(), "of users at work")
	io.Copy(io.Discard, os.Stdin) // the other one may still ask
	must(s.Close())
}

func (u *user) same(ids []string) error {
	var want []string
	for id, has := range u.all {
		if has {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	if !slices.Equal(ids, want) {
		return fmt.Errorf("%s: Find(%s, %s) = %q, want %q", u.name, u.member, u.value, ids, want)
	}
	return nil
}

// session returns one with the user's value, or without it.
func (u *user) session(has bool) *filestore.Session {
	sess := new(filestore.Session)
	u.put(sess, has)
	return sess
}

func (u *user) put(sess *filestore.Session, has bool) {
	value := u.value
	if !has {
		value += "0"
	}
	switch u.member {
	case "user":
		must(sess.Put("user", value))
	case "id":
		n, err := strconv.ParseInt(value, 10, 64)
		must(err)
		must(sess.Put("id", n))
	default:
		must(sess.Put("passport", map[string]string{"user": value}))
	}
}

func (u *user) some() string {
	for id := range u.all {
		return id
	}
	return ""
}

func (u *user) act(s *filestore.Store, dir string) error {
	id, op := u.some(), rand.IntN(10)
	if id == "" || len(u.all) < 15 && op < 3 {
		op = 0
	} else if op < 3 {
		op = 3
	}
	u.next++
	fresh := fmt.Sprintf("%s-%d", u.name, u.next)
	switch op {
	case 0:
		u.all[fresh] = true
		if u.next%2 == 0 {
			return s.Create(ctx, fresh, u.session(true))
		}
		sess := u.session(true) // as Node does
		sess.LastAccess = time.Now()
		data, err := sess.MarshalJSON()
		must(err)
		must(os.WriteFile(filepath.Join(dir, fresh+".json.1234567890"), data, 0o644))
		return os.Rename(filepath.Join(dir, fresh+".json.1234567890"), filepath.Join(dir, fresh+".json"))
	case 3, 4:
		delete(u.all, id)
		if u.next%2 == 0 {
			return s.Destroy(ctx, id)
		}
		return os.Remove(filepath.Join(dir, id+".json"))
	case 5, 6:
		has := u.all[id]
		must(s.Create(ctx, fresh, u.session(has)))
		delete(u.all, id)
		u.all[fresh] = has
		return s.Destroy(ctx, id)
	case 7:
		return s.Update(ctx, id, func(*filestore.Session) error { return nil })
	case 8:
		u.all[id] = !u.all[id]
		return s.Update(ctx, id, func(sess *filestore.Session) error { u.put(sess, u.all[id]); return nil })
	}
	return s.Set(ctx, id, u.session(u.all[id]))
}

// Find of one user's three sessions among 100,000: the first, and later ones.
func BenchmarkFind(b *testing.B) {
	const n = 100_000
	dir := b.TempDir()
	for i := range n {
		write(b, dir, fmt.Sprintf("%032d.json", i), doc(nowMs(), fmt.Sprintf(`,"user":"user%d","cart":[1,2,3],"lang":"en"`, i/3)))
	}
	three := func(b *testing.B, s *filestore.Store, i int) {
		if got, err := found(s, "user", fmt.Sprint("user", i%(n/3))); err != nil || len(got) != 3 {
			b.Fatalf("%q, %v", got, err)
		}
	}
	o := quick()
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s := open(b, dir, o)
			three(b, s, 7)
			s.Close()
		}
	})
	b.Run("warm", func(b *testing.B) {
		s := open(b, dir, o)
		three(b, s, 7)
		b.ReportAllocs()
		b.ResetTimer()
		for i := 0; b.Loop(); i++ {
			three(b, s, i)
		}
	})
	o.ReadOnly = true
	b.Run("without index", func(b *testing.B) {
		s := open(b, dir, o)
		for b.Loop() {
			three(b, s, 7)
		}
	})
}
