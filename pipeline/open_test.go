package pipeline

import (
	"slices"
	"strings"
	"testing"
)

// TestOpenIsTold: the log warns of each address that other machines reach without a
// token, and of no other one.
func TestOpenIsTold(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   []string // components
	}{
		"loopback":      {func(*Config) {}, nil},
		"beyond":        {func(c *Config) { c.Listen, c.AdminListen = ":0", "0.0.0.0:0" }, []string{"server", "admin"}},
		"server's":      {func(c *Config) { c.Listen = ":0" }, []string{"server"}},
		"tokens":        {func(c *Config) { c.Listen, c.AuthTokens = ":0", []string{"x"} }, nil},
		"another token": {func(c *Config) { c.AdminListen, c.AuthTokens = ":0", []string{"x"} }, []string{"admin"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorksWith(t, wraps{}, func(c *Config) {
				c.InsecureNoAuth = true
				tc.change(c)
			})
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(w.log.String()) {
				if strings.Contains(line, "no token protects it") && strings.Contains(line, `"level":"warn"`) {
					_, component, _ := strings.Cut(line, `"component":"`)
					component, _, _ = strings.Cut(component, `"`)
					got = append(got, component)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("warned of %q, want %q\n%s", got, tc.want, w.log.String())
			}
		})
	}
}
