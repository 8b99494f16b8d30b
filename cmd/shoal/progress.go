package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/shoalstore/shoal/plugins/api"
)

// books are what a display shows of something long.
type books struct {
	planned *api.Amount // nil until it is known
	found   *api.Amount // so far, until then; nil if that is not known either
	passed  api.Amount
	failed  int64
	rate    api.Rate
	eta     time.Duration // 0 if not known
	note    string        // what it waits for
}

// display shows progress to people: as bars on a terminal, as a line for each
// call elsewhere.
type display interface {
	show(b books)
	// end leaves the last state standing. complete says that all is done.
	end(complete bool)
}

// newDisplay begins a display on stderr. verb is "Copied". Under --json it is an
// object for each call.
func (o *options) newDisplay(verb string) display {
	if o.json {
		return jsonLines{o.err}
	}
	if o.errTerminal && o.getenv("TERM") != "dumb" {
		return newBars(o.err, verb)
	}
	return &lines{w: o.err, verb: verb}
}

// lines writes a line for each call.
type lines struct {
	w    io.Writer
	verb string
}

func (l *lines) show(b books) {
	parts := []string{
		fmt.Sprintf("%s objects: %s%s", l.verb, countObjects(b), percent(b, objectsOf)),
		fmt.Sprintf("size: %s%s", countBytes(b), percent(b, bytesOf)),
	}
	if b.failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", b.failed))
	}
	if speed := speedOf(b); speed != "" {
		parts = append(parts, speed)
	}
	if b.eta > 0 {
		parts = append(parts, "ETA "+formatETA(b.eta))
	}
	if b.note != "" {
		parts = append(parts, b.note)
	}
	fmt.Fprintln(l.w, strings.Join(parts, ", "))
}

func (l *lines) end(bool) {}

// jsonLines writes a JSON object for each call.
type jsonLines struct{ w io.Writer }

func (l jsonLines) show(b books) {
	var eta *time.Time
	if b.eta > 0 {
		at := time.Now().Add(b.eta).UTC()
		eta = &at
	}
	printLine(l.w, struct {
		Planned *api.Amount `json:"planned"`
		Done    api.Amount  `json:"done"`
		Rate    api.Rate    `json:"rate"`
		ETA     *time.Time  `json:"eta"`
	}{b.planned, b.passed, b.rate, eta})
}

func (jsonLines) end(bool) {}

func countObjects(b books) string {
	switch {
	case b.planned == nil && b.found != nil:
		return fmt.Sprintf("%d of %d found so far", b.passed.Objects, b.found.Objects)
	case b.planned == nil:
		return fmt.Sprint(b.passed.Objects)
	}
	return fmt.Sprintf("%d/%d", b.passed.Objects, b.planned.Objects)
}

func countBytes(b books) string {
	switch {
	case b.planned == nil && b.found != nil:
		return formatBytes(b.passed.Bytes) + " of " + formatBytes(b.found.Bytes)
	case b.planned == nil:
		return formatBytes(b.passed.Bytes)
	}
	return formatBytes(b.passed.Bytes) + " / " + formatBytes(b.planned.Bytes)
}

func objectsOf(a api.Amount) int64 { return a.Objects }
func bytesOf(a api.Amount) int64   { return a.Bytes }

func percent(b books, of func(api.Amount) int64) string {
	if b.planned == nil || of(*b.planned) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d %%)", int64(math.Floor(100*float64(of(b.passed))/float64(of(*b.planned)))))
}

func speedOf(b books) string {
	if b.rate == (api.Rate{}) {
		return ""
	}
	return formatCount(b.rate.Objects) + " objects/s, " + formatRate(b.rate.Bytes)
}

// bars draws one bar for objects and one for bytes.
type bars struct {
	p              *mpb.Progress
	objects, bytes *mpb.Bar

	mu   sync.Mutex
	last books
}

// barWidth is that of a bar with its brackets, lineWidth that of a line with
// what stands around it.
const barWidth, lineWidth = 56, 160

func newBars(w io.Writer, verb string, more ...mpb.ContainerOption) *bars {
	b := &bars{p: mpb.New(append([]mpb.ContainerOption{mpb.WithOutput(w), mpb.WithWidth(lineWidth), mpb.WithAutoRefresh()}, more...)...)}
	// The space keeps the two columns apart where this one is full.
	count := func(now books) string { return " " + countObjects(now) }
	b.objects = b.bar(verb+" objects:", count, func(now books) string {
		text := ""
		if now.rate.Objects > 0 {
			text = "  " + formatCount(now.rate.Objects) + "/s"
		}
		if now.failed > 0 {
			text += fmt.Sprintf("  %d failed", now.failed)
		}
		if now.note != "" {
			text += "  " + now.note
		}
		return text
	})
	b.bytes = b.bar(verb+" size:", countBytes, func(now books) string {
		text := ""
		if now.rate.Bytes > 0 {
			text = "  " + formatRate(now.rate.Bytes)
		}
		if now.eta > 0 {
			text += "  ETA " + formatETA(now.eta)
		}
		return text
	})
	return b
}

