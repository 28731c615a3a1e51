package jobs

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"async-data-processor/jobs/frame"
)

// Definitions are the jobs in a file that may change.
type Definitions struct {
	path    string
	current atomic.Pointer[[]frame.Definition]
	broken  atomic.Pointer[error] // why what the file holds is not taken; nil if it is

	// Only the goroutine that calls Reload uses what follows: what the file held as it was
	// taken, and at the last look.
	taken, last [sha256.Size]byte
}

// LoadDefinitions reads a file of jobs: see ParseDefinitions.
func LoadDefinitions(path string) (*Definitions, error) {
	d := &Definitions{path: path}
	jobs, sum, err := d.read()
	if err != nil {
		return nil, err
	}
	d.current.Store(&jobs)
	d.taken, d.last = sum, sum
	return d, nil
}

// Reload takes what the file holds, if that is new, and tells whether it did. Two looks
// have to find the same, because others may be writing the file. An error says why it
// cannot be taken; then the jobs stay what they were.
func (d *Definitions) Reload() (changed bool, err error) {
	jobs, sum, err := d.read()
	settled := sum == d.last
	d.last = sum
	if !settled {
		return false, nil
	}
	if err != nil {
		d.broken.Store(&err)
		return false, err
	}
	d.broken.Store(nil)
	if sum == d.taken {
		return false, nil
	}
	d.current.Store(&jobs)
	d.taken = sum
	return true, nil
}

// Broken returns why the jobs are not those of the file, nil if they are. It may be called
// concurrently.
func (d *Definitions) Broken() error {
	if err := d.broken.Load(); err != nil {
		return fmt.Errorf("the jobs are those from before the file was changed: %w", *err)
	}
	return nil
}

// Path is that of the file.
func (d *Definitions) Path() string { return d.path }

// All returns the jobs, in the order of the file. They are not to be changed.
func (d *Definitions) All() []frame.Definition { return *d.current.Load() }

// Find returns the job of that name, if there is one.
func (d *Definitions) Find(name string) (frame.Definition, bool) {
	for _, job := range d.All() {
		if job.Name == name {
			return job, true
		}
	}
	return frame.Definition{}, false
}

// read returns what the file holds, or why that is no jobs, and the sum of either.
func (d *Definitions) read() (jobs []frame.Definition, sum [sha256.Size]byte, err error) {
	text, err := readRegular(d.path)
	if err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	sum = sha256.Sum256(text)
	if sum == d.taken && d.current.Load() != nil {
		return d.All(), sum, nil
	}
	jobs, err = ParseDefinitions(text)
	if err != nil {
		err = fmt.Errorf("%s: %w", d.path, err)
	}
	return jobs, sum, err
}

// readRegular does not wait for what is no file, such as a pipe.
func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file, its mode is %v", path, info.Mode())
	}
	return io.ReadAll(io.LimitReader(f, MaxDefinitionsBytes+1))
}
