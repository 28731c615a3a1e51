package guard

import (
	"bytes"
	"os"
	"strconv"
)

// Descendants returns the processes below a process. It leaves out its children for which
// not is true, with what is below them.
func Descendants(of int, not func(pid int) bool) (below []int) {
	children := make(map[int][]int)
	for pid, parent := range parents() {
		children[parent] = append(children[parent], pid)
	}
	below = children[of]
	if not != nil {
		var kept []int
		for _, pid := range below {
			if !not(pid) {
				kept = append(kept, pid)
			}
		}
		below = kept
	}
	for i := 0; i < len(below); i++ {
		below = append(below, children[below[i]]...)
	}
	return below
}

// parents returns all processes with their parents.
func parents() map[int]int {
	all := make(map[int]int)
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1) // what can be read
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may have any bytes (proc_pid_stat(5)).
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 1 {
			all[pid], _ = strconv.Atoi(string(fields[1]))
		}
	}
	return all
}
