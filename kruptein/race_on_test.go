//go:build race

package kruptein_test

func init() { stride = 1500 } // to derive a key takes ten times as long
