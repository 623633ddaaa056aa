// Package browser tests the pages of package sessionui in a real browser. It has no code but tests, and is a module of
// its own because of what drives the browser.
package browser
