package sessionui

import (
	"testing"
	"time"
)

func TestDevice(t *testing.T) {
	for agent, want := range map[string]string{
		"": "",
		"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0":                                                                  "Firefox on Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Safari/537.36":                             "Chrome on Windows",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Safari/537.36 Edg/128.0":                   "Edge on Windows",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1": "Safari on iPhone",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/128.0 Mobile/15E148 Safari/604.1":  "Chrome on iPhone",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15":                   "Safari on macOS",
		"Mozilla/5.0 (Linux; Android 14; SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0 Mobile Safari/537.36":  "Samsung Internet on Android",
		"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Safari/537.36":                              "Chrome on ChromeOS",
		"curl/8.5.0":          "curl",
		"<script>1</script>":  "Unknown browser",
		"Linux <b>":           "Linux",
		"Go-http-client/1.1":  "Go program",
		"something else/1.0":  "Unknown browser",
		"Opera OPR/1 Windows": "Opera on Windows",
	} {
		if got := device(agent); got != want {
			t.Errorf("%q is %q, want %q", agent, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0", 9999: "9999", 10000: `10<span class="gap"></span>000`, 1234567: `1<span class="gap"></span>234<span class="gap"></span>567`} {
		if got := string(digits(n)); got != want {
			t.Errorf("digits(%d) = %s", n, got)
		}
	}
	for n, want := range map[int64]string{0: "0", 9999: "9999", 12345: "12 k", 15_915_166: "15 M"} {
		if got := rough(n); got != want {
			t.Errorf("rough(%d) = %s", n, got)
		}
	}
	now := time.Now()
	for d, want := range map[time.Duration]string{0: "now", -time.Hour: "now", 90 * time.Second: "1m ago", 50 * time.Hour: "2d ago"} {
		if got := ago(now, now.Add(-d)).Text; got != want {
			t.Errorf("%v ago is %q", d, got)
		}
	}
}
