// Package deploy has no code: it holds what installs the program, and the tests
// that hold those files to what the program promises.
package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// drainTimeout is the default of DRAIN_TIMEOUT: what stops the program has to
// wait longer before it kills.
const drainTimeout = 25 * time.Second

// settings are variables of the table in docs/operations.md.
var settings = strings.Fields(`
	BROKER_URL RABBITMQ_URL BROKER_URL_FILE SHARDS_COUNT LISTEN_ADDR PORT
	ADMIN_LISTEN_ADDR DATA_OUTPUT_DIR BATCH_SIZE BATCH_LINGER WORKERS_MIN
	WORKERS_MAX WORKER_TIMEOUT HISTORY_INTERVAL ROLL_BYTES ROLL_INTERVAL
	OUTPUT_MIN_FREE OUTPUT_ERROR_TIMEOUT DEDUPE_IDS DEDUPE_WINDOW DRAIN_TIMEOUT LOG_LEVEL LOG_FORMAT AUTH_TOKENS AUTH_TOKENS_FILE ALLOWED_HOSTS
	MAX_IN_FLIGHT_BYTES INSECURE_NO_AUTH CONFIG_FILE`)

// composeFile is the part of docker-compose.yml that we write. Decoding is
// strict, so a field that is not here fails the test instead of going unread.
type composeFile struct {
	Name     string
	Program  any `yaml:"x-program"`
	Services map[string]service
	Volumes  map[string]any
}

type service struct {
	Image           string
	Build           string
	Hostname        string
	Command         []string // a string would go through a shell
	Environment     map[string]string
	Ports           []string
	Volumes         []string
	Healthcheck     healthcheck
	Restart         string
	StopGracePeriod string                       `yaml:"stop_grace_period"`
	DependsOn       map[string]map[string]string `yaml:"depends_on"`
	ReadOnly        bool                         `yaml:"read_only"`
	CapDrop         []string                     `yaml:"cap_drop"`
	SecurityOpt     []string                     `yaml:"security_opt"`
	Logging         map[string]string
}

type healthcheck struct {
	Test        []string
	Interval    string
	Timeout     string
	Retries     int
	StartPeriod string `yaml:"start_period"`
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	var file composeFile
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "../docker-compose.yml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return file
}

func TestComposeServices(t *testing.T) {
	compose := readCompose(t)
	got := slices.Sorted(maps.Keys(compose.Services))
	if want := []string{"message-consumer", "rabbitmq", "server"}; !slices.Equal(got, want) {
		t.Errorf("services are %v, want %v", got, want)
	}
	for name, s := range compose.Services {
		t.Run(name, func(t *testing.T) {
			if len(s.Healthcheck.Test) < 2 || s.Healthcheck.Test[0] != "CMD" {
				t.Errorf("health check is %q, want one without a shell", s.Healthcheck.Test)
			}
			if s.Restart != "unless-stopped" {
				t.Errorf("restart is %q", s.Restart)
			}
			if got := duration(t, s.StopGracePeriod); got <= drainTimeout {
				t.Errorf("stop_grace_period is %v, want more than %v", got, drainTimeout)
			}
			for _, port := range s.Ports {
				if !strings.HasPrefix(port, "127.0.0.1:") {
					t.Errorf("port %s is published beyond loopback", port)
				}
			}
			for _, volume := range s.Volumes {
				source, _, _ := strings.Cut(volume, ":")
				if _, ok := compose.Volumes[source]; !ok {
					t.Errorf("volume %s is not a named one of the file", volume)
				}
			}
		})
	}
}

func TestComposeProgram(t *testing.T) {
	compose := readCompose(t)
	for name, health := range map[string]string{
		"server":           "http://localhost:8080/readyz",
		"message-consumer": "http://localhost:8081/readyz",
	} {
		t.Run(name, func(t *testing.T) {
			s := compose.Services[name]
			if want := []string{name}; !slices.Equal(s.Command, want) {
				t.Errorf("command is %q, want %q", s.Command, want)
			}
			want := []string{"CMD", "/async-data-processor", "healthcheck", "--url", health}
			if !slices.Equal(s.Healthcheck.Test, want) {
				t.Errorf("health check is %q, want %q", s.Healthcheck.Test, want)
			}
			if got := s.DependsOn["rabbitmq"]["condition"]; got != "service_healthy" {
				t.Errorf("depends on rabbitmq with condition %q", got)
			}
			for variable := range s.Environment {
				if !slices.Contains(settings, variable) {
					t.Errorf("the program does not know the variable %s", variable)
				}
			}
			user, password := "${RABBITMQ_USER:-adp}", "${RABBITMQ_PASSWORD:-development}"
			broker := compose.Services["rabbitmq"].Environment
			if broker["RABBITMQ_DEFAULT_USER"] != user || broker["RABBITMQ_DEFAULT_PASS"] != password {
				t.Errorf("the broker's environment is %v, want the user and password of BROKER_URL", broker)
			}
			if got, want := s.Environment["BROKER_URL"], fmt.Sprintf("amqp://%s:%s@rabbitmq:5672/", user, password); got != want {
				t.Errorf("BROKER_URL is %s, want %s", got, want)
			}
		})
	}

	server, consumer := compose.Services["server"], compose.Services["message-consumer"]
	if got := server.Environment["AUTH_TOKENS"]; !strings.HasPrefix(got, "${AUTH_TOKENS:?") {
		t.Errorf("AUTH_TOKENS is %q, want it required", got)
	}
	if server.Environment["SHARDS_COUNT"] != consumer.Environment["SHARDS_COUNT"] {
		t.Error("server and message-consumer differ in SHARDS_COUNT")
	}
	if want := []string{"data:" + consumer.Environment["DATA_OUTPUT_DIR"]}; !slices.Equal(consumer.Volumes, want) {
		t.Errorf("the message-consumer's volumes are %v, want %v", consumer.Volumes, want)
	}
}

