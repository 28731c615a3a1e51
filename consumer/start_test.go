package consumer

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/output"
)

// TestShardsOpened: what the start has come to is told once, when each shard runs or
// has begun to wait.
func TestShardsOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var mu sync.Mutex // guards told
		var told []event.ShardsOpened
		r.hear = func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e, ok := e.(event.ShardsOpened); ok {
				told = append(told, e)
			}
		}
		r.fail(0, faults{open: broken("mkdir", 0, syscall.EIO)})
		r.fail(1, faults{standby: true})
		r.start()
		r.after(10 * time.Second)
		r.fail(0, faults{})
		r.fail(1, faults{})
		r.after(time.Minute)
		r.stop()
		want := event.ShardsOpened{Shards: 3, Owned: 1, Standby: 1}
		if len(told) == 1 {
			want.Took = told[0].Took
		}
		if len(told) != 1 || told[0] != want || want.Took > time.Second {
			t.Errorf("told %+v, want one %+v", told, want)
		}
	})
}

// TestShardsOpenedWithoutOneStopped: the start has come to its end also if a shard was
// stopped while it was being opened.
func TestShardsOpenedWithoutOneStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan event.ShardsOpened, 2)
		set := New(Config{
			Shards: shards,
			Queues: brokertest.NewMemory(shards), Dir: openDir(t),
			Open: func(ctx context.Context, n int, onStandby func()) (Folder, error) {
				if n == 1 {
					onStandby()
				}
				<-ctx.Done()
				return nil, ctx.Err()
			},
			Events: func(e event.Event) {
				if e, ok := e.(event.ShardsOpened); ok {
					told <- e
				}
			},
		})
		set.Start(0)
		set.Start(1)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- set.Run(ctx, t.Context()) }()
		synctest.Wait()
		set.Stop(0)
		synctest.Wait()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(told) != 1 {
			t.Fatalf("told %d times, want once", len(told))
		}
		if e := <-told; e.Shards != 1 || e.Standby != 1 {
			t.Errorf("told %+v, want one shard, which stands by", e)
		}
	})
}

func openDir(t *testing.T) *output.Dir {
	dir, err := output.Open(t.TempDir(), output.Window{IDs: 1, Age: time.Hour}, output.Roll{})
	must(t, err)
	t.Cleanup(func() { dir.Close() })
	return dir
}
