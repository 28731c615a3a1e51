package jetstream

import (
	"slices"
	"testing"

	"async-data-processor/broker"
)

// TestBeyondPicks: only subjects that a process of ours may have published to
// are shards.
func TestBeyondPicks(t *testing.T) {
	got := beyond(map[string]uint64{
		"async-data-processor.shard.1":    7,
		"async-data-processor.shard.12":   2,
		"async-data-processor.shard.3":    4,
		"async-data-processor.shard.2":    1,
		"async-data-processor.shard.04":   1,
		"async-data-processor.shard.+5":   1,
		"async-data-processor.shard.-1":   1,
		"async-data-processor.shard.x":    1,
		"async-data-processor.shard.2000": 1,
		"3":                               1,
	}, 2)
	if want := []broker.Backlog{{Shard: 2, Envelopes: 1}, {Shard: 3, Envelopes: 4}, {Shard: 12, Envelopes: 2}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
