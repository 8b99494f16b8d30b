//go:build race

package wasmetl_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// raceDetector says that the tests are watched for races.
const raceDetector = true

// CI runs the tests of this package under the detector, so that the thousand runs are
// those of a program without it.
func TestNoLeaksWithoutDetector(t *testing.T) {
	program := filepath.Join(t.TempDir(), "wasmetl.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	run := exec.CommandContext(t.Context(), program, "-test.run=^TestNoLeaksOfTheHostile$", "-test.v")
	run.Env = append(os.Environ(), compilerEnv+"=")
	out, err := run.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNoLeaksOfTheHostile") {
		t.Errorf("%v\n%s", err, out)
	}
}
