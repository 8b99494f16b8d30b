package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl"
)

// nativeShim makes a program of an example in C: it passes an object from memory
// through it, again and again, and prints how often it did so in a second.
const nativeShim = `
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include EXAMPLE

static unsigned char *object, sink[65536];
static uint32_t size, at;

int32_t shoal_read(void *p, uint32_t len)
{
    uint32_t n = size - at < len ? size - at : len;
    memcpy(p, object + at, n);
    at += n;
    return (int32_t)n;
}

int32_t shoal_write(const void *p, uint32_t len)
{
    for (uint32_t i = 0; i < len; i += sizeof sink)
        memcpy(sink, (const char *)p + i, len - i < sizeof sink ? len - i : sizeof sink);
    return (int32_t)len;
}

int32_t shoal_get(const char *k, uint32_t kn, void *p, uint32_t n) { return SHOAL_NO_SUCH_KEY; }
int32_t shoal_set(const char *k, uint32_t kn, const char *v, uint32_t n) { return 0; }
int32_t shoal_emit(const char *p, uint32_t n) { return 0; }
int32_t shoal_drop(void) { return 0; }
void shoal_log(int32_t l, const char *p, uint32_t n) {}
void shoal_fail(int32_t c, const char *p, uint32_t n) { exit(3); }

int main(int argc, char **argv)
{
    struct timespec from, to;
    size = (uint32_t)atol(argv[1]);
    object = malloc(size);
    if (fread(object, 1, size, stdin) != size)
        return 2;
    double seconds = atof(argv[2]), took = 0;
    long n = 0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (; took < seconds; n++) {
        at = 0;
        if (shoal_transform() != 0)
            return 1;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
        took = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    }
    printf("%f\n", took * 1e6 / (double)n);
    return 0;
}
`

// native compares guests with the same code as a program of this machine.
func (t *transforms) native(ctx context.Context) error {
	const size = 1 << 20
	h, err := t.host(ctx, wasmetl.Options{})
	if err != nil {
		return err
	}
	text := bytes.Repeat([]byte("id,name,\"a text, in quotes\",3.14\n"), size/33)
	t.line("## Guests against the same code native\n")
	t.line("An object of 1 MiB of text; microseconds of CPU each. C is native by cc -O3.\n")
	t.line("| code | native, us | guest, us | guest / native |")
	t.line("| --- | ---: | ---: | ---: |")
	for _, g := range []struct{ name, guest, source string }{
		{"upper, C with SIMD", "upper", "upper"}, {"upper, C without", "upper-scalar", "upper"}, {"CSV to JSON lines, C", "csv", "csv"},
	} {
		wasm, err := cGuest(g.guest)
		if err != nil {
			return err
		}
		ref, err := h.Install(ctx, wasmetl.Spec{Name: g.guest}, wasm)
		if err != nil {
			return err
		}
		program, err := t.cc(ctx, g.source)
		if err != nil {
			return err
		}
		var own, guest []float64
		for range t.o.rounds {
			us, err := runNative(ctx, program, text, t.o.cell)
			if err != nil {
				return err
			}
			s, err := transform(h, ref, text, nil).turn(ctx, 1, t.o.cell)
			if err != nil {
				return err
			}
			own, guest = append(own, us), append(guest, s.cpu)
		}
		t.line("| %s | %.0f | %.0f | %.1f |", g.name, median(own), median(guest), median(guest)/median(own))
	}
	wasm, err := t.goGuest(ctx, "upper")
	if err != nil {
		return err
	}
	ref, err := h.Install(ctx, wasmetl.Spec{Name: "upper-go"}, wasm)
	if err != nil {
		return err
	}
	own := subject{do: func(context.Context) error { return upper(bytes.NewReader(text), io.Discard) }}
	got, err := t.turns(ctx, 1, own, transform(h, ref, text, nil))
	if err != nil {
		return err
	}
	t.line("| upper by runes, Go | %.0f | %.0f | %.1f |\n", got[0].cpu, got[1].cpu, got[1].cpu/got[0].cpu)
	return nil
}

// cc builds an example in C as a program.
func (t *transforms) cc(ctx context.Context, example string) (string, error) {
	dir, err := t.temp()
	if err != nil {
		return "", err
	}
	source, err := filepath.Abs(filepath.Join("wasmetl", "guest", "c", "examples", example+".c"))
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, example)
	cmd := exec.CommandContext(ctx, "cc", "-O3", "-w", "-x", "c", "-DEXAMPLE="+strconv.Quote(source), "-o", program, "-")
	cmd.Stdin = strings.NewReader(nativeShim)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cc: %w: %s", err, text)
	}
	return program, nil
}

