package sessionui

import (
	"cmp"
	"strings"
)

// device names what a User-Agent stands for: "Firefox on Linux". Most agents name others too, so that the order counts.
// The words are ours: nothing that a browser sends is shown.
func device(agent string) string {
	browser, system := parts(agent)
	if browser != "" && system != "" {
		return browser + " on " + system
	}
	return cmp.Or(browser, system)
}

// parts returns the browser and the system of an agent, "" for what is not known. If neither is, the browser is called
// so, unless there is no agent.
func parts(agent string) (browser, system string) {
	if agent == "" {
		return "", ""
	}
	browser = first(agent, "Edg/=Edge", "EdgA/=Edge", "EdgiOS/=Edge", "OPR/=Opera", "SamsungBrowser/=Samsung Internet", "Vivaldi/=Vivaldi",
		"Firefox/=Firefox", "FxiOS/=Firefox", "Chrome/=Chrome", "CriOS/=Chrome", "Safari/=Safari", "curl/=curl", "Go-http-client=Go program", "python-=Python program")
	system = first(agent, "iPhone=iPhone", "iPad=iPad", "Android=Android", "Windows=Windows", "Mac OS X=macOS", "CrOS=ChromeOS", "Linux=Linux")
	if browser == "" && system == "" {
		browser = "Unknown browser"
	}
	return browser, system
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
