// Package supported is compiled before all others of the store. On a system that the store does not know, it says so in
// place of the compiler.
package supported
