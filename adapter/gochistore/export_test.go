package gochistore

import (
	"gitea.com/go-chi/session"

	"github.com/sessionfilestore/filestore"
)

// NewProvider returns what Register registers.
func NewProvider(s *filestore.Store) session.Provider { return newProvider(s) }
