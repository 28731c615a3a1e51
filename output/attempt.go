package output

import (
	"context"
	"crypto/rand"
	"io"
	"path"
	"slices"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// attempt is one write of one batch, as files of its own.
type attempt struct {
	dir   *shardDir
	undo  *undo
	files []publication
}

// publication is a file's pair of names.
type publication struct {
	temp, final string
	// tried tells that final may be ours, linked that it is. It is not known
	// after a link that reported an error.
	tried, linked bool

	lines, bytes int // of the content
}

// run writes the fresh messages of b. The system calls without errors:
//
//	newfstatat(lock file's absolute path)    is the folder still ours?
//	openat(temp, O_CREAT|O_EXCL)             these four for each file
//	write(temp)                              all lines at once
//	fsync(temp)
//	close(temp)
//	newfstatat(lock file's absolute path)
//	        b.BeginPublish
//	linkat(temp, final)                      visible from here, never overwrites
//	unlinkat(temp)                           both for each file
//	fsync(folder)                            durable from here, shared with others
//	        claim.Commit                     known from here
func (a *attempt) run(ctx context.Context, worker string, b *message.Batch, fresh []message.Message, claim *committed.Claim) (file string, err error) {
	if err := a.dir.ready(ctx); err != nil {
		return "", err
	}
	size := b.Size
	if size < 1 {
		size = len(fresh)
	}
	defer a.settle() // however it ends, panics and runtime.Goexit included
	for messages := range slices.Chunk(fresh, size) {
		stem := a.dir.beginFile(worker)
		content := join(nil, messages)
		p := publication{temp: tempName(stem), final: visibleName(stem), lines: len(messages), bytes: len(content)}
		a.files = append(a.files, p)
		if err := a.spool(p.temp, content); err != nil {
			a.dir.noRoom(len(content), err)
			return "", a.undo.discard(a.files[:len(a.files)-1], err)
		}
	}
	if err := a.publish(ctx, b); err != nil {
		return "", err
	}
	claim.Commit()
	return path.Join(a.dir.name, a.files[len(a.files)-1].final), nil
}

// spool writes the content to a new temporary file and makes it durable. After
// an error that file is worth nothing: a second fsync would report success for
// pages that the first one failed to write.
func (a *attempt) spool(temp string, content []byte) error {
	f, err := a.dir.create(temp)
	if err != nil {
		_ = a.dir.remove(temp) // it may be there all the same
		return a.dir.failed("create", temp, err)
	}
	step, err := "write", writeAll(f, content)
	if err == nil {
		step, err = "fsync", a.dir.syncer.synced.sync(f)
	}
	if closing := f.Close(); err == nil { // the first error tells more
		step, err = "close", closing
	}
	if err != nil {
		return a.undo.discardTemp(temp, a.dir.failed(step, temp, err))
	}
	return nil
}

// publish gives the durable files their visible names, if b grants it. A panic or
// runtime.Goexit halfway is undone like an error, before the claim's release:
// else the messages could be in a second file.
func (a *attempt) publish(ctx context.Context, b *message.Batch) error {
	a.dir.gate.RLock()
	defer a.dir.gate.RUnlock()
	returned := false
	defer func() {
		if !returned {
			a.undo.interrupted(a.files)
		}
	}()
	err := a.expose(ctx, b)
	returned = true
	return err
}

// expose links the files to their visible names and makes those durable.
//
// It links and unlinks where renameat2(RENAME_NOREPLACE) would be one call. NFS
// and systems other than Linux lack that call. And after a link that reported an
// error, the temporary name still tells whether it happened.
func (a *attempt) expose(ctx context.Context, b *message.Batch) error {
	names, err := a.dir.syncer.begin()
	if err != nil {
		return a.undo.discard(a.files, a.dir.failed("open", "", err))
	}
	// The right comes last, because what has been granted can no longer be
	// abandoned.
	if err := a.dir.ready(ctx); err != nil {
		return a.undo.discard(a.files, err)
	}
	if !b.BeginPublish() {
		return a.undo.discard(a.files, ErrAbandoned)
	}
	for i := range a.files {
		p := &a.files[i]
		p.tried = true
		if err := a.dir.link(p.temp, p.final); err != nil {
			return a.undo.retract(a.files, a.dir.failed("link", p.final, err))
		}
		p.linked = true
	}
	for _, p := range a.files {
		if err := a.dir.remove(p.temp); err != nil {
			return a.undo.retract(a.files, a.dir.failed("unlink", p.temp, err))
		}
	}
	if err := names.sync(); err != nil {
		return a.undo.retract(a.files, a.dir.failed("fsync", "", err))
	}
	for _, p := range a.files {
		a.dir.published(p.final, p.lines, int64(p.bytes))
		a.dir.settled(p.final)
	}
	return nil
}

// settle tells which of the files can never become visible.
func (a *attempt) settle() {
	for _, p := range a.files {
		if !p.tried {
			a.dir.settled(p.final)
		}
	}
}

// probeBytes is what the probe writes at least. It is more than a file system
// keeps beside a file's name, so it needs room of its own.
const probeBytes = 4096

// probe fails unless the folder takes a file now. It takes every step of a Write
// but the visible name. A consumer that cannot write must not get messages:
// each delivery of a message counts towards its end as a dead letter. The fsync
// of the folder that follows makes the removal of the names durable.
//
// It writes as much as an earlier owner had no room for. With less, every new
// owner would find room and then fail as that one did.
func (a *attempt) probe() error {
	size := max(probeBytes, a.dir.probeSize.Load())
	temp, second := tempName(a.dir.newStem(probeWorker)), tempName(a.dir.newStem(probeWorker))
	content := make([]byte, size)
	_, _ = rand.Read(content) // it does not fail; zeros might take no room
	if err := a.spool(temp, content); err != nil {
		return err
	}
	if err := a.dir.link(temp, second); err != nil {
		// It may have happened all the same.
		return a.undo.discardTemp(second, a.undo.discardTemp(temp, a.dir.failed("link", second, err)))
	}
	for _, name := range []string{second, temp} {
		if err := a.dir.remove(name); err != nil {
			return a.dir.failed("unlink", name, err)
		}
	}
	a.dir.probeSize.Store(0)
	return nil
}

// join appends the messages to content, every line with its newline.
func join(content []byte, messages []message.Message) []byte {
	size := 0
	for _, m := range messages {
		size += len(m.Line) + 1
	}
	content = slices.Grow(content, size)
	for _, m := range messages {
		content = append(content, m.Line...)
		content = append(content, '\n')
	}
	return content
}

func writeAll(w io.Writer, p []byte) error {
	n, err := w.Write(p)
	if err == nil && n < len(p) {
		return io.ErrShortWrite
	}
	return err
}
