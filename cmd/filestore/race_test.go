//go:build race

package main

// raceDetector says that memory and time are several times as much as usual.
const raceDetector = true
