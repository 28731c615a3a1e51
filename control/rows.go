package control

import (
	"encoding/json"
	"math"
	"strconv"
)

// Row is a row of a list, for those who are told of what is new.
type Row struct {
	// Key is its name in JSON.
	Key string
	// News makes the row new when it differs from the last. It lacks what the time changes:
	// ages, unless they have grown by much, and as of when the row is.
	News []byte
	// Text returns the row in JSON.
	Text func() []byte
}

func newRow(key, news, row any) Row {
	name, _ := json.Marshal(key)
	text, _ := json.Marshal(news)
	return Row{string(name), text, func() []byte {
		text, _ := json.Marshal(row) // it has no value that could fail
		return text
	}}
}

// coarse keeps so many digits of a number that time changes, and whole ones only.
func coarse(x float64, digits int) float64 {
	if x < 1 {
		return 0
	}
	unit := math.Pow10(max(0, int(math.Log10(x))+1-digits))
	return math.Floor(x/unit) * unit
}

// coarseAge is an age that is new every second at first, and later when it has grown by a
// tenth at most.
func coarseAge(age *float64) *float64 {
	if age == nil {
		return nil
	}
	seconds := coarse(*age, 2)
	return &seconds
}

// coarseDisk is a disk whose free space is new when it has changed by a hundredth or so.
func coarseDisk(d Disk) Disk {
	d.Free = int64(coarse(float64(d.Free), 3))
	return d
}

// OverviewRow returns the one row of the overview.
func (s *System) OverviewRow() Row {
	o := s.overview()
	news := o
	news.Head = Head{}
	news.OldestAge = coarseAge(o.OldestAge)
	news.Disks = make([]NodeDisk, len(o.Disks))
	for i, d := range o.Disks {
		news.Disks[i] = NodeDisk{d.Node, coarseDisk(d.Disk)}
	}
	return newRow("overview", news, o)
}

// NodeRows returns a row for each node; its key is the name.
func (s *System) NodeRows() []Row {
	rows := make([]Row, len(s.Nodes))
	for i := range s.Nodes {
		v := &s.Nodes[i]
		news := *v
		if v.part != nil {
			news.AsOf = v.Info.Started
		}
		if v.Disk != nil {
			disk := coarseDisk(*v.Disk)
			news.Disk = &disk
		}
		rows[i] = newRow(v.Node, news, v)
	}
	return rows
}

// ShardRows returns a row for each shard; its key is the number.
func (s *System) ShardRows() []Row {
	rows := make([]Row, len(s.Shards))
	for i := range s.Shards {
		v := &s.Shards[i]
		news := *v
		news.AsOf = nil
		if v.Part != nil {
			part := *v.Part
			part.IDs, part.IDsAge, part.OldestAge = 0, 0, coarseAge(part.OldestAge) // ids are forgotten as time goes by
			news.Part = &part
		}
		rows[i] = newRow("", news, v)
		rows[i].Key = strconv.Itoa(v.Shard)
	}
	return rows
}

// Rows returns a row for each worker.
func (a *WorkersAnswer) Rows() []Row {
	rows := make([]Row, len(a.Workers))
	for i := range a.Workers {
		v := &a.Workers[i]
		news := *v
		news.AsOf = v.Started
		rows[i] = newRow(v.Key, news, v)
	}
	return rows
}

// Rows returns a row for each command; its key is the id.
func (a *CommandsAnswer) Rows() []Row {
	rows := make([]Row, len(a.Commands))
	for i := range a.Commands {
		rows[i] = newRow(a.Commands[i].ID, a.Commands[i], a.Commands[i])
	}
	return rows
}
