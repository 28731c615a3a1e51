package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// names returns so many names of nodes, each of them once.
func names(rng *rand.Rand, n int) (names []string) {
	for len(names) < n {
		if name := fmt.Sprintf("host-%d-%06X", rng.IntN(4), rng.IntN(1<<24)); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// owners is assign by name.
func owners(nodes []string, shards int) (owners []string) {
	for _, i := range assign(nodes, shards) {
		owners = append(owners, nodes[i])
	}
	return owners
}

// TestAssign: every shard has an owner, no node has two more than another, and the
// order of the nodes does not matter.
func TestAssign(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		shards, nodes := 1+rng.IntN(100), names(rng, 1+rng.IntN(12))
		got := owners(nodes, shards)
		loads := make(map[string]int)
		for _, owner := range got {
			loads[owner]++
		}
		for _, node := range nodes {
			if load := loads[node]; load < shards/len(nodes) || load > (shards+len(nodes)-1)/len(nodes) {
				t.Fatalf("%s has %d of %d shards among %d nodes", node, load, shards, len(nodes))
			}
		}
		rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		if again := owners(nodes, shards); !slices.Equal(got, again) {
			t.Fatalf("%v and in another order %v", got, again)
		}
	}
}

// TestAssignStable: the result is the same in every version, because nodes of two
// versions share shards during an upgrade.
func TestAssignStable(t *testing.T) {
	got := assign([]string{"a-000001", "b-000002", "c-000003"}, 10)
	if want := []int{2, 1, 1, 0, 0, 0, 0, 2, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestAssignMoves: when a node comes, or goes, the shards that move are not many more
// than those that it gets, or had.
func TestAssignMoves(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, shards := range []int{5, 20, 128} {
		for nodes := 1; nodes <= 8; nodes++ {
			const rounds = 50
			moved, least := 0, 0
			for range rounds {
				with := names(rng, nodes+1)
				a, b := owners(with[:nodes], shards), owners(with, shards)
				for n := range a {
					if a[n] != b[n] {
						moved++
					}
					if b[n] == with[nodes] {
						least++
					}
				}
			}
			if moved > 2*least {
				t.Errorf("%d shards, %d nodes and one more: %d shards move, at least %d have to", shards, nodes, moved, least)
			}
			if nodes == 1 && moved != least {
				t.Errorf("%d shards, a second node: %d shards move, %d have to", shards, moved, least)
			}
		}
	}
}

func BenchmarkAssign(b *testing.B) {
	nodes := names(rand.New(rand.NewPCG(5, 6)), 100)
	for b.Loop() {
		assign(nodes, 1024)
	}
}
