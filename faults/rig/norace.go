//go:build !race

package rig

// Race tells whether the tests, and so the program, have the race detector.
const Race = false
