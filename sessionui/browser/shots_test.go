package browser

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/sessionui"
)

// The agents of real browsers, shortened to what tells them apart.
var agents = []string{
	"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Safari/537.36",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
	"Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Mobile Safari/537.36",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Safari/537.36 Edg/128.0",
}

// populate makes an hour of a small shop.
func populate(t testing.TB, s *site) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	users := []string{"anna", "bert", "clara", "dora", "emil", "frida", "gustav", "hanna", "ida", "jakob"}
	now := time.Now()
	file := func(id string, created, access time.Time, maxAge time.Duration, user string) {
		sess := filestore.Session{Created: created, LastAccess: access, Cookie: filestore.Cookie{OriginalMaxAge: maxAge, Expires: access.Add(maxAge).Truncate(time.Millisecond), HTTPOnly: true, Path: "/", SameSite: "lax"}}
		if user != "" {
			sess.Put("user", user)
			sess.Put("role", map[string]string{"anna": "admin"}[user]+map[bool]string{true: "", false: "customer"}[user == "anna"])
			sess.Put("__authenticated", created.UnixMilli())
		}
		sess.Put("__note", map[string]string{"agent": agents[rnd.IntN(len(agents))], "addr": fmt.Sprintf("198.51.%d.0/24", rnd.IntN(200))})
		sess.Put("cart", make([]int, rnd.IntN(60)))
		data, err := sess.MarshalJSON()
		if err == nil {
			err = os.WriteFile(filepath.Join(s.dir, id+".json"), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 412 {
		age := time.Duration(rnd.ExpFloat64() * float64(70*time.Minute))
		if i%3 == 0 {
			age = time.Duration(rnd.ExpFloat64() * float64(9*time.Hour))
		}
		access := now.Add(-time.Duration(rnd.Float64() * rnd.Float64() * float64(age)))
		user := ""
		if rnd.IntN(3) > 0 {
			user = users[rnd.IntN(len(users))]
		}
		file(fmt.Sprintf("shop%028d", i), now.Add(-age), access, 24*time.Hour, user)
	}
	for i := range 37 {
		end := time.Duration(rnd.Float64() * float64(55*time.Minute))
		file(fmt.Sprintf("over%028d", i), now.Add(-end-2*time.Hour), now.Add(-end-time.Hour), time.Hour, users[rnd.IntN(len(users))])
	}
	if err := os.WriteFile(filepath.Join(s.dir, "torn0000000000000000000000000000.json"), []byte(`{"cookie":{"origi`), 0o600); err != nil {
		t.Fatal(err)
	}
	file("node0000000000000000000000000000", time.Time{}, now.Add(-20*time.Second), 24*time.Hour, "dora")
}

// size, colours and height of a screen.
type screen struct {
	name          string
	width, height int64
	dark          bool
}

var screens = []screen{{"light", 1280, 900, false}, {"dark", 1280, 900, true}, {"360", 360, 780, false}}

// audited are the screens on which axe looks: both themes and both widths, by two runs and not by four.
var audited = []screen{screens[0], {"dark, 360", 360, 780, true}}

// look gives the visitor that screen. The page that is open is laid out again, and need not be loaded again.
func (v *visitor) look(c screen) {
	v.t.Helper()
	scheme := map[bool]string{false: "light", true: "dark"}[c.dark]
	v.do(chromedp.EmulateViewport(c.width, c.height))
	call(v, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	v.until("the screen "+c.name, func() bool {
		return ask[bool](v, fmt.Sprintf(`innerWidth === %d && matchMedia("(prefers-color-scheme: %s)").matches`, c.width, scheme))
	})
}

// TestScreenshots takes pictures of both pages. With SESSIONUI_SHOTS it puts them into that directory, for docs and for
// people to look at; without, it tests only that no page is wider than its screen.
func TestScreenshots(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	s := newSite(t, &sessionui.Options{Show: []string{"user", "role"}, Write: true}, nil)
	populate(t, s)
	anna := visit(t, browser)
	anna.login(s, "anna")
	put(t, s.store, "used0000000000000000000000000000", time.Hour, map[string]any{"user": "emil"})
	s.store.Destroy(context.Background(), "shop0000000000000000000000000007")
	for _, shot := range []struct{ name, path string }{
		{"operator", operatorPath}, {"devices", devicesPath}, {"one", ""}, {"ask", operatorPath + "?ask=1&member=user&value=anna"}, {"troubles", operatorPath + "?state=unreadable"},
	} {
		if shot.path == "" {
			anna.open(s.URL + operatorPath)
			anna.open(s.URL + operatorPath + get(anna, chromedp.AttributeValue(chromedp.CSS("tr[data-current] a.handle"), "href")).Value)
		} else {
			anna.open(s.URL + shot.path)
		}
		for _, c := range screens {
			anna.look(c)
			if width := get(anna, chromedp.Evaluate[int64]("document.documentElement.scrollWidth")); width > c.width {
				t.Errorf("%s on a screen of %d is %d wide", shot.name, c.width, width)
			}
			anna.shoot(shot.name+"-"+c.name, c)
		}
	}
}

// No text makes a page wider than its screen, and none is cut off by what is around it. A screen of 640 is also one of 1280
// at 200 %.
func TestWidths(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	s := newSite(t, &sessionui.Options{Show: []string{"user", "email", "a.deep.path"}, Write: true}, nil)
	v := visit(t, browser)
	v.login(s, "anna")
	long := strings.Repeat("long-and-without-a-space-", 50)
	for i, note := range []map[string]string{{"agent": agents[2], "addr": "2001:db8:1234:5678::/64"}, {"agent": long, "addr": strings.Repeat("2001:db8:", 20)}} {
		put(t, s.store, fmt.Sprint("mine", i), 0, map[string]any{"user": "anna", "__note": note})
		put(t, s.store, fmt.Sprint("long", i), 0, map[string]any{"user": long, "email": strings.Repeat("words ", 50), strings.Repeat("name", 50): 1,
			"a": map[string]any{"deep": map[string]any{"path": []string{long}}}, "__note": note})
	}
	if err := os.WriteFile(filepath.Join(s.dir, "torn.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	v.open(s.URL + operatorPath + "?sort=-size")
	one := get(v, chromedp.AttributeValue(chromedp.CSS("tr[data-session] a.handle"), "href")).Value
	for _, path := range []string{operatorPath, operatorPath + one, operatorPath + "?ask=1&member=user&value=" + long, devicesPath} {
		v.open(s.URL + path)
		for _, c := range []screen{{"320", 320, 700, false}, {"360", 360, 780, false}, {"640", 640, 450, false}, {"1160", 1160, 900, false}, {"1280", 1280, 900, false}} {
			v.look(c)
			wide := ask[[]string](v, `[...document.querySelectorAll("body *:not(.unseen, .skip, svg *)")].filter(e => e.getBoundingClientRect().right > innerWidth
				|| e.matches("table, dl, dt, dd, .card, .device") && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0).map(e => e.outerHTML.slice(0, 200))`)
			if len(wide) > 0 {
				t.Errorf("%.40s on a screen of %d: %d elements are too wide, such as %s", path, c.width, len(wide), wide[0])
			}
		}
	}
}

func (v *visitor) shoot(name string, c screen) {
	v.t.Helper()
	dir := os.Getenv("SESSIONUI_SHOTS")
	if dir == "" {
		return
	}
	time.Sleep(300 * time.Millisecond) // fonts
	beyond := true
	shot := call(v, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Clip: &page.Viewport{Width: float64(c.width), Height: float64(height(c)), Scale: 1}, CaptureBeyondViewport: &beyond,
	})
	img, err := png.Decode(bytes.NewReader(shot.Data))
	if err != nil {
		v.t.Fatal(err)
	}
	var small bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, paletted(img)); err != nil {
		v.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), small.Bytes(), 0o644); err != nil {
		v.t.Fatal(err)
	}
}

// height is that of the picture: SESSIONUI_SHOTS_HEIGHT shows more of a page.
func height(c screen) int64 {
	if n, err := strconv.ParseInt(os.Getenv("SESSIONUI_SHOTS_HEIGHT"), 10, 64); err == nil {
		return n
	}
	return c.height
}

// paletted is img in 256 colours: the pages have few, and the file is a third as large. The most frequent are all among them,
// and of the others none is nearly the same as another: shades of grey, from the edges of letters, would leave no room for
// what is small and green.
func paletted(img image.Image) image.Image {
	count := make(map[color.Color]int)
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			count[img.At(x, y)]++
		}
	}
	var palette color.Palette
	has := make(map[[3]uint32]bool)
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int { return count[b] - count[a] }) {
		r, g, b, _ := c.RGBA()
		if like := [3]uint32{r >> 12, g >> 12, b >> 12}; len(palette) < 64 || !has[like] && len(palette) < 256 {
			has[like] = true
			palette = append(palette, c)
		}
	}
	index := make(map[color.Color]uint8, len(count))
	for c := range count {
		index[c] = uint8(palette.Index(c))
	}
	out := image.NewPaletted(b, palette)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			out.SetColorIndex(x, y, index[img.At(x, y)])
		}
	}
	return out
}
