package main

import (
	"runtime"
	"testing"

	"async-data-processor/faults/rig"
)

// TestHeapRoom: a small heap is collected seldom.
func TestHeapRoom(t *testing.T) {
	release := giveHeapRoom(environment{}.lookup)
	defer release()
	runtime.GC()
	if n := collections(heapRoom - 4<<20); n != 0 {
		t.Errorf("%d collections before the heap had grown by %d bytes, want none", n, heapRoom)
	}
	if n := collections(20 * heapRoom); n < 5 || n > 40 {
		t.Errorf("%d collections of %d bytes, want 5 to 40", n, 20*heapRoom)
	}
}

// TestHeapRoomOfTheEnvironment: who sets GOGC or GOMEMLIMIT gets that.
func TestHeapRoomOfTheEnvironment(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		release := giveHeapRoom(func(asked string) (string, bool) { return "100", asked == name })
		runtime.GC()
		if n := collections(heapRoom); n == 0 {
			t.Errorf("with %s set nothing is collected while the heap grows by %d bytes", name, heapRoom)
		}
		release()
	}
}

var sink []byte

// collections is how many there are while so many bytes become garbage.
func collections(bytes int) uint32 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for done := 0; done < bytes; done += 4096 {
		sink = make([]byte, 4096)
	}
	runtime.ReadMemStats(&after)
	return after.NumGC - before.NumGC
}

// TestBallastIsNoMemory compares what the system gives to a process with a
// ballast, and to one without.
func TestBallastIsNoMemory(t *testing.T) {
	t.Parallel()
	settings := []string{"BROKER_URL=amqp://127.0.0.1:1/", "DATA_OUTPUT_DIR=" + t.TempDir()}
	without := resident(t, rig.Start(t, "server", append(settings, "GOGC=100")...))
	with := resident(t, rig.Start(t, "server", settings...))
	if with-without > heapRoom/2 {
		t.Errorf("a process takes %d bytes, and %d without a ballast", with, without)
	}
}

// resident is the process's own memory, as the system counts it.
func resident(t *testing.T, p *rig.Process) int {
	t.Helper()
	kib := p.Usage().Anonymous
	if kib == 0 {
		t.Skip("only Linux tells")
	}
	if code := p.Stop(); code != exitClean {
		t.Errorf("exit code %d", code)
	}
	return kib << 10
}
