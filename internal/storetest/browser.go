package storetest

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"testing"
	"time"
)

// A Browser is a visitor of URL. It keeps cookies and does not follow redirects.
type Browser struct {
	t      testing.TB
	URL    string
	Client http.Client
}

// NewBrowser returns a Browser without cookies.
func NewBrowser(t testing.TB, url string) *Browser {
	jar, _ := cookiejar.New(nil)
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &Browser{t, url, http.Client{
		Jar: jar, Transport: tr, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Do returns the answer to a GET. It fails the test if there is not an answer.
func (b *Browser) Do(path string) (code int, body string) {
	b.t.Helper()
	res, err := b.Client.Get(b.URL + path)
	if err != nil {
		b.t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body) // to its end: some frameworks store the session after the answer
	if err != nil {
		b.t.Errorf("GET %s: %v", path, err)
	}
	return res.StatusCode, string(text)
}

// Get does a GET whose answer must be 200.
func (b *Browser) Get(path string) (body string) {
	b.t.Helper()
	code, body := b.Do(path)
	if code != http.StatusOK {
		b.t.Errorf("GET %s = %d %q", path, code, body)
	}
	return body
}

// Want does a GET whose answer must be 200 with this body.
func (b *Browser) Want(path, body string) {
	b.t.Helper()
	if code, got := b.Do(path); code != http.StatusOK || got != body {
		b.t.Errorf("GET %s = %d %q, want %q", path, code, got, body)
	}
}

func (b *Browser) site() *url.URL {
	u, err := url.Parse(b.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

// Cookie returns the value of a cookie, or "" without one.
func (b *Browser) Cookie(name string) string {
	for _, c := range b.Client.Jar.Cookies(b.site()) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// With returns another browser, which has only this cookie.
func (b *Browser) With(name, value string) *Browser {
	b.t.Helper()
	other := NewBrowser(b.t, b.URL)
	other.Client.Jar.SetCookies(b.site(), []*http.Cookie{{Name: name, Value: value, Path: "/"}})
	return other
}