// runNative gives the microseconds of CPU that a program takes for an object.
func runNative(ctx context.Context, program string, object []byte, d time.Duration) (float64, error) {
	cmd := exec.CommandContext(ctx, program, strconv.Itoa(len(object)), strconv.FormatFloat(d.Seconds(), 'f', 3, 64))
	cmd.Stdin = bytes.NewReader(object)
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", program, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// upper does what the example in Go does.
func upper(r io.Reader, w io.Writer) error {
	in, out := bufio.NewReaderSize(r, 32<<10), bufio.NewWriterSize(w, 32<<10)
	for {
		c, _, err := in.ReadRune()
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return err
		}
		if _, err := out.WriteRune(unicode.ToUpper(c)); err != nil {
			return err
		}
	}
}

// meter is what the counter costs, by the benchmark beside the host: only wasmetl
// speaks with wazero.
func (t *transforms) meter(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkMeter$", "-benchtime", "200ms", "-count", strconv.Itoa(t.o.rounds), "./wasmetl")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go test -bench BenchmarkMeter: %w: %s", err, out)
	}
	var names []string
	times := map[string][]float64{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		unit := slices.Index(fields, "cpu-ns/op")
		if unit < 1 {
			continue
		}
		name := strings.TrimPrefix(fields[0], "BenchmarkMeter/")
		if i := strings.LastIndexByte(name, '-'); i > strings.LastIndexByte(name, '=') {
			name = name[:i] // the number of cores
		}
		ns, err := strconv.ParseFloat(fields[unit-1], 64)
		if err != nil {
			return err
		}
		if times[name] == nil {
			names = append(names, name)
		}
		times[name] = append(times[name], ns)
	}
	t.line("## What the meter costs\n")
	t.line("The same code under wazero without any check, and metered; microseconds of CPU. Target: <= 1.4.\n")
	t.line("| code | plain, us | metered, us | ratio |")
	t.line("| --- | ---: | ---: | ---: |")
	for _, name := range names {
		guest, ok := strings.CutSuffix(name, "/metered=false")
		if !ok {
			continue
		}
		plain, metered := median(times[name]), median(times[guest+"/metered=true"])
		t.line("| %s | %.0f | %.0f | %.2f |", guest, plain/1e3, metered/1e3, metered/plain)
	}
	t.line("")
	return nil
}

// spinning is a module whose transform never ends: one loop.
const spinning = "\x00asm\x01\x00\x00\x00\x01\x05\x01\x60\x00\x01\x7f\x03\x02\x01\x00\x05\x03\x01\x00\x01" +
	"\x07\x1c\x02\x0fshoal_transform\x00\x00\x06memory\x02\x00\x0a\x0b\x01\x09\x00\x03\x40\x0c\x00\x0b\x41\x00\x0b"

// collector is how long the node's garbage collector takes and stops it, while
// guests spin and without them.
func (t *transforms) collector(ctx context.Context) error {
	h, err := t.host(ctx, wasmetl.Options{})
	if err != nil {
		return err
	}
	ref, err := h.Install(ctx, wasmetl.Spec{Name: "spins", Timeout: time.Hour}, []byte(spinning))
	if err != nil {
		return err
	}
	idle := collections(200)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, h.Usage().Turns)
	for range h.Usage().Turns {
		go func() {
			_, err := h.RunTransform(ctx, core.TransformCall{Transform: ref, Output: toNowhere})
			ended <- err
		}()
	}
	for h.Usage().Running < h.Usage().Turns {
		time.Sleep(time.Millisecond)
	}
	busy := collections(200)
	turns := h.Usage().Turns
	cancel()
	for range turns {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a guest that spins ended: %w", err)
		}
	}
	t.line("## The garbage collector while guests spin\n")
	t.line("200 collections with %d guests that spin, and without.\n", turns)
	t.line("| | p50, ms | p99, ms |")
	t.line("| --- | ---: | ---: |")
	for _, r := range []struct {
		what  string
		times []time.Duration
	}{
		{"the world stopped, no guests", idle.pauses},
		{"the world stopped, guests spin", busy.pauses},
		{"a whole collection, no guests", idle.whole},
		{"a whole collection, guests spin", busy.whole},
	} {
		t.line("| %s | %.2f | %.2f |", r.what, quantile(r.times, 50), quantile(r.times, 99))
	}
	t.line("")
	return nil
}

type collected struct{ pauses, whole []time.Duration }

