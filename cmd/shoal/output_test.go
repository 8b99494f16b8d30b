package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8"

	"github.com/shoalstore/shoal/plugins/api"
)

// TestSummaryOfTheDesign holds the transcript to the letter.
func TestSummaryOfTheDesign(t *testing.T) {
	const want = `NAME        OBJECTS (cached, remote)    SIZE (cached, remote)
s3://src                    0  1430          0 B   1.40 MiB
`
	got := formatSummaries([]api.Summary{{Bucket: "s3://src", Remote: &api.Amount{Objects: 1430, Bytes: 1468006}}})
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestSummariesAlign(t *testing.T) {
	got := formatSummaries([]api.Summary{
		{Bucket: "shoal://a-longer-name", Present: api.Amount{Objects: 123456789, Bytes: 1 << 50}},
		{Bucket: "s3://src", Present: api.Amount{Objects: 1, Bytes: 1}, Remote: &api.Amount{Objects: 12345678, Bytes: 1 << 41}},
	})
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(lines) != 3 || len(lines[1]) != len(lines[2]) {
		t.Errorf("not aligned:\n%s", got)
	}
	for _, want := range []string{"123456789", "1.00 PiB", "12345678", "2.00 TiB", "-"} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %s:\n%s", want, got)
		}
	}
}

// TestBarsOfTheDesign draws the progress of the transcript: 277 of 1,430.
func TestBarsOfTheDesign(t *testing.T) {
	var out bytes.Buffer
	refresh := make(chan any)
	b := newBars(&out, "Copied", mpb.WithManualRefresh(refresh))
	b.show(books{
		planned: &api.Amount{Objects: 1430, Bytes: 1430 * 1024}, passed: api.Amount{Objects: 277, Bytes: 277 * 1024},
	})
	refresh <- time.Now()
	b.end(false)
	for _, want := range []string{
		`(?m)^Copied objects: +277/1430 \[==========>-------------------------------------------\] 19 %\s*$`,
		`(?m)^Copied size:   277\.00 KiB / 1\.40 MiB \[==========>-------------------------------------------\] 19 %\s*$`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("got\n%s\nwant %s", out.String(), want)
		}
	}
}

func TestBarsShowMore(t *testing.T) {
	var out bytes.Buffer
	refresh := make(chan any)
	b := newBars(&out, "Copied", mpb.WithManualRefresh(refresh))
	b.show(books{
		planned: &api.Amount{Objects: 10, Bytes: 10}, passed: api.Amount{Objects: 5, Bytes: 5}, failed: 2,
		rate: api.Rate{Objects: 92.34, Bytes: 3 << 20}, eta: 83 * time.Second, note: "waiting for n2",
	})
	refresh <- time.Now()
	b.end(false)
	for _, want := range []string{"50 %  92.3/s  2 failed  waiting for n2", "50 %  3.00 MiB/s  ETA 1m23s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got\n%s\nwant %s", out.String(), want)
		}
	}
}

func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	l := &lines{w: &out, verb: "Copied"}
	l.show(books{note: "planning"})
	l.show(books{found: &api.Amount{Objects: 300, Bytes: 300 * 1024}, passed: api.Amount{Objects: 12, Bytes: 12 * 1024}})
	l.show(books{
		planned: &api.Amount{Objects: 1430, Bytes: 1430 * 1024}, passed: api.Amount{Objects: 277, Bytes: 277 * 1024},
		failed: 1, rate: api.Rate{Objects: 92, Bytes: 92 * 1024}, eta: 12 * time.Second,
	})
	const want = `Copied objects: 0, size: 0 B, planning
Copied objects: 12 of 300 found so far, size: 12.00 KiB of 300.00 KiB
Copied objects: 277/1430 (19 %), size: 277.00 KiB / 1.40 MiB (19 %), 1 failed, 92 objects/s, 92.00 KiB/s, ETA 12s
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestTable(t *testing.T) {
	tab := newTable("NAME", ">SIZE", "STATE")
	tab.add("ü", "1", "ok")
	tab.add("longer", "1000", "")
	var plain, colored bytes.Buffer
	if err := tab.print(&plain, nil); err != nil {
		t.Fatal(err)
	}
	if err := tab.print(&colored, colorState); err != nil {
		t.Fatal(err)
	}
	const want = "NAME     SIZE   STATE\nü           1   ok\nlonger   1000\n"
	if plain.String() != want {
		t.Errorf("got\n%q\nwant\n%q", plain.String(), want)
	}
	if !strings.Contains(colored.String(), "\x1b[32mok   \x1b[0m") {
		t.Errorf("no color: %q", colored.String())
	}
}

func TestFormats(t *testing.T) {
	for got, want := range map[string]string{
		formatBytes(0): "0 B", formatBytes(1023): "1023 B", formatBytes(1024): "1.00 KiB", formatBytes(277 << 10): "277.00 KiB",
		formatBytes(1468006): "1.40 MiB", formatBytes(1 << 62): "4.00 EiB",
		formatDuration(850 * time.Millisecond): "850ms", formatDuration(12 * time.Second): "12s",
		formatDuration(200 * time.Second): "3m20s", formatDuration(65 * time.Minute): "1h05m",
		formatLatency(850): "850µs", formatLatency(1200): "1.2ms", formatLatency(3_400_000): "3.40s",
		formatCount(0): "0", formatCount(92.34): "92.3", formatCount(1234.5): "1234",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
