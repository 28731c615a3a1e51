package control

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// assign returns the owner of each shard, as an index of nodes, which must not be
// empty. It is rendezvous hashing with bounded loads: of all pairs of a shard and a
// node, those with the highest scores come first, and no node gets more than its part.
//
//   - Every shard has an owner, and no node has two shards more than another.
//   - Each node computes the same from the same nodes, in whatever order.
//   - When a node comes or goes, few shards move beside those that it gets or had.
//
// Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
func assign(nodes []string, shards int) []int {
	names := make([]uint64, len(nodes))
	for i, name := range nodes {
		names[i] = hashName(name)
	}
	type pair struct {
		score       uint64
		shard, node int
	}
	pairs := make([]pair, 0, shards*len(nodes))
	for shard := range shards {
		for node, name := range names {
			pairs = append(pairs, pair{mix(name ^ mix(uint64(shard)+golden)), shard, node})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.shard, b.shard), cmp.Compare(nodes[a.node], nodes[b.node]))
	})
	owners := make([]int, shards)
	for i := range owners {
		owners[i] = -1
	}
	loads := make([]int, len(nodes))
	part, more := shards/len(nodes), shards%len(nodes) // so many nodes get one more
	for _, p := range pairs {
		switch {
		case owners[p.shard] >= 0 || loads[p.node] > part || loads[p.node] == part && more == 0:
			continue
		case loads[p.node] == part:
			more--
		}
		loads[p.node]++
		owners[p.shard] = p.node
	}
	return owners
}

func hashName(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return mix(h.Sum64())
}

const golden = 0x9e3779b97f4a7c15

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014): each bit of its
// result depends on each bit of x.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