// collections collects garbage n times.
func collections(n int) collected {
	var c collected
	var m runtime.MemStats
	for range n {
		began := time.Now()
		runtime.GC()
		c.whole = append(c.whole, time.Since(began))
		runtime.ReadMemStats(&m)
		c.pauses = append(c.pauses, time.Duration(m.PauseNs[(m.NumGC+255)%256]))
	}
	slices.Sort(c.pauses)
	slices.Sort(c.whole)
	return c
}

// quantile is one of sorted times, in milliseconds.
func quantile(times []time.Duration, percent int) float64 {
	return float64(times[min(len(times)-1, len(times)*percent/100)].Microseconds()) / 1e3
}

// instances is what live instances take of memory: 200 wait for their objects.
func (t *transforms) instances(ctx context.Context) error {
	const live = 200
	goIdentity, err := t.goGuest(ctx, "identity")
	if err != nil {
		return err
	}
	cIdentity, err := cGuest("identity")
	if err != nil {
		return err
	}
	t.line("## Memory of %d live instances\n", live)
	t.line("Each with a limit of 64 MiB, waiting for the rest of its object.\n")
	t.line("| guest | KiB each |")
	t.line("| --- | ---: |")
	for _, g := range []struct {
		name string
		wasm []byte
	}{{"identity, C", cIdentity}, {"identity, Go", goIdentity}} {
		kib, err := t.live(ctx, g.wasm, live)
		if err != nil {
			return err
		}
		t.line("| %s | %.0f |", g.name, kib)
	}
	t.line("")
	return nil
}

func (t *transforms) live(ctx context.Context, wasm []byte, n int) (float64, error) {
	h, err := t.host(ctx, wasmetl.Options{Budget: 64 << 30})
	if err != nil {
		return 0, err
	}
	ref, err := h.Install(ctx, wasmetl.Spec{Name: "x"}, wasm)
	if err != nil {
		return 0, err
	}
	debug.FreeOSMemory()
	before := rss(os.Getpid())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{}, n)
	var sources []*io.PipeWriter
	for range n {
		body, source := io.Pipe()
		sources = append(sources, source)
		go func() {
			_, _ = h.RunTransform(ctx, core.TransformCall{Transform: ref, Body: body, Object: core.TransformObject{Size: -1}, Output: toNowhere})
			ended <- struct{}{}
		}()
	}
	for _, s := range sources {
		if _, err := s.Write([]byte("the beginning of an object")); err != nil {
			return 0, err
		}
	}
	for u := h.Usage(); u.Running > 0 || u.Waiting > 0; u = h.Usage() {
		time.Sleep(time.Millisecond)
	}
	debug.FreeOSMemory()
	kib := float64(rss(os.Getpid())-before) / float64(n) / 1024
	cancel()
	for range n {
		<-ended
	}
	return kib, nil
}

// coldGuest is a module whose first result is waited for.
type coldGuest struct {
	name         string
	wasm, object []byte
	args         map[string]string
}

func (t *transforms) coldGuests(ctx context.Context) ([]coldGuest, error) {
	large, err := t.goGuest(ctx, "image")
	if err != nil {
		return nil, err
	}
	pictures, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/image").Output()
	if err != nil {
		return nil, fmt.Errorf("where a picture is: %w", err)
	}
	picture, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(pictures)), "testdata", "go-turns-two-280x360.jpeg"))
	if err != nil {
		return nil, err
	}
	small, err := cGuest("csv")
	if err != nil {
		return nil, err
	}
	return []coldGuest{
		{"CSV to JSON lines, C", small, []byte("a,b\n1,2\n"), nil},
		{"pictures made smaller, Go", large, picture, map[string]string{"width": "64"}},
	}, nil
}

// cold is the time from a module to its first result, with nothing compiled.
func (t *transforms) cold(ctx context.Context) error {
	guests, err := t.coldGuests(ctx)
	if err != nil {
		return err
	}
	t.line("## From a module to its first result, cold\n")
	t.line("Checked, metered, compiled by a child process, loaded, and run on one object; nothing in the cache. Targets: a C module < 2 s, a Go one of 4 MiB < 6 s.\n")
	t.line("| module | bytes | s |")
	t.line("| --- | ---: | ---: |")
	for _, g := range guests {
		var times []float64
		for range t.o.rounds {
			h, err := t.host(ctx, wasmetl.Options{})
			if err != nil {
				return err
			}
			began := time.Now()
			ref, err := h.Install(ctx, wasmetl.Spec{Name: "x"}, g.wasm)
			if err != nil {
				return err
			}
			if err := transform(h, ref, g.object, g.args).do(ctx); err != nil {
				return err
			}
			times = append(times, time.Since(began).Seconds())
		}
		t.line("| %s | %d | %.2f |", g.name, len(g.wasm), median(times))
	}
	t.line("")
	return nil
}