func (b *bars) bar(name string, count, more func(books) string) *mpb.Bar {
	text := func(f func(books) string) decor.DecorFunc {
		return func(decor.Statistics) string {
			b.mu.Lock()
			defer b.mu.Unlock()
			return f(b.last)
		}
	}
	return b.p.MustAdd(0, mpb.BarFillerFunc(fillBar), mpb.BarWidth(barWidth),
		mpb.PrependDecorators(
			decor.Name(name, decor.WCSyncWidthR),
			decor.Any(text(count), decor.WCSyncWidth),
		),
		mpb.AppendDecorators(decor.Percentage(), decor.Any(text(more))),
	)
}

// fillBar draws [====>-----].
func fillBar(w io.Writer, s decor.Statistics) error {
	room := min(s.AvailableWidth, s.RequestedWidth) - len("[]")
	if room < 1 {
		return nil
	}
	full := 0
	if s.Total > 0 {
		full = int(float64(room) * min(float64(s.Current)/float64(s.Total), 1))
	}
	tip := ">"
	if full == room {
		tip = ""
	}
	_, err := fmt.Fprintf(w, "[%s%s%s]", strings.Repeat("=", full), tip, strings.Repeat("-", room-full-len(tip)))
	return err
}

func (b *bars) show(now books) {
	b.mu.Lock()
	b.last = now
	b.mu.Unlock()
	if now.planned != nil {
		b.objects.SetTotal(now.planned.Objects, false)
		b.bytes.SetTotal(now.planned.Bytes, false)
	}
	b.objects.SetCurrent(now.passed.Objects)
	b.bytes.SetCurrent(now.passed.Bytes)
}

func (b *bars) end(complete bool) {
	for _, bar := range []*mpb.Bar{b.objects, b.bytes} {
		if complete {
			bar.SetTotal(-1, true)
		} else {
			bar.Abort(false)
		}
	}
	b.p.Wait()
}

// transferProgress counts what put and get move and shows it from time to time.
// A nil one shows nothing.
type transferProgress struct {
	d      display
	finish chan struct{}
	done   chan struct{}

	mu    sync.Mutex
	now   books
	start time.Time
	// The last tick: when it was and what had passed. The rate is that of the
	// last ticks, the later the weightier.
	tick   time.Time
	ticked api.Amount
}

// newTransferProgress begins to show; stop ends it.
func (o *options) newTransferProgress(verb string, refresh durationFlag) *transferProgress {
	p := &transferProgress{
		d: o.newDisplay(verb), finish: make(chan struct{}), done: make(chan struct{}),
		now: books{planned: new(api.Amount)}, start: time.Now(), tick: time.Now(),
	}
	every := time.Duration(refresh)
	if every == 0 {
		every = o.defaultRefresh()
	}
	go p.run(every)
	return p
}

// defaultRefresh is the time between two reports where --refresh is not given.
func (o *options) defaultRefresh() time.Duration {
	if o.errTerminal {
		return time.Second / 2
	}
	return 5 * time.Second
}

func (p *transferProgress) run(every time.Duration) {
	defer close(p.done)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.d.show(p.advance())
		case <-p.finish:
			return
		}
	}
}

// advance brings the rate up to date and returns the state.
func (p *transferProgress) advance() books {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	seconds := now.Sub(p.tick).Seconds()
	latest := api.Rate{
		Objects: float64(p.now.passed.Objects-p.ticked.Objects) / seconds, Bytes: float64(p.now.passed.Bytes-p.ticked.Bytes) / seconds,
	}
	if p.ticked == (api.Amount{}) {
		p.now.rate = latest
	} else {
		const weight = 0.3
		p.now.rate.Objects += weight * (latest.Objects - p.now.rate.Objects)
		p.now.rate.Bytes += weight * (latest.Bytes - p.now.rate.Bytes)
	}
	p.tick, p.ticked = now, p.now.passed
	out := p.now
	planned := *p.now.planned
	out.planned = &planned
	if left := planned.Bytes - out.passed.Bytes; left > 0 && out.rate.Bytes > 0 {
		out.eta = time.Duration(float64(left) / out.rate.Bytes * float64(time.Second))
	}
	return out
}

// plan adds to what is to be moved.
func (p *transferProgress) plan(objects, bytes int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	*p.now.planned = p.now.planned.Add(api.Amount{Objects: objects, Bytes: bytes})
}

func (p *transferProgress) object() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.passed.Objects++
}

func (p *transferProgress) bytes(n int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.passed.Bytes += n
}

// stop shows the end and waits for the display.
func (p *transferProgress) stop() {
	if p == nil {
		return
	}
	close(p.finish)
	<-p.done
	p.mu.Lock()
	last := p.now
	p.mu.Unlock()
	spent := time.Since(p.start).Seconds()
	last.rate = api.Rate{Objects: float64(last.passed.Objects) / spent, Bytes: float64(last.passed.Bytes) / spent}
	p.d.show(last)
	p.d.end(last.passed == *last.planned)
}
