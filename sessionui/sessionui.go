// Package sessionui has two pages to look at sessions: Operator for those who run a site, and Devices for its users.
//
// Neither knows who may see it. Operator belongs behind the application's own login, for operators only; Devices shows
// the user of the request's session their own sessions and no others.
//
// Both work at any path, with and without http.StripPrefix, and behind a proxy that strips a part of the path: all links
// are relative, and only the query says what is asked for. Both work without JavaScript. They load nothing from another
// host, and their Content-Security-Policy allows no inline script or style. Neither shows an id, a cookie or a secret;
// a handle names a session on a page, opens nothing, and cannot be turned into an id.
//
// Changes need a POST from the same origin. One without both Sec-Fetch-Site and Origin is refused too: all browsers
// send one of them.
//
// Tests and style sheets can rely on some attributes. The row or card of a session has data-session, with its handle, and
// that of the visitor data-current too. Forms have data-action: end, end-matching, confirm, sign-out or sign-out-others.
// Figures have data-figure: live, expired or unreadable.
package sessionui

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore/internal/words"
)

//go:embed assets
var files embed.FS

var assetTypes = map[string]string{
	"style.css": "text/css; charset=utf-8", "script.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
}

const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

const maxBody = 64 << 10

// begin sets the headers, answers what needs no page, and refuses what no page of ours sends. It reports whether it has
// answered.
func begin(w http.ResponseWriter, r *http.Request) (answered bool) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil { // without a part of it a filter means other sessions
			http.Error(w, "The address cannot be read.", http.StatusBadRequest)
			return true
		}
		name := q.Get("asset")
		if name == "" {
			return false
		}
		kind, ok := assetTypes[name]
		if !ok {
			http.Error(w, "There is no such file.", http.StatusNotFound)
			return true
		}
		data, _ := files.ReadFile("assets/" + name)
		h.Set("Content-Type", kind)
		w.Write(data)
		return true
	case http.MethodPost:
		// Check lets a request pass that has neither header, because programs send such. No program has business here.
		unknown := r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == ""
		if unknown || new(http.CrossOriginProtection).Check(r) != nil {
			http.Error(w, "This request does not come from this page.", http.StatusForbidden)
			return true
		}
		// Whoever is let in now may not be any more when a form comes late.
		rc := http.NewResponseController(w)
		rc.SetReadDeadline(time.Now().Add(writeTimeout)) // an error means that there is none
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		err := r.ParseForm()
		rc.SetReadDeadline(time.Time{})
		if err != nil {
			http.Error(w, "The form cannot be read.", http.StatusBadRequest)
			return true
		}
		return false
	}
	h.Set("Allow", "GET, HEAD, POST")
	http.Error(w, "Only GET, HEAD and POST.", http.StatusMethodNotAllowed)
	return true
}

// render answers with a template. It goes into memory first: after half a page it is too late for an error.
func render(w http.ResponseWriter, r *http.Request, log *slog.Logger, status int, t *template.Template, name string, data any) {
	var buf bytes.Buffer
	if err := t.ExecuteTemplate(&buf, name, data); err != nil {
		log.ErrorContext(r.Context(), "sessionui: a page could not be made", "err", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(buf.Bytes()) // an error means that the client has gone
}

// redirect lets the browser go on with a GET of the same page. http.Redirect would make the address absolute, which is
// wrong behind a proxy that strips a part of the path.
func redirect(w http.ResponseWriter, query string) {
	w.Header().Set("Location", query)
	w.WriteHeader(http.StatusSeeOther)
}

func parse(name string, funcs template.FuncMap) *template.Template {
	return template.Must(template.New(name).Funcs(funcs).ParseFS(files, "assets/"+name))
}

// digits shows n with a gap between thousands. The gap is style and not text: what a test or a clipboard reads is the
// number.
func digits(n int) template.HTML {
	s := strconv.Itoa(n)
	if n < 10_000 {
		return template.HTML(s)
	}
	var b strings.Builder
	for i := range len(s) {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteString(`<span class="gap"></span>`)
		}
		b.WriteByte(s[i])
	}
	return template.HTML(b.String())
}

// rough shows a large number in a few characters.
func rough(n int64) string {
	switch {
	case n >= 10_000_000:
		return fmt.Sprintf("%d M", n/1_000_000)
	case n >= 10_000:
		return fmt.Sprintf("%d k", n/1000)
	}
	return strconv.FormatInt(n, 10)
}

// iso and clock are a moment for programs and for people.
func iso(t time.Time) string   { return t.UTC().Format(time.RFC3339) }
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// A span is the time between now and a moment, as it is shown.
type span struct{ Text, ISO, Clock string }

const unknown = "–"

// ago tells when t was; later when it will be. The zero time is not known.
func ago(now, t time.Time) span {
	switch d := now.Sub(t); {
	case t.IsZero():
		return span{Text: unknown}
	case d < time.Second:
		return span{"now", iso(t), clock(t)}
	default:
		return span{words.Short(d) + " ago", iso(t), clock(t)}
	}
}

func later(now, t time.Time) span {
	if t.IsZero() {
		return span{Text: unknown}
	}
	return span{words.Short(max(t.Sub(now), 0)), iso(t), clock(t)}
}
