package rig

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// maxSubmission is the most entries of a submission of a Load.
const maxSubmission = 1000

// A Load's entries follow from the numbers of their submission and of their
// place in it, which stand in the value: so none has to be kept to be compared
// with what comes out.

// appendEntry appends the entry of a submission, without white space.
func appendEntry(dst []byte, submission, place int) []byte {
	at := epoch.Add(time.Duration(submission*maxSubmission+place) * 250 * time.Millisecond)
	dst = append(dst, `{"timestamp":"`...)
	dst = at.AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","value":"`...)
	dst = strconv.AppendInt(dst, int64(submission), 10)
	dst = append(dst, '.')
	dst = strconv.AppendInt(dst, int64(place), 10)
	// What a decoder in between would change: a number, and escaped text.
	return append(dst, `","n":1.50e400,"s":"\u0000/\/é"}`...)
}

var epoch = time.Date(2019, 10, 12, 8, 10, 54, 0, time.UTC)

// appendSubmission appends the JSON array of a submission of the given size.
func appendSubmission(dst []byte, submission, size int) []byte {
	dst = append(dst, '[')
	for place := range size {
		if place > 0 {
			dst = append(dst, ',')
		}
		dst = appendEntry(dst, submission, place)
	}
	return append(dst, ']')
}

// appendLine appends the line that has to become of an entry.
func appendLine(dst []byte, id string, submission, place int) []byte {
	dst = append(dst, `{"message_id":"`...)
	dst = append(dst, id...)
	dst = append(dst, '.')
	dst = strconv.AppendInt(dst, int64(place), 10)
	dst = append(dst, `",`...)
	from := len(dst)
	dst = appendEntry(dst, submission, place)
	return append(dst[:from], dst[from+1:]...) // without its brace
}

// parseLine returns whose entry a line is, and the id of the submission. That
// all else of it is right, too, is for appendLine to tell.
func parseLine(line []byte) (id string, submission, place int, err error) {
	head, rest, ok := bytes.Cut(line, []byte(`"timestamp":`))
	_, value, found := bytes.Cut(rest, []byte(`"value":"`))
	if ok && found {
		if _, err := fmt.Sscanf(string(value[:min(len(value), 24)]), `%d.%d"`, &submission, &place); err == nil {
			text, _ := bytes.CutPrefix(head, []byte(`{"message_id":"`))
			sender, _, _ := bytes.Cut(text, []byte("."))
			return string(sender), submission, place, nil
		}
	}
	return "", 0, 0, fmt.Errorf("no line of an entry that was sent: %q", line)
}
