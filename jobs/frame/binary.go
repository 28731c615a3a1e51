package frame

import (
	"encoding/binary"
	"encoding/json"
)

// Kinds of the binary frames of old runners, which offer no subprotocol: the first byte.
// Such a runner has no name, one slot, and no fence.
const (
	// BinaryDefinitions and BinaryEnqueue come from the engine: a JSON array; and the id of
	// a run, then the name of its job.
	BinaryDefinitions, BinaryEnqueue byte = 1, 2
	// BinaryRunning, BinarySuccess and BinaryFailure come from the runner, each with the id.
	BinaryRunning, BinarySuccess, BinaryFailure byte = 1, 2, 3
)

// BinaryJobs returns the frame that tells an old runner the jobs. It reads name, image and
// command of them.
func BinaryJobs(jobs []Definition) ([]byte, error) {
	if jobs == nil {
		jobs = []Definition{}
	}
	text, err := json.Marshal(jobs)
	return append([]byte{BinaryDefinitions}, text...), err
}

// BinaryOffer returns the frame that has an old runner run a job: the id as 4 bytes and
// the length of the name as 8, both big-endian, then the name.
func BinaryOffer(run int32, job string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{BinaryEnqueue}, uint32(run))
	b = binary.BigEndian.AppendUint64(b, uint64(len(job)))
	return append(b, job...)
}

// BinaryReport reads a frame of an old runner. What it does not know is not ok.
func BinaryReport(b []byte) (kind byte, run int32, ok bool) {
	if len(b) != 5 || b[0] < BinaryRunning || b[0] > BinaryFailure {
		return 0, 0, false
	}
	return b[0], int32(binary.BigEndian.Uint32(b[1:])), true
}
