package browser

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/sessionui"
)

// remember makes the page keep all texts that its status has had.
func (v *visitor) remember() {
	v.t.Helper()
	v.do(chromedp.Evaluate[chromedp.Void](`window.said = []; new MutationObserver(() => said.push(document.getElementById("status").textContent))
		.observe(document.getElementById("status"), {childList: true, characterData: true, subtree: true})`))
}

// wrap puts a handler around that of the site.
func (s *site) wrap(around func(w http.ResponseWriter, r *http.Request, inner http.Handler)) {
	inner := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { around(w, r, inner) })
}

// The server ends each stream after a while. The browser asks for another one, and nobody is told of trouble.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	s := newSite(t, &sessionui.Options{Show: []string{"user"}}, nil)
	var streams atomic.Int32
	s.wrap(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		if r.URL.Query().Has("stream") {
			streams.Add(1)
			ctx, cancel := context.WithTimeout(r.Context(), time.Second) // where the handler itself has five minutes
			defer cancel()
			r = r.WithContext(ctx)
		}
		inner.ServeHTTP(w, r)
	})
	v := visit(t, browser)
	v.open(s.URL + operatorPath)
	v.until("it is live", func() bool { return v.text("#status") == "Live" })
	v.remember()
	v.until("the third stream", func() bool { return streams.Load() >= 3 })
	put(t, s.store, "late", time.Hour, map[string]any{"user": "late"})
	v.until("the late one", func() bool { return v.count("tr[data-session]") == 1 })
	if said := ask[[]string](v, "said"); len(said) > 0 {
		t.Errorf("the page says %q", said)
	}
}

// A page that cannot follow says so, and from when it is. It follows again when it can.
func TestNotLive(t *testing.T) {
	browser := chromium(t)
	s := newSite(t, &sessionui.Options{Show: []string{"user"}}, nil)
	var refused atomic.Bool
	s.wrap(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		if refused.Load() { // as the caller of Operator refuses someone whose session has ended
			http.Error(w, "Log in.", http.StatusForbidden)
			return
		}
		inner.ServeHTTP(w, r)
	})
	addr := "127.0.0.1:" + storetest.SitePort(t) // where nobody else listens while the server is away
	serve := func() *http.Server {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: s.Config.Handler}
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })
		return srv
	}
	srv := serve()
	v := visit(t, browser)
	v.open("http://" + addr + operatorPath)
	live := func() bool { return v.text("#status") == "Live" }
	not := func() bool { return strings.HasPrefix(v.text("#status"), "Not live. As of 20") }
	v.until("it is live", live)

	v.refused = "status of 403"
	refused.Store(true)
	put(t, s.store, "one", time.Hour, nil)
	v.until("it is refused", not)
	if n := v.count("tr[data-session]"); n != 0 {
		t.Errorf("a page that is refused shows %d sessions", n)
	}
	refused.Store(false)
	put(t, s.store, "two", time.Hour, nil)
	v.until("it is live again", func() bool { return live() && v.count("tr[data-session]") == 2 })

	srv.Close()
	v.until("the server is away", not)
	serve()
	put(t, s.store, "three", time.Hour, nil)
	v.until("the server is back", func() bool { return live() && v.count("tr[data-session]") == 3 })
	v.open("about:blank") // or it would complain of the end of this server too
	v.complained()        // of the connections that were refused
}

// A row that is new is shown as such, without motion to those who want none.
func TestReducedMotion(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	s := newSite(t, &sessionui.Options{Show: []string{"user"}}, nil)
	for i, want := range map[string]string{"no-preference": "sui-new", "reduce": "none"} {
		v := visit(t, browser)
		call(v, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: i}}})
		v.open(s.URL + operatorPath)
		v.until("it is live", func() bool { return v.text("#status") == "Live" })
		put(t, s.store, i, time.Hour, nil)
		v.until("the new row", func() bool { return v.count("tr.new") == 1 })
		if got := ask[string](v, `getComputedStyle(document.querySelector("tr.new td")).animationName`); got != want {
			t.Errorf("%s: the animation of a new row is %q", i, got)
		}
		moves := ask[[]string](v, `[...document.querySelectorAll("*")].filter(e => { const s = getComputedStyle(e);
			return s.transitionDuration !== "0s" || s.animationName !== "none" || s.scrollBehavior !== "auto" }).map(e => e.outerHTML)`)
		if i == "reduce" && len(moves) > 0 {
			t.Errorf("%d elements move: %s", len(moves), moves[0])
		}
	}
}

