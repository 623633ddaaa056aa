package sessionui

import (
	"cmp"
	"strings"
)

// browserOf and systemOf name what a User-Agent stands for: "Firefox", "Linux". "" is not known. Most agents name others
// too, so that the order counts. The names are ours: nothing that a browser sends is shown.
func browserOf(agent string) string {
	return first(agent, "Edg/=Edge", "EdgA/=Edge", "EdgiOS/=Edge", "OPR/=Opera", "SamsungBrowser/=Samsung Internet", "Vivaldi/=Vivaldi",
		"Firefox/=Firefox", "FxiOS/=Firefox", "Chrome/=Chrome", "CriOS/=Chrome", "Safari/=Safari", "curl/=curl", "Go-http-client=Go client", "python-=Python client")
}

func systemOf(agent string) string {
	return first(agent, "iPhone=iPhone", "iPad=iPad", "Android=Android", "Windows=Windows", "Mac OS X=macOS", "CrOS=ChromeOS", "Linux=Linux")
}

// device names what a User-Agent stands for in English: "Firefox on Linux".
func device(agent string) string {
	browser, system := browserOf(agent), systemOf(agent)
	switch {
	case agent == "":
		return ""
	case browser != "" && system != "":
		return browser + " on " + system
	}
	return cmp.Or(browser+system, "Unknown browser")
}

// first returns what the first of the words that agent has stands for.
func first(agent string, meanings ...string) string {
	for _, m := range meanings {
		if word, name, _ := strings.Cut(m, "="); strings.Contains(agent, word) {
			return name
		}
	}
	return ""
}
