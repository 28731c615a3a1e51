package output

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"async-data-processor/output/committed"
)

// Names in the output folder and in a shard's folder:
//
//	shard-<n>/.lock                      held by the owner; its time is a sign of who waits
//	shard-<n>/.control.json              what commands have set, replaced as a whole
//	shard-<n>/<worker>_<ULID>.ndjson     visible
//	shard-<n>/.<worker>_<ULID>.tmp       being written, or left by a crash
//	shard-<n>/.<worker>_<ULID>.rolling   appended to, or left by a crash
//
// The dot hides a name from a shell's globs, the ending from any other "*.ndjson".
// The stem of a name is <worker>_<ULID>: it stays when a file is published. Stems of a
// folder sort in the order in which their files were begun, whatever the clock says.
const (
	// ShardPrefix begins the name of every shard's folder.
	ShardPrefix   = "shard-"
	lockName      = ".lock"
	controlName   = ".control.json"
	hiddenPrefix  = "."
	visibleSuffix = ".ndjson"
	tempSuffix    = ".tmp"
	rollingSuffix = ".rolling"

	// ulidLen is the length of a ULID, which sorts by time. noULID sorts before all.
	ulidLen = 26
	noULID  = "00000000000000000000000000"
	// probeWorker is the worker in the names of a probe.
	probeWorker   = "probe"
	maxWorkerName = 64
)

// Kind is what a name in a shard's folder stands for.
type Kind uint8

const (
	// Foreign: the package does not give such a name.
	Foreign Kind = iota
	// Visible: a published file, complete.
	Visible
	// Temporary: a file being written, or left by a crash.
	Temporary
	// Rolling: a file that batches are appended to, or left by a crash.
	Rolling
	// Lock: the file whose lock the folder's owner holds.
	Lock
	// Control: the file that keeps what commands have set.
	Control
)

// farAhead is how many years a name may be ahead of the clock and still be ours. A clock
// may have been wrong by decades when the name was made, and may be so now.
const farAhead = 1000

// latestName is when the last name is made that ours may follow. A ULID has room for 889
// years of names behind it.
var latestName = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)

// isFar tells whether no name of ours was made at the time.
func isFar(at, now time.Time) bool {
	return at.After(now.AddDate(farAhead, 0, 0)) || !at.Before(latestName)
}

// newStem returns a stem that sorts behind those of all files in the folder.
func (d *shardDir) newStem(worker string) string { return worker + "_" + d.ids.Next(d.now()) }

// beginFile returns newStem for a file that is to become visible. It ends with settled.
func (d *shardDir) beginFile(worker string) string {
	if d.publications == nil {
		return d.newStem(worker)
	}
	return d.publications.begin(worker)
}

func visibleName(stem string) string { return stem + visibleSuffix }

func tempName(stem string) string { return hiddenPrefix + stem + tempSuffix }

func rollingName(stem string) string { return hiddenPrefix + stem + rollingSuffix }

// ParseName tells what a name in a shard's folder stands for.
func ParseName(name string) Kind {
	switch name {
	case lockName:
		return Lock
	case controlName:
		return Control
	}
	kind, stem := splitName(name)
	if _, _, _, ok := splitStem(stem); !ok {
		return Foreign
	}
	return kind
}

// splitName tells what a name looks like; its stem need not be one.
func splitName(name string) (kind Kind, stem string) {
	if stem, ok := strings.CutSuffix(name, visibleSuffix); ok {
		return Visible, stem
	}
	hidden, ok := strings.CutPrefix(name, hiddenPrefix)
	if !ok {
		return Foreign, ""
	}
	if stem, ok := strings.CutSuffix(hidden, tempSuffix); ok {
		return Temporary, stem
	}
	if stem, ok := strings.CutSuffix(hidden, rollingSuffix); ok {
		return Rolling, stem
	}
	return Foreign, ""
}

// ulidOf returns the ULID in a visible name of ours.
func ulidOf(visible string) string {
	end := len(visible) - len(visibleSuffix)
	return visible[end-ulidLen : end]
}

// splitStem returns the parts of a stem, and when the ULID was made.
func splitStem(stem string) (worker, ulid string, at time.Time, ok bool) {
	ulid = stem[max(0, len(stem)-ulidLen):]
	worker, ok = strings.CutSuffix(stem[:len(stem)-len(ulid)], "_")
	if !ok || !isWorkerName(worker) {
		return "", "", time.Time{}, false
	}
	at, ok = committed.TimeOf(ulid)
	return worker, ulid, at, ok
}

// isWorkerName tells whether a name is 1 to 64 letters, digits and hyphens.
func isWorkerName(name string) bool {
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return 0 < len(name) && len(name) <= maxWorkerName
}

// ParseShard returns the shard that a name in the output folder stands for.
func ParseShard(name string) (n int, ok bool) {
	n, err := strconv.Atoi(strings.TrimPrefix(name, ShardPrefix))
	return n, err == nil && n >= 0 && name == ShardName(n)
}

// ShardName is the name of a shard's folder in the output folder.
func ShardName(n int) string { return fmt.Sprintf("%s%d", ShardPrefix, n) }
