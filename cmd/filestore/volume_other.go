//go:build !linux && !darwin

package main

import (
	"errors"
	"os"
)

func volumeOf(*os.File) (volume, error) { return volume{}, errors.ErrUnsupported }