// Both pages work behind a proxy that strips a part of the path: no link leads out of it.
func TestStrippedPath(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, visit func() *visitor) {
		s := newSite(t, &sessionui.Options{Show: []string{"user"}, Write: true}, nil)
		target, _ := url.Parse(s.URL)
		mux := http.NewServeMux()
		for path, to := range map[string]string{"/tools/who/": operatorPath, "/me/": devicesPath, "/in/": "/login"} {
			proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.URL.Path = to + strings.TrimPrefix(r.In.URL.Path, path)
			}}
			mux.Handle(path, proxy)
		}
		mux.HandleFunc("/favicon.ico", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }) // of the login
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			t.Errorf("a link leads to %s", r.URL)
			http.NotFound(w, r)
		})
		front := httptest.NewServer(mux)
		t.Cleanup(front.Close)              // after the visitors have gone: a page may still load its icon
		t.Cleanup(s.CloseClientConnections) // streams

		a, b := visit(), visit()
		for _, v := range []*visitor{a, b} {
			v.open(front.URL + "/in/?user=anna")
			v.text("#in")
		}
		for i := range 60 {
			put(t, s.store, fmt.Sprint("id", i), time.Hour, map[string]any{"user": "bert"})
		}
		at := func(v *visitor, path, query string) {
			t.Helper()
			v.until("the page "+path+" with "+query, func() bool {
				u, err := url.Parse(v.location())
				return err == nil && u.Path == path && strings.Contains(u.RawQuery, query)
			})
		}
		a.open(front.URL + "/tools/who/")
		if got := ask[string](a, `getComputedStyle(document.querySelector(".figures")).display`); got != "flex" {
			t.Errorf("the style sheet is not there: display is %q", got)
		}
		a.click("#p-next")
		at(a, "/tools/who/", "page=2")
		a.click("#by-size")
		at(a, "/tools/who/", "sort=-size")
		a.keys(`input[name="value"]`, "bert\r")
		at(a, "/tools/who/", "value=bert")
		a.click("tr[data-session] a.handle")
		at(a, "/tools/who/", "session=")
		a.click(`form[data-action="end"] button`)
		a.until("one was ended", func() bool { return a.text(".notice.good") == "1 session ended." })
		at(a, "/tools/who/", "value=bert")
		a.click(`form[data-action="end-matching"] button`)
		at(a, "/tools/who/", "ask=1")
		a.click(`form[data-action="confirm"] button`)
		a.until("all were ended", func() bool { return a.text(".notice.good") == "59 sessions ended." })
		at(a, "/tools/who/", "value=bert")

		a.open(front.URL + "/me/")
		a.click(`form[data-action="sign-out"] button`)
		a.until("the other is out", func() bool { return a.count(".notice.good") == 1 && a.count("[data-session]") == 1 })
		at(a, "/me/", "")
	})
}

// Behind such a proxy the page follows too.
func TestStrippedPathLive(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	s := newSite(t, &sessionui.Options{Show: []string{"user"}}, nil)
	target, _ := url.Parse(s.URL)
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.URL.Path = operatorPath + strings.TrimPrefix(r.In.URL.Path, "/tools/who/")
	}})
	t.Cleanup(front.Close)              // after the visitor has gone
	t.Cleanup(s.CloseClientConnections) // streams
	v := visit(t, browser)
	v.open(front.URL + "/tools/who/")
	v.until("it is live", func() bool { return v.text("#status") == "Live" })
	put(t, s.store, "one", time.Hour, nil)
	v.until("one is there", func() bool { return v.count("tr[data-session]") == 1 })
}
