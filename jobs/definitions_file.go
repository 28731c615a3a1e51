package jobs

import (
	"fmt"

	"async-data-processor/jobs/frame"
	"async-data-processor/reload"
)

// Definitions are the jobs in a file that may change.
type Definitions struct {
	*reload.Files[[]frame.Definition]
	path string
}

// LoadDefinitions reads a file of jobs: see parseDefinitions.
func LoadDefinitions(path string) (*Definitions, error) {
	files, err := reload.Load(func(texts [][]byte) ([]frame.Definition, error) {
		jobs, err := parseDefinitions(texts[0])
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
		return jobs, err
	}, maxDefinitionsBytes, path)
	if err != nil {
		return nil, err
	}
	return &Definitions{files, path}, nil
}

// Broken returns why the jobs are not those of the file, nil if they are. It may be called
// concurrently.
func (d *Definitions) Broken() error {
	if err := d.Files.Broken(); err != nil {
		return fmt.Errorf("the jobs are those from before the file was changed: %w", err)
	}
	return nil
}

// Path is that of the file.
func (d *Definitions) Path() string { return d.path }

// All returns the jobs, in the order of the file. They are not to be changed.
func (d *Definitions) All() []frame.Definition { return *d.Current() }

// Find returns the job of that name, if there is one.
func (d *Definitions) Find(name string) (frame.Definition, bool) {
	for _, job := range d.All() {
		if job.Name == name {
			return job, true
		}
	}
	return frame.Definition{}, false
}
