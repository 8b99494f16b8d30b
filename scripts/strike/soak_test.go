package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSoakResumes runs rounds that cannot begin, for want of a program, twice
// with one log.
func TestSoakResumes(t *testing.T) {
	log := filepath.Join(t.TempDir(), "soak.jsonl")
	soak := func(rounds string) soakTotal {
		t.Helper()
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"soak", "--rounds", rounds, "--log", log, "--shoal", "/no/such/program", "--seed", "7"}, &out, &errs)
		if code != exitDiffers {
			t.Fatalf("got exit code %d, want %d: %s", code, exitDiffers, errs.String())
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		var total soakTotal
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &total); err != nil {
			t.Fatal(err)
		}
		return total
	}
	soak("2")
	total := soak("3")
	if total.Rounds != 5 || total.Failed != 5 || total.By["cp-rmnode-ec"] != 2 || total.By[chaosName] != 1 {
		t.Errorf("got %+v, want 5 rounds, two of the first script", total)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		var r soakRound
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		n++
		if r.Round != n || r.Seed != uint64(7+n) || r.Exit != exitCannot || !strings.Contains(r.Why, "/no/such/program") {
			t.Errorf("round %d: got %+v", n, r)
		}
		if _, err := os.Stat(r.Output); err != nil {
			t.Errorf("the output of round %d: %v", n, err)
		}
	}
	if _, _, err := readSoak(filepath.Join("testdata", "..", "soak.go")); err == nil {
		t.Error("got nothing amiss with a file that is no log")
	}
}
