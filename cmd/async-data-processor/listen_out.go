package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"async-data-processor/client"
)

var errReaderGone = errors.New("no program reads the output any more")

// readerPoll is how often it is looked whether ctx has ended, in milliseconds.
const readerPoll = 500

// readerGone waits until no program can read what is written to out, then it returns true,
// or until ctx ends. A write would tell that, too, but there may be nothing to write
// for long.
func readerGone(ctx context.Context, out io.Writer) bool {
	if r, ok := out.(*results); ok {
		out = r.Writer
	}
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(f.Fd())}} // asks for errors alone
		if n, err := unix.Poll(fds, readerPoll); err != nil && !errors.Is(err, unix.EINTR) {
			return false
		} else if n > 0 {
			return fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
		}
	}
	return false
}

// printable is a line of JSON without what a terminal obeys, or does not show: JSON lets
// characters of strings be escaped.
func printable(line []byte) []byte {
	if harmless(string(line)) {
		return line
	}
	var safe []byte
	for _, r := range string(line) {
		if unicode.IsPrint(r) {
			safe = utf8.AppendRune(safe, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			safe = fmt.Appendf(safe, `\u%04x`, unit)
		}
	}
	return safe
}

// withEventID is a frame with its id as a member, as in the stream of NDJSON.
func withEventID(f client.Frame) []byte {
	head := fmt.Sprintf(`{"type":%q`, f.Type)
	rest, ok := bytes.CutPrefix(f.JSON, []byte(head))
	id, err := json.Marshal(f.ID)
	if !ok || f.ID == "" || err != nil {
		return f.JSON
	}
	return fmt.Appendf(nil, `%s,"event_id":%s%s`, head, id, rest)
}
