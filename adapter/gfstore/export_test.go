package gfstore

import "github.com/gogf/gf/v2/os/gsession"

// Remembered returns the number of maps whose session s knows.
func Remembered(s gsession.Storage) int {
	st := s.(*storage)
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.origins)
}
