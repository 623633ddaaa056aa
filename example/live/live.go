// Package live shows visitors their own session as it is stored, and tells their pages when it changes.
//
// It shows a session to nobody else, and not the whole id to its visitor either: with an id and a signature anybody
// could be them, and a page may be on a screen that others see.
package live

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// Assets are the files that all pages of the examples share. file.html has the template "file", which shows a File.
//
//go:embed style.css live.js icon.svg file.html
var Assets embed.FS

// Mount serves the style sheet, the script and the icon.
func Mount(mux *http.ServeMux) {
	for path, name := range map[string]string{"/style.css": "style.css", "/live.js": "live.js", "/icon.svg": "icon.svg", "/favicon.ico": "icon.svg"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, Assets, name) })
	}
}

// A Store has what a Feed uses of one. If it is a session.Watcher too, a change is told at once, else within a second.
type Store interface {
	Get(ctx context.Context, id string) (*filestore.Session, error)
}

// A Feed shows sessions to their visitors. Call New.
type Feed struct {
	store   Store
	started time.Time
	opts    Options
	watches bool

	mu      sync.Mutex
	viewers map[string]map[chan struct{}]bool // of each session that somebody looks at
	streams int
}

// Options say what a Feed shows.
type Options struct {
	Where     string          // the directory of the files, or the server
	Files     bool            // it is a directory
	Encrypted bool            // the files show nothing to whoever reads them
	Cookie    string          // the name of the session's cookie
	TTL       time.Duration   // the life of a session without a maxAge
	Quit      context.Context // is done when the program ends: http.Server.Shutdown waits for streams
}

// New returns a Feed on s. Its caller runs Run too.
func New(s Store, o Options) *Feed {
	_, watches := s.(session.Watcher)
	return &Feed{store: s, started: time.Now(), opts: o, watches: watches, viewers: make(map[string]map[chan struct{}]bool)}
}

// Asks reports whether live.js asks for a page, and not somebody who has clicked.
func Asks(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("X-Requested-With") == "live.js"
}

// The states of a File.
const (
	None   = "none"   // the visitor has no session
	Out    = "out"    // their browser has a cookie, but its session has ended
	Stored = "stored" // they have one
)

// A File is a visitor's session as it is stored.
type File struct {
	State string

	// These are for Stored only.
	Name      string // as it is shown
	Pattern   string // names the file for a shell, and contains no whole id; "" = it is on a server
	Members   []Member
	Encrypted bool
	Size      int
	Left      string // until it ends, if it is not used
	Survived  string // how much older than this process it is; "" = it is younger
	Up        string // for how long this process has run
}

// A Member is a member of the document, on as many lines as its value needs.
type Member struct {
	Name, Value string // in JSON
	Simple      bool   // the value is neither an object nor an array
	Last        bool   // no comma follows
}

// Remove is the command that removes the file.
func (f *File) Remove() string {
	if runtime.GOOS == "windows" {
		return "del " + f.Pattern
	}
	return "rm " + f.Pattern
}

const (
	shown    = 8 // characters of an id: enough to find its file, and 144 bits are missing
	ellipsis = "…"
)

// Look returns the visitor's own file.
func (f *Feed) Look(r *http.Request) (*File, error) {
	id := session.From(r).ID()
	sess, err := f.store.Get(r.Context(), id)
	if errors.Is(err, filestore.ErrNotFound) { // an empty session is not stored
		if _, err := r.Cookie(f.opts.Cookie); err == nil {
			return &File{State: Out}, nil
		}
		return &File{State: None}, nil
	}
	if err != nil {
		return nil, err
	}
	// As it is stored, unless it is encrypted. White space is added below.
	document, now := sess.Document, time.Now()
	if f.opts.Files {
		document = sess.MarshalJSON
	}
	text, err := document()
	if err != nil {
		return nil, err
	}
	short := id[:min(shown, len(id))]
	file := &File{State: Stored, Name: f.opts.Where + " " + short + ellipsis, Encrypted: f.opts.Encrypted, Size: len(text),
		Left: words(sess.ExpiresAt(f.opts.TTL).Sub(now)), Up: words(now.Sub(f.started))}
	if f.opts.Files {
		file.Name = filepath.Join(f.opts.Where, short+ellipsis+".json")
		file.Pattern = pattern(f.opts.Where, short)
	}
	if !sess.Created.IsZero() && sess.Created.Before(f.started) {
		file.Survived = words(f.started.Sub(sess.Created))
	}
	file.Members, err = members(text)
	return file, err
}

