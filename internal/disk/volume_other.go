//go:build !linux && !darwin

package disk

import "errors"

// VolumeOf returns the volume of the directory at path. Not every system tells.
func VolumeOf(string) (Volume, error) { return Volume{}, errors.ErrUnsupported }
