package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
)

// contention measures how writers hold each other up: filestore alone, as the others have other locks.
func (t *table) contention(e *env) {
	hot, stranger := id(0), id(1)
	for i := 2; format.Stripe(stranger) != format.Stripe(hot); i++ { // until both have the same lock
		stranger = id(i)
	}
	ctx, sess := context.Background(), session(values(*payload))
	update := func(took time.Duration) func(s *filestore.Store) error {
		return func(s *filestore.Store) error {
			return s.Update(ctx, hot, func(*filestore.Session) error {
				time.Sleep(took)
				return nil
			})
		}
	}
	entries := []*entry{{name: "filestore NoSync"}, {name: "filestore"}}
	if t.fs == "tmpfs" {
		entries = entries[:1]
	}
	for _, c := range []struct {
		row     string
		writers int
		write   func(s *filestore.Store) error
	}{
		{"longest wait beside nobody, in 2 s", 1, func(*filestore.Store) error {
			time.Sleep(2 * time.Second) // what is left is the disk's doing and the machine's
			return nil
		}},
		{"longest wait beside an Update of 2 s", 1, update(2 * time.Second)},
		{"longest wait beside 3000 Updates", 3000, update(0)},
		{"longest wait beside 3000 Sets", 3000, func(s *filestore.Store) error {
			return s.Set(ctx, hot, sess)
		}},
	} {
		if !opsOnly.MatchString(c.row) {
			continue
		}
		t.lay(c.row, "", perOp, entries)
		t.rotate(c.row, entries, func(en *entry) error {
			s, _, err := newPatient(e, en.name == "filestore NoSync", []string{hot, stranger})
			if err != nil {
				return err
			}
			defer s.Close()
			result := make(chan error, 1)
			go func() { result <- atOnce(c.writers, func(int) error { return c.write(s) }) }()
			var longest time.Duration
			for err == nil && len(result) == 0 {
				from := time.Now()
				err = s.Set(ctx, stranger, sess)
				longest = max(longest, time.Since(from))
				time.Sleep(time.Millisecond) // a server does not write all the time
			}
			t.add(c.row, en.name, perOp, float64(longest))
			return errors.Join(err, <-result)
		})
	}
	for _, n := range []int{1, 200} {
		row := fmt.Sprintf("8 processes, Updates of %d", n)
		if !opsOnly.MatchString(row) {
			continue
		}
		t.lay(row, "", rate, entries[:1])
		t.rotate(row, entries[:1], func(en *entry) error {
			took, err := processes(e, ids(0, n))
			t.add(row, en.name, rate, 8*updates/took.Seconds())
			return err
		})
	}
}

const updates = 1000 // by each process

// patient opens a store that waits for its locks as long as it takes.
func patient(dir string, noSync bool) (*filestore.Store, error) {
	return filestore.Open(dir, &filestore.Options{TTL: ttl, ReapInterval: -1, NoSync: noSync, LockTimeout: time.Minute})
}

// newPatient does so in a new directory, with the sessions all.
func newPatient(e *env, noSync bool, all []string) (s *filestore.Store, dir string, err error) {
	if dir, err = e.newDir(); err != nil {
		return nil, "", err
	}
	if s, err = patient(dir, noSync); err != nil {
		return nil, "", err
	}
	_, err = loop(all, func(id string) error {
		return s.Set(context.Background(), id, session(values(*payload)))
	})
	if err != nil {
		s.Close()
		return nil, "", err
	}
	time.Sleep(newLock)
	return s, dir, nil
}

// updateChild is the variable with the number of sessions that a process of its own updates.
const updateChild = "FILESTORE_BENCH_UPDATE"

// processes returns how long 8 processes take. It fails if they have lost an Update.
func processes(e *env, all []string) (took time.Duration, err error) {
	s, dir, err := newPatient(e, true, all)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	wait, start, err := os.Pipe() // they begin together, when it is closed
	if err != nil {
		return 0, err
	}
	defer wait.Close()
	defer start.Close()
	var running []*exec.Cmd
	for range 8 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), updateChild+"="+strconv.Itoa(len(all)), "FILESTORE_BENCH_DIR="+dir)
		cmd.Stdin, cmd.Stderr = wait, os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return 0, err
		}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			return 0, err
		}
		running = append(running, cmd)
	}
	from := time.Now()
	start.Close()
	for _, cmd := range running {
		err = errors.Join(err, cmd.Wait())
	}
	took = time.Since(from)
	sum := 0
	for _, id := range all {
		sess, getErr := s.Get(context.Background(), id)
		if getErr != nil {
			return 0, errors.Join(err, getErr)
		}
		n, _ := filestore.Value[int](sess, "visits")
		sum += n - values(*payload)["visits"].(int)
	}
	if sum != 8*updates && err == nil {
		err = fmt.Errorf("%d of %d Updates were lost", 8*updates-sum, 8*updates)
	}
	return took, err
}

// updateSessions is one of the processes.
func updateSessions(n string) error {
	count, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	s, err := patient(os.Getenv("FILESTORE_BENCH_DIR"), true)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	_, err = loop(pick(ids(0, count), updates), func(id string) error {
		return s.Update(context.Background(), id, func(sess *filestore.Session) error {
			visits, err := filestore.Value[int](sess, "visits")
			if err != nil {
				return err
			}
			return sess.Put("visits", visits+1)
		})
	})
	return err
}
