// Package interop compares the Stores of backend's packages with the npm packages whose formats they share: real
// Express applications and Go servers use the same sessions on the same server. It has tests only.
package interop
