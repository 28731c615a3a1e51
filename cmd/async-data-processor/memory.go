package main

import "runtime/debug"

const (
	heapRoom     = 16 << 20
	collectAfter = 50 // percent
)

// giveHeapRoom has the garbage collector wait until the heap has grown by
// heapRoom and half of what is live, unless the environment says otherwise. What
// lives in a busy process is some 5 MB, and Go would wait until that has
// doubled: hundreds of collections a second, which cost as much as the work.
//
// A ballast gives a small heap room. A larger percentage would also let a large
// heap, hundreds of megabytes with some settings, grow to several times its size.
// The ballast is never touched, so the system gives no memory for it.
//
// It lasts until release is called.
func giveHeapRoom(lookup lookupEnv) (release func()) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if value, _ := lookup(name); value != "" {
			return func() {}
		}
	}
	ballast := make([]byte, heapRoom*100/collectAfter)
	before := debug.SetGCPercent(collectAfter)
	return func() {
		debug.SetGCPercent(before)
		clear(ballast[:1]) // it was live until here
	}
}
