package message

import (
	"bytes"
	"fmt"
	"io"
	"iter"

	"github.com/go-json-experiment/json/jsontext"
)

// bodyError is something wrong with a body that no entry is to blame for.
type bodyError string

func (e bodyError) Error() string { return string(e) }

const (
	errEmptyBody  = bodyError("the body is empty, want a JSON array of entries, or one entry")
	errNotArray   = bodyError("want a JSON array of entries, or one entry")
	errEmptyArray = bodyError("there are no entries, want at least one")
	errTrailing   = bodyError("there is data behind the array")
	errMoreLines  = bodyError("there is data behind the entry; send an entry a line as application/x-ndjson, with curl by --data-binary @file")
)

// starts are those of bodies that clients take for JSON. No JSON text starts so (RFC
// 8259, section 8.1).
var starts = []struct {
	bytes string
	err   error
}{
	{"\x1f\x8b", bodyError("the body is gzip data, want JSON; compress it once, and send Content-Encoding: gzip with it")},         // RFC 1952
	{"\x28\xb5\x2f\xfd", bodyError("the body is zstd data, want JSON; compress it once, and send Content-Encoding: zstd with it")}, // RFC 8878
	{"\xef\xbb\xbf", bodyError("the body starts with a byte order mark; send it without")},                                         // UTF-8
	{"\xff\xfe", bodyError("the body starts with the byte order mark of UTF-16; send it in UTF-8, without such a mark")},           // little-endian
	{"\xfe\xff", bodyError("the body starts with the byte order mark of UTF-16; send it in UTF-8, without such a mark")},           // big-endian
}

// checkStart names what a body is that starts as no JSON text does.
func checkStart(body []byte) error {
	for _, s := range starts {
		if bytes.HasPrefix(body, []byte(s.bytes)) {
			return s.err
		}
	}
	return nil
}

// blank is the white space of JSON (RFC 8259, section 2).
const blank = " \t\r\n"

// entries yields the raw entries of a body, each valid until the next. An
// error is a bodyError, one of the JSON grammar, or wraps ErrTooLarge.
func entries(dec *decoder, body []byte, f Format, opts ...jsontext.Options) iter.Seq2[[]byte, error] {
	if f == NDJSON {
		return func(yield func([]byte, error) bool) { eachLine(dec, body, yield, opts) }
	}
	dec.read(body, opts...)
	return func(yield func([]byte, error) bool) { eachElement(dec, yield) }
}

// isEntry tells that a JSON body is one entry, not an array of them.
func isEntry(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, blank), []byte{'{'})
}

// onlyEntry yields the entry of a body that is one.
func onlyEntry(dec *decoder, yield func([]byte, error) bool) {
	raw, err := dec.ReadValue()
	if err == nil {
		err = checkSize(0, raw)
	}
	if !yield(raw, err) || err != nil {
		return
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		yield(nil, errMoreLines)
	}
}

func eachElement(dec *decoder, yield func([]byte, error) bool) {
	if dec.PeekKind() == jsontext.KindBeginObject {
		onlyEntry(dec, yield)
		return
	}
	switch token, err := dec.ReadToken(); {
	case err == io.EOF:
		yield(nil, errEmptyBody)
		return
	case err != nil:
		yield(nil, bodyError(grammarError(0, err).Detail))
		return
	case token.Kind() != jsontext.KindBeginArray:
		yield(nil, errNotArray)
		return
	}
	n := 0
	for ; dec.PeekKind() != jsontext.KindEndArray; n++ {
		raw, err := dec.ReadValue()
		if err == nil {
			err = checkSize(n, raw)
		}
		if err != nil {
			yield(nil, err) // without its end the next entry cannot be found
			return
		}
		if !yield(raw, nil) {
			return
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		yield(nil, err)
		return
	}
	if n == 0 && !yield(nil, errEmptyArray) {
		return
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		yield(nil, errTrailing)
	}
}

func eachLine(dec *decoder, body []byte, yield func([]byte, error) bool, opts []jsontext.Options) {
	n := 0
	for line := range bytes.Lines(body) {
		line = bytes.Trim(line, blank)
		if len(line) == 0 {
			continue
		}
		dec.read(line, opts...)
		raw, err := dec.ReadValue()
		if err == nil && dec.InputOffset() != int64(len(line)) {
			err = errSecondValue
			if isEntry(line[dec.InputOffset():]) {
				err = errSecondEntry
			}
		}
		if err == nil {
			err = checkSize(n, raw)
		}
		n++
		if !yield(raw, err) {
			return
		}
	}
	if n == 0 {
		yield(nil, errEmptyArray)
	}
}

// checkSize refuses an entry, the one with index n, over a limit.
func checkSize(n int, raw []byte) error {
	if n >= MaxEntries {
		return fmt.Errorf("the body holds more than %d entries: %w", MaxEntries, ErrTooLarge)
	}
	if len(raw) > MaxEntryBytes {
		return fmt.Errorf("entry %d has more than %d KiB: %w", n, MaxEntryBytes>>10, ErrEntryTooLarge)
	}
	return nil
}
