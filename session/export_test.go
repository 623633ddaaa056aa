package session

// UniteFlash is for the fuzzer.
var UniteFlash = uniteFlash
