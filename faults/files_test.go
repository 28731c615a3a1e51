package faults

import (
	"database/sql"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "async-data-processor/jobs/store" // the drivers

	"async-data-processor/broker/brokertest"
	"async-data-processor/faults/rig"
	"async-data-processor/jobs/store/storetest"
)

// TestFilesRecorded kills who publishes files, at random moments. Just the files that are
// visible are recorded, each with its lines.
func TestFilesRecorded(t *testing.T) {
	t.Run("killed", func(t *testing.T) {
		on(t, "kill -9 while files are recorded", func(c *campaign) {
			jobs := filepath.Join(c.TempDir(), "jobs.yaml")
			if err := os.WriteFile(jobs, []byte("- {name: each, on: file, command: [\"true\"]}\n"), 0o644); err != nil {
				c.Fatal(err)
			}
			state := storetest.SQLite(c)
			c.settings = append(c.settings, "JOBS="+jobs, "STATE_URL="+state)
			recorded(c, "sqlite", "file:"+strings.TrimPrefix(state, "sqlite:"), func() {
				c.kill(c.victims()...)
				c.up()
			})
		}, inBothModes(embedded)...)
	})
	t.Run("cut off", func(t *testing.T) {
		on(t, "kill -9, and the database is cut off, while files are recorded", func(c *campaign) {
			state := storetest.Postgres(c)
			u, err := url.Parse(state)
			if err != nil {
				c.Fatal(err)
			}
			p := brokertest.NewProxy(c, u.Host)
			u.Host = p.Addr()
			c.settings = append(c.settings, "STATE_URL="+u.String())
			recorded(c, "pgx", state, func() {
				p.Lose([]brokertest.Loss{brokertest.Requests, brokertest.Answers, brokertest.Everything}[c.rng.IntN(3)])
				c.moment(time.Second)
				if c.rng.IntN(2) == 0 {
					c.kill(c.victims()...)
				}
				p.Trickle(0)
				p.Cut()
				c.up()
			})
		}, rabbitmq.rolled())
	})
}

// recorded hurts under a load, and judges what is recorded in the database.
func recorded(c *campaign, driver, url string, hurt func()) {
	c.up()
	db, err := sql.Open(driver, url)
	if err != nil {
		c.Fatal(err)
	}
	defer db.Close()
	// A shard begins with what is published when the database knows it.
	rig.Eventually(c, "a cursor of each shard", func() error {
		var n int
		err := db.QueryRow("SELECT count(*) FROM cursors WHERE position > ''").Scan(&n)
		if err == nil && n < c.shards {
			err = fmt.Errorf("%d shards have one", n)
		}
		return err
	})
	c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
	for range either(2, 100) {
		c.load.More(300)
		c.moment(200 * time.Millisecond)
		hurt()
		c.cycle()
	}
	c.load.Stop()
	c.check.Await(nil)
	c.empty() // the drain has published the last files
	c.up()
	want := make(map[string]int) // lines by name
	for _, f := range rig.ReadTree(c, c.dir, c.shards, c.mostLines()).Files {
		want[f.Name] = f.Lines
	}
	rig.Eventually(c, "each file is recorded", func() error {
		got, err := recordedFiles(db)
		if err == nil && !maps.Equal(got, want) {
			for name := range want {
				if _, there := got[name]; !there {
					return fmt.Errorf("%s is not recorded; %d of %d files are", name, len(got), len(want))
				}
			}
			maps.DeleteFunc(got, func(name string, lines int) bool { return want[name] == lines })
			return fmt.Errorf("recorded, and not so: %q", slices.Sorted(maps.Keys(got)))
		}
		return err
	})
	c.stop()
	c.check.Final()
	c.account()
	c.note("%d files", len(want))
}

// recordedFiles returns how many lines each recorded file has.
func recordedFiles(db *sql.DB) (map[string]int, error) {
	rows, err := db.Query("SELECT name, lines FROM files")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	files := make(map[string]int)
	for rows.Next() {
		var name string
		var lines int
		if err := rows.Scan(&name, &lines); err != nil {
			return nil, err
		}
		files[name] = lines
	}
	return files, rows.Err()
}
