//go:build race

package kruptein_test

func init() { stride = 1500 } // deriving a key takes ten times as long