// words says how long d is.
func words(d time.Duration) string {
	n, unit := d.Round(time.Second)/time.Second, "second"
	if n >= 120 {
		n, unit = d.Round(time.Minute)/time.Minute, "minute"
		if n >= 120 {
			n, unit = d.Round(time.Hour)/time.Hour, "hour"
		}
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprint(int64(n), " ", unit)
}

// pattern names a file for a shell.
func pattern(dir, short string) string {
	path := filepath.Clean(dir) + string(filepath.Separator) // also "." must not vanish: a name can begin with a dash
	if runtime.GOOS == "windows" {
		return `"` + path + short + `*.json"`
	}
	if strings.Trim(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./") != "" {
		path = "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path + short + "*.json"
}

// members returns those of a JSON object in their order.
func members(text []byte) (all []Member, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil { // {
		return nil, err
	}
	for d.More() {
		key, err1 := d.Token()
		name, err2 := json.Marshal(key)
		var value json.RawMessage
		if err := errors.Join(err1, err2, d.Decode(&value)); err != nil {
			return nil, err
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, value, "  ", "  "); err != nil {
			return nil, err
		}
		all = append(all, Member{Name: string(name), Value: pretty.String(), Simple: value[0] != '{' && value[0] != '['})
	}
	if len(all) > 0 {
		all[len(all)-1].Last = true
	}
	return all, nil
}

// Run tells viewers of changes until ctx is done.
func (f *Feed) Run(ctx context.Context) {
	w, ok := f.store.(interface {
		Watch(context.Context) iter.Seq2[filestore.Event, error]
	})
	for ok && ctx.Err() == nil {
		for e, err := range w.Watch(ctx) {
			f.tell(e.ID, err != nil)
		}
		f.tell("", true) // what has changed while nobody watches
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// tell tells the viewers of one session, or all.
func (f *Feed) tell(id string, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for of, viewers := range f.viewers {
		for c := range viewers {
			if of != id && !all {
				continue
			}
			select {
			case c <- struct{}{}:
			default: // it has not seen the last one yet
			}
		}
	}
}

// How many streams there may be for one session, and for all together. Each is a connection.
const (
	maxPerSession = 8
	maxStreams    = 256
)

// join returns a channel that gets a value when the session changes, or false if there are too many.
func (f *Feed) join(id string) (c chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams >= maxStreams || len(f.viewers[id]) >= maxPerSession {
		return nil, false
	}
	if f.viewers[id] == nil {
		f.viewers[id] = make(map[chan struct{}]bool)
	}
	c = make(chan struct{}, 1)
	f.viewers[id][c] = true
	f.streams++
	return c, true
}

func (f *Feed) leave(id string, c chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams--
	if delete(f.viewers[id], c); len(f.viewers[id]) == 0 {
		delete(f.viewers, id)
	}
}

const (
	gather       = 200 * time.Millisecond // changes within it are told at once
	poll         = time.Second
	heartbeat    = 15 * time.Second
	writeTimeout = 10 * time.Second
	streamLife   = 5 * time.Minute // then the browser asks for another one, and is asked who it is
)

// ServeHTTP tells a page that its session has changed, and not how: the page asks for itself again, and gets what its
// cookie opens at that moment. So no event can show anybody else's session. The request must not prolong the session (see
// session.Manager.Prolongs): a forgotten tab would keep it alive for ever.
func (f *Feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := session.From(r)
	id := s.ID()
	if _, err := f.store.Get(r.Context(), id); err != nil {
		w.WriteHeader(http.StatusNoContent) // tells an EventSource not to come back
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would wait for more
	if r.Method == http.MethodHead {
		return // whoever asks for no content must not wait for its end
	}
	changed, ok := f.join(id)
	if !ok {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "Too many pages look at this.", http.StatusServiceUnavailable)
		return
	}
	defer f.leave(id, changed)
	rc := http.NewResponseController(w)
	send := func(text string) bool {
		rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // instead of the server's, which is for whole answers
		_, err := io.WriteString(w, text)
		return err == nil && rc.Flush() == nil
	}
	end, cancel := context.WithTimeout(r.Context(), streamLife)
	defer cancel()
	defer context.AfterFunc(f.opts.Quit, cancel)()
	var polls <-chan time.Time
	if !f.watches {
		t := time.NewTicker(poll)
		defer t.Stop()
		polls = t.C
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	last := f.version(end, id)
	// The first event is for what has changed since the page was made.
	for ok := send("retry: 1000\ndata: look\n\n"); ok; {
		select {
		case <-s.Done(): // by a logout, by rm, or because a login gave the session a new id
			send("event: end\ndata: look\n\n")
			return
		case <-end.Done():
			return
		case <-beat.C:
			ok = send(":\n\n")
		case <-polls:
			if now := f.version(end, id); now != last {
				last = now
				ok = send("data: look\n\n")
			}
		case <-changed:
			ok = send("data: look\n\n")
			select { // so that a busy session does not keep its browser busy
			case <-end.Done():
			case <-time.After(gather):
			}
		}
	}
}

// version is another one after each change.
func (f *Feed) version(ctx context.Context, id string) string {
	sess, err := f.store.Get(ctx, id)
	if err != nil {
		return "" // Done tells if it has ended
	}
	text, err := sess.Document()
	return fmt.Sprint(string(text), err, sess.ExpiresAt(time.Hour).Unix())
}
