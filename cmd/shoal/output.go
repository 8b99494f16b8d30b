package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shoalstore/shoal/plugins/api"
)

// printJSON prints a document, or a line of a listing.
func (o *options) printJSON(v any) error {
	e := json.NewEncoder(o.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints columns under headers, as kubectl does.
type table struct {
	headers []string
	// right says which columns hold numbers.
	right []bool
	rows  [][]string
}

// newTable makes a table; a header with a leading ">" is that of numbers.
func newTable(headers ...string) *table {
	t := &table{}
	for _, h := range headers {
		name, right := strings.CutPrefix(h, ">")
		t.headers = append(t.headers, name)
		t.right = append(t.right, right)
	}
	return t
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table. color, if not nil, decorates a padded cell.
func (t *table) print(w io.Writer, color func(cell, padded string) string) error {
	width := make([]int, len(t.headers))
	for _, row := range append([][]string{t.headers}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var all strings.Builder
	line := func(row []string, color func(cell, padded string) string) {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			padded := cell + pad
			if t.right[i] {
				padded = pad + cell
			}
			if color != nil {
				padded = color(cell, padded)
			}
			if i > 0 {
				b.WriteString("   ")
			}
			b.WriteString(padded)
		}
		all.WriteString(strings.TrimRight(b.String(), " "))
		all.WriteByte('\n')
	}
	line(t.headers, nil)
	for _, row := range t.rows {
		line(row, color)
	}
	_, err := io.WriteString(w, all.String())
	return err
}

// printTable prints a table to stdout, states in color on a terminal.
func (o *options) printTable(t *table) error {
	if !o.outTerminal || o.noColor || o.getenv("NO_COLOR") != "" || o.getenv("TERM") == "dumb" {
		return t.print(o.out, nil)
	}
	return t.print(o.out, colorState)
}

// colorState colors the words for states: green is as it should be, yellow is
// on its way, red needs somebody.
func colorState(cell, padded string) string {
	switch cell {
	case "ok", "active", "running", "done", "healthy":
		return "\x1b[32m" + padded + "\x1b[0m"
	case "joining", "draining", "maintenance", "pending", "planning", "waiting", "verifying", "starting", "paused", "new", "creating", "deleting":
		return "\x1b[33m" + padded + "\x1b[0m"
	case "down", "failed", "killed", "detached", "degraded":
		return "\x1b[31m" + padded + "\x1b[0m"
	}
	return padded
}

// details prints names and values, one pair a line.
func (o *options) details(pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		width = max(width, len(pairs[i]))
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(o.out, "%-*s  %s\n", width+1, pairs[i]+":", pairs[i+1])
		}
	}
}

// formatBytes writes 0 B, 277.00 KiB, 1.40 MiB.
func formatBytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n), 0
	for math.Abs(v) >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 {
		return strconv.FormatInt(n, 10) + " B"
	}
	return strconv.FormatFloat(v, 'f', 2, 64) + " " + units[i]
}

// formatObjects writes 1 object, 201 objects.
func formatObjects(n int64) string {
	if n == 1 {
		return "1 object"
	}
	return strconv.FormatInt(n, 10) + " objects"
}

// formatAmount writes 201 objects, 8.50 MiB.
func formatAmount(a api.Amount) string { return formatObjects(a.Objects) + ", " + formatBytes(a.Bytes) }

// formatRate writes bytes per second.
func formatRate(v float64) string { return formatBytes(int64(v)) + "/s" }

// formatCount writes a rate of operations.
func formatCount(v float64) string {
	if v >= 100 || v == math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}

// formatTime writes a time in the machine's zone, "" for none.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func formatTimePtr(t *time.Time) string {
	if t == nil {
		return ""
	}
	return formatTime(*t)
}

// formatDuration writes 850ms, 12s, 3m20s, 1h05m.
func formatDuration(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return strconv.Itoa(int(d.Round(time.Second)/time.Second)) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// formatETA is formatDuration in whole seconds.
func formatETA(d time.Duration) string { return formatDuration(max(d, time.Second)) }

// formatLatency writes microseconds as 850µs, 1.2ms, 3.40s.
func formatLatency(us int64) string {
	switch {
	case us < 1000:
		return strconv.FormatInt(us, 10) + "µs"
	case us < 1_000_000:
		return strconv.FormatFloat(float64(us)/1e3, 'f', 1, 64) + "ms"
	}
	return strconv.FormatFloat(float64(us)/1e6, 'f', 2, 64) + "s"
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}