func TestDockerfile(t *testing.T) {
	instructions := make(map[string]string) // of the last stage, the last of each
	for line := range strings.Lines(read(t, "../Dockerfile")) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "FROM" {
			clear(instructions)
		}
		instructions[word] = rest
	}
	if user := instructions["USER"]; !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(user) {
		t.Errorf("USER is %q, want numbers, not root's: there is no passwd file to look a name up", user)
	}
	var argv []string
	if err := json.Unmarshal([]byte(instructions["ENTRYPOINT"]), &argv); err != nil || !slices.Equal(argv, []string{"/async-data-processor"}) {
		t.Errorf("ENTRYPOINT is %s (%v), want the exec form, or signals go to a shell", instructions["ENTRYPOINT"], err)
	}
	if got := instructions["STOPSIGNAL"]; got != "SIGTERM" {
		t.Errorf("STOPSIGNAL is %q", got)
	}
	if got := instructions["VOLUME"]; got != "/data" {
		t.Errorf("VOLUME is %q", got)
	}
}

func TestUnits(t *testing.T) {
	for file, command := range map[string]string{
		"async-data-processor-server.service":     "server",
		"async-data-processor-consumer.service":   "message-consumer",
		"async-data-processor-standalone.service": "standalone",
	} {
		t.Run(command, func(t *testing.T) {
			unit := parseUnit(t, file)
			for key, want := range map[string]string{
				"Type":                     "exec",
				"ExecStart":                "/usr/local/bin/async-data-processor " + command,
				"EnvironmentFile":          "-/etc/async-data-processor/env",
				"KillSignal":               "SIGTERM",
				"Restart":                  "always",
				"RestartPreventExitStatus": "2", // the exit code of a wrong setting
				"NoNewPrivileges":          "yes",
				"ProtectSystem":            "strict",
			} {
				if got := unit["Service"][key]; !slices.Equal(got, []string{want}) {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			if got := duration(t, unit["Service"]["TimeoutStopSec"]...); got <= drainTimeout {
				t.Errorf("TimeoutStopSec is %v, want more than %v", got, drainTimeout)
			}
			if unit["Service"]["User"] == nil && unit["Service"]["DynamicUser"] == nil {
				t.Error("runs as root")
			}
			for _, assignment := range unit["Service"]["Environment"] {
				if name, _, _ := strings.Cut(assignment, "="); !slices.Contains(settings, name) {
					t.Errorf("the program does not know the variable %s", name)
				}
			}
		})
	}

	for file, want := range map[string][]string{
		"async-data-processor-consumer.service": {"DATA_OUTPUT_DIR=%S/async-data-processor"},
		"async-data-processor-standalone.service": {
			"DATA_OUTPUT_DIR=%S/async-data-processor/data", "BROKER_URL=embedded://%S/async-data-processor/broker",
		},
	} {
		service := parseUnit(t, file)["Service"]
		if !slices.Equal(service["Environment"], want) || !slices.Equal(service["StateDirectory"], []string{"async-data-processor"}) {
			t.Errorf("%s: the environment is %q, want %q, as all but the state directory is read-only", file, service["Environment"], want)
		}
		if user := service["User"]; !slices.Equal(user, service["Group"]) || !slices.Equal(user, sysusers(t)) {
			t.Errorf("%s: it runs as %q, and systemd-sysusers makes %q", file, user, sysusers(t))
		}
	}
}

// sysusers returns the users that systemd-sysusers makes, each with a group of its name.
func sysusers(t *testing.T) (names []string) {
	t.Helper()
	for line := range strings.Lines(read(t, "sysusers.conf")) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == "u" {
			names = append(names, fields[1])
		}
	}
	return names
}

// parseUnit returns the values of a systemd unit by section and key.
func parseUnit(t *testing.T, file string) map[string]map[string][]string {
	t.Helper()
	unit := make(map[string]map[string][]string)
	var section map[string][]string
	for line := range strings.Lines(read(t, file)) {
		line = strings.TrimSpace(line)
		switch key, value, found := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = make(map[string][]string)
			unit[strings.Trim(line, "[]")] = section
		case found && section != nil:
			section[key] = append(section[key], value)
		default:
			t.Fatalf("%s: cannot read %q", file, line)
		}
	}
	return unit
}

// duration parses the last value, which is the one that counts in a unit.
func duration(t *testing.T, values ...string) time.Duration {
	t.Helper()
	if len(values) == 0 {
		t.Fatal("a duration is missing")
	}
	d, err := time.ParseDuration(values[len(values)-1])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
