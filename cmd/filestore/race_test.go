//go:build race

package main

// raceDetector: memory and time are several times what they are.
const raceDetector = true
