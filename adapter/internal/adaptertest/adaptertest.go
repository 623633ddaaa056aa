// Package adaptertest tells the stories that hold for all adapters, and checks their READMEs. Only tests import it.
package adaptertest

import (
	"testing"

	"github.com/sessionfilestore/filestore/internal/storetest"
)

// Readme is storetest.Readme.
func Readme(t *testing.T) {
	t.Helper()
	storetest.Readme(t)
}
