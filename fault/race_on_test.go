//go:build linux && race

package fault

func init() { stride = 5 } // its processes start slowly; the run without it tries all
