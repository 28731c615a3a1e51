package dashboard

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"time"

	"async-data-processor/broker"
)

const (
	// maxSeries bounds the answers of all processes together, in bytes.
	maxSeries = 16 << 20
	// maxNumber bounds a number that another process tells.
	maxNumber = 1 << 53
)

// aged is a sample by its age. What is nil is not known, or the process has no such part.
type aged struct {
	age                                     time.Duration
	accepted, written, dead, queued, oldest *int64 // oldest in milliseconds
}

// age returns samples by their age, the newest first.
func age(samples []sample, now time.Time) []aged {
	all := make([]aged, len(samples))
	for i, s := range samples {
		all[i] = aged{max(0, now.Sub(s.at)), s.Accepted, s.Written, s.Dead, s.Queued, nil}
		if s.Oldest != nil {
			ms := s.Oldest.Milliseconds()
			all[i].oldest = &ms
		}
	}
	return all
}

// seriesBody is what a process answers: of each sample its age in milliseconds, and the
// numbers in the order of aged, the newest sample first.
type seriesBody struct {
	V      int         `json:"v"`
	Node   string      `json:"node"`
	Points [][6]*int64 `json:"points"`
}

// answer is asked of the samples of this process.
func (s *Series) answer([]byte) []byte {
	b := seriesBody{V: broker.BusVersion, Node: s.cfg.Node()}
	for _, a := range age(s.now(), time.Now()) {
		ms := a.age.Milliseconds()
		b.Points = append(b.Points, [6]*int64{&ms, a.accepted, a.written, a.dead, a.queued, a.oldest})
	}
	return broker.Body(b) // less than 32 KiB
}

var errSeries = errors.New("a series on the bus whose numbers cannot be")

// readSeries reads what a process answers. Nothing of it is trusted.
func readSeries(body []byte) (node string, all []aged, err error) {
	var b seriesBody
	if err := broker.ReadBody(body, &b); err != nil {
		return "", nil, err
	}
	if len(b.Points) == 0 || len(b.Points) > maxSamples+maxLive {
		return "", nil, errSeries
	}
	for _, p := range b.Points {
		for _, n := range p {
			if n != nil && (*n < 0 || *n > maxNumber) {
				return "", nil, errSeries
			}
		}
		if p[0] == nil || *p[0] > (2*seriesLength).Milliseconds() {
			return "", nil, errSeries
		}
		a := aged{time.Duration(*p[0]) * time.Millisecond, p[1], p[2], p[3], p[4], p[5]}
		if last := len(all) - 1; last >= 0 && !a.before(&all[last]) {
			return "", nil, errSeries
		}
		all = append(all, a)
	}
	return b.Node, all, nil
}

// before tells whether a sample can be an older one of the same process.
func (a *aged) before(o *aged) bool {
	fewer := func(a, o *int64) bool { return (a == nil) == (o == nil) && (a == nil || *a <= *o) }
	return a.age >= o.age && fewer(a.accepted, o.accepted) && fewer(a.written, o.written) && fewer(a.dead, o.dead)
}

// sum returns a point for each step between two samples of this process, the oldest first.
// A step that a process cannot tell of yet comes later.
func sum(own []sample, all [][]aged, now time.Time) []Point {
	points := make([]Point, 0, len(own))
	for k := len(own) - 2; k >= 0; k-- {
		end, begin := now.Sub(own[k].at), now.Sub(own[k+1].at)
		p := Point{At: own[k].at.UTC().Truncate(time.Millisecond)}
		queued, known := int64(0), true
		for _, one := range all {
			if end < one[0].age && one[0].age < hungAfter {
				return points
			}
			add(&p.Accepted, one, begin, end, func(a *aged) *int64 { return a.accepted })
			add(&p.Written, one, begin, end, func(a *aged) *int64 { return a.written })
			if from, to, ok := grown(one, begin, end, func(a *aged) *int64 { return a.dead }); ok {
				dead := int64(to) - int64(from)
				if p.Dead != nil {
					dead += *p.Dead
				}
				p.Dead = &dead
			}
			at := nearest(one, end)
			if at == nil || at.written == nil {
				continue // it was not there, or has no shards
			}
			if at.queued == nil {
				known = false
			} else {
				queued += *at.queued
				p.Queued = &queued
			}
			if at.oldest != nil {
				if age := float64(*at.oldest) / 1000; p.Oldest == nil || age > *p.Oldest {
					p.Oldest = &age
				}
			}
		}
		if !known {
			p.Queued = nil
		}
		for _, rate := range []*float64{p.Accepted, p.Written} {
			if rate != nil {
				*rate = math.Round(*rate*10/(begin-end).Seconds()) / 10
			}
		}
		points = append(points, p)
	}
	return points
}

// add adds by how much a count of a process has grown.
func add(to **float64, one []aged, begin, end time.Duration, count func(*aged) *int64) {
	if was, is, ok := grown(one, begin, end, count); ok {
		if *to == nil {
			*to = new(float64)
		}
		**to += is - was
	}
}

// grown returns a count of a process at two ages. It is false if the process has none.
func grown(one []aged, begin, end time.Duration, count func(*aged) *int64) (was, is float64, ok bool) {
	was, ok1 := between(one, begin, count)
	is, ok2 := between(one, end, count)
	return was, is, ok1 && ok2
}

// between returns a count of a process at an age, in proportion between two samples.
// Before the first it was the same: the process began with it.
func between(one []aged, age time.Duration, count func(*aged) *int64) (float64, bool) {
	i, _ := slices.BinarySearchFunc(one, age, func(a aged, age time.Duration) int { return cmp.Compare(a.age, age) })
	older, newer := &one[min(i, len(one)-1)], &one[max(0, i-1)]
	a, b := count(older), count(newer)
	switch {
	case a == nil || b == nil:
		return 0, false
	case i == 0:
		return float64(*count(&one[0])), true
	case i == len(one):
		return float64(*a), true
	}
	part := float64(age-newer.age) / float64(max(1, older.age-newer.age))
	return float64(*b) + (float64(*a)-float64(*b))*part, true
}

// nearest returns the sample of a process that is nearest to an age; nil if the process
// was not there.
func nearest(one []aged, age time.Duration) *aged {
	i, _ := slices.BinarySearchFunc(one, age, func(a aged, age time.Duration) int { return cmp.Compare(a.age, age) })
	switch {
	case i == len(one) && age-one[i-1].age > seriesStep:
		return nil
	case i == len(one), i > 0 && age-one[i-1].age < one[i].age-age:
		return &one[i-1]
	}
	return &one[i]
}
