package rabbitmq

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTags(t *testing.T) {
	for _, c := range []struct {
		name          string
		acked, others []uint64 // of eight
		want          []frame
	}{
		{"nothing", nil, nil, nil},
		{"the first", []uint64{1}, nil, []frame{{1, false}}},
		{"the first three", []uint64{2, 3, 1}, nil, []frame{{3, true}}},
		{"all", []uint64{8, 7, 6, 5, 4, 3, 2, 1}, nil, []frame{{8, true}}},
		{"none before the first unsettled", []uint64{2, 4}, nil, []frame{{2, false}, {4, false}}},
		{"before and after", []uint64{1, 2, 4, 5}, nil, []frame{{2, true}, {4, false}, {5, false}}},
		{"after one that was told", []uint64{2}, []uint64{1}, []frame{{2, false}}},
		{"around one that was told", []uint64{1, 3}, []uint64{2}, []frame{{3, true}}},
		{"before one that was told", []uint64{1, 2}, []uint64{3}, []frame{{2, true}}},
		{"told only", nil, []uint64{1, 2}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var of tags
			for tag := range uint64(8) {
				of.receive(tag + 1)
			}
			for _, tag := range c.others {
				of.tell(tag)
			}
			for _, tag := range c.acked {
				of.ack(tag)
			}
			if got := of.frames(nil); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
			if got := of.frames(nil); got != nil {
				t.Errorf("and again %v", got)
			}
		})
	}
}

// TestTagsUnseen: a tag that was skipped is never acknowledged.
func TestTagsUnseen(t *testing.T) {
	var of tags
	of.receive(1)
	of.receive(4)
	of.ack(1)
	of.ack(4)
	if got, want := of.frames(nil), []frame{{1, false}, {4, false}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestTagsAgainstBroker settles at random, and lets a broker read the frames:
// it forgets what was acknowledged, once, and nothing else.
func TestTagsAgainstBroker(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var of tags
		var open []uint64
		outstanding := map[uint64]bool{} // at the broker
		acked := map[uint64]bool{}       // here, and not yet told
		next := uint64(1)
		for range 300 {
			switch random.IntN(4) {
			case 0, 1:
				of.receive(next)
				outstanding[next] = true
				open = append(open, next)
				next++
			case 2:
				if len(open) == 0 {
					continue
				}
				i := random.IntN(min(5, len(open)))
				tag := open[i]
				open = slices.Delete(open, i, i+1)
				if random.IntN(8) == 0 {
					delete(outstanding, tag)
					of.tell(tag)
					continue
				}
				acked[tag] = true
				of.ack(tag)
			case 3:
				for _, f := range of.frames(nil) {
					if !outstanding[f.tag] {
						t.Fatalf("seed %d: %d is not known to the broker", seed, f.tag)
					}
					for tag := range outstanding {
						if tag == f.tag || f.multiple && tag < f.tag {
							if !acked[tag] {
								t.Fatalf("seed %d: frame %v acknowledges %d, which is unsettled", seed, f, tag)
							}
							delete(outstanding, tag)
							delete(acked, tag)
						}
					}
				}
				if len(acked) > 0 {
					t.Fatalf("seed %d: the broker is not told of %v", seed, acked)
				}
				want := 0 // it forgets all before the first unsettled
				if len(open) > 0 {
					want = int(next - open[0])
				}
				if len(of.states) != want {
					t.Fatalf("seed %d: it remembers %d deliveries, want %d", seed, len(of.states), want)
				}
			}
		}
	}
}
