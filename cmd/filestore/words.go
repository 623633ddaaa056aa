package main

import "github.com/sessionfilestore/filestore/internal/words"

// The words for sizes and times, which the operator's page has too.
var (
	size, inWords, short = words.Size, words.InWords, words.Short
	plural, cut, oneLine = words.Plural, words.Cut, words.Line
)

const (
	day      = words.Day
	ellipsis = words.Ellipsis
)

// age is the duration of a flag.
type age = words.Age
