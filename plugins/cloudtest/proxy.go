package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ProxyOptions of [StartProxy].
type ProxyOptions struct {
	// Kind is the protocol that passes through, [S3] by default.
	Kind Kind
	// Upstream is the server's URL.
	Upstream string
	// Listen is the address to listen at, by default a free port of 127.0.0.1.
	Listen string
	// Seed of what is left to chance.
	Seed uint64
	// Uploads keeps what was written, object by object.
	Uploads bool
}

// Proxy stands before a server, counts requests, and treats them by rules that
// may be changed while it runs. The path, the query and the headers of a request
// pass as they are, Host included, so that signatures stay valid.
type Proxy struct {
	kind      Kind
	upstream  *url.URL
	transport *http.Transport
	rules     rules
	counter   *counter
	uploads   *uploads // nil if they are not kept

	// ctx is the proxy's life, which no call bounds: it ends what waits.
	ctx  context.Context
	stop context.CancelFunc
	busy sync.WaitGroup // connections, and handlers, which outlive those that they take over

	mu      sync.Mutex
	addr    string
	server  *http.Server
	serving chan error // what Serve returned
	cut     context.CancelFunc
}

// StartProxy starts a proxy. Close ends it.
func StartProxy(o ProxyOptions) (*Proxy, error) {
	up, err := parseUpstream(o.Upstream)
	if err != nil {
		return nil, err
	}
	setDefault((*string)(&o.Kind), string(S3))
	setDefault(&o.Listen, "127.0.0.1:0")
	p := &Proxy{
		kind: o.Kind, upstream: up, addr: o.Listen, counter: newCounter(),
		rules: rules{rand: rand.New(rand.NewPCG(o.Seed, 1))},
		transport: &http.Transport{
			DisableCompression: true, MaxIdleConnsPerHost: 64, ExpectContinueTimeout: time.Second,
			IdleConnTimeout: 10 * time.Second, WriteBufferSize: 128 << 10, ReadBufferSize: 128 << 10,
		},
	}
	if o.Uploads {
		p.uploads = &uploads{buckets: map[string]map[string]Upload{}}
	}
	p.ctx, p.stop = context.WithCancel(context.Background()) //nolint:forbidigo // ended by Close
	if err := p.Up(); err != nil {
		return nil, err
	}
	return p, nil
}

// URL is the proxy's endpoint, "http://127.0.0.1:port".
func (p *Proxy) URL() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "http://" + p.addr
}

// SetRules replaces the rules for the requests that begin from now on; none lets
// everything pass.
func (p *Proxy) SetRules(rs ...Rule) { p.rules.set(rs) }

// Counts are what has been counted up to now.
func (p *Proxy) Counts() Counts {
	c, _ := p.counter.state()
	return c
}

// ResetCounts begins anew.
func (p *Proxy) ResetCounts() { p.counter.reset() }

// Await returns once f says true of what is counted.
func (p *Proxy) Await(ctx context.Context, f func(Counts) bool) error {
	return p.counter.await(ctx, f)
}

// Up listens again after Down, at the same address.
func (p *Proxy) Up() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(p.ctx, "tcp", p.addr)
	if err != nil {
		return fmt.Errorf("cloudtest: %w", err)
	}
	p.addr = l.Addr().String()
	var ctx context.Context
	ctx, p.cut = context.WithCancel(p.ctx)
	p.server = &http.Server{
		Handler: http.HandlerFunc(p.serve), ConnState: p.connState, ReadHeaderTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0),
	}
	p.serving = make(chan error, 1)
	go func(s *http.Server, done chan<- error) { done <- s.Serve(l) }(p.server, p.serving)
	return nil
}

// Down refuses connections and breaks those that are open, until Up.
func (p *Proxy) Down() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return nil
	}
	p.cut()
	err := p.server.Close()
	if e := <-p.serving; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	p.server = nil
	return err
}

// Close ends the proxy and waits until everything under way has ended; a request
// that is late is passed on at once.
func (p *Proxy) Close() error {
	p.stop()
	err := p.Down()
	p.busy.Wait()
	p.transport.CloseIdleConnections()
	return err
}

func (p *Proxy) connState(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		p.busy.Add(1)
		p.counter.update(func(c *Counts) { c.Connections++; c.Open++ })
	case http.StateClosed, http.StateHijacked:
		defer p.busy.Done()
		p.counter.update(func(c *Counts) { c.Open-- })
	case http.StateActive, http.StateIdle:
	}
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	p.busy.Add(1)
	defer p.busy.Done()
	q := classify(p.kind, r)
	t := p.rules.treat(q)
	p.counter.begin(q.op)
	defer p.counter.end()
	x := &exchange{p: p, w: w, r: r, q: q, op: q.op, t: t}
	x.run() //nolint:contextcheck // a late request outlives its client
}

// exchange is one request on its way.
type exchange struct {
	p  *Proxy
	w  http.ResponseWriter
	r  *http.Request
	q  request
	op Op
	t  treatment
}

// run treats the exchange. It panics with [http.ErrAbortHandler] to break the
// connection off.
func (x *exchange) run() {
	ctx := x.r.Context()
	if pause(ctx, x.t.latency) != nil {
		x.abort()
	}
	switch x.fault() {
	case Answer:
		x.answer()
	case ResetBefore:
		x.reset()
	case Hang:
		x.readBody()
		<-ctx.Done()
		x.abort()
	case Late:
		x.late()
	default:
		x.pass()
	}
}

func (x *exchange) fault() Fault {
	if x.t.fault == nil {
		return NoFault
	}
	return x.t.fault.Fault
}

// abort ends the exchange without an answer.
func (x *exchange) abort() {
	x.p.counter.add(x.op, Count{Errors: 1})
	panic(http.ErrAbortHandler)
}

// reset ends the connection with an RST.
func (x *exchange) reset() {
	x.p.counter.add(x.op, Count{Errors: 1})
	x.breakOff()
}

func (x *exchange) breakOff() {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

// readBody reads the request's body and drops it, so that the client has sent it all.
func (x *exchange) readBody() {
	_, _ = io.Copy(io.Discard, x.body())
}

// body is the request's, paced and counted.
func (x *exchange) body() io.Reader {
	return &countedReader{r: x.r.Body, x: x, pace: x.pace()}
}

// answer answers in place of the server.
func (x *exchange) answer() {
	x.readBody()
	status, code := x.t.fault.Status, x.t.fault.Code
	if status == 0 {
		status = http.StatusServiceUnavailable
	}
	if code == "" {
		code = usualCode(x.p.kind, status)
	}
	body, kind := errorBody(x.p.kind, status, code)
	if b := x.t.fault.Body; b != "" {
		body, kind = b, "text/plain"
	}
	h := x.w.Header()
	h.Set("Content-Type", kind)
	if a := x.t.fault.RetryAfter; a > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((a+time.Second-1)/time.Second), 10))
	}
	x.setHeaders(h)
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = io.WriteString(x.w, body)
	}
	x.p.counter.add(x.op, Count{Errors: 1})
}

func (x *exchange) setHeaders(h http.Header) {
	for name, v := range x.t.header {
		if v == "" {
			h.Del(name)
		} else {
			h.Set(name, v)
		}
	}
}

func usualCode(k Kind, status int) string {
	if k == GCS {
		switch status {
		case http.StatusTooManyRequests:
			return "rateLimitExceeded"
		default:
			return "backendError"
		}
	}
	switch status {
	case http.StatusServiceUnavailable:
		return "SlowDown"
	case http.StatusTooManyRequests:
		return "TooManyRequests"
	case http.StatusForbidden:
		return "AccessDenied"
	default:
		return "InternalError"
	}
}

func errorBody(k Kind, status int, code string) (body, contentType string) {
	const message = "injected by the proxy"
	if k == GCS {
		return fmt.Sprintf(`{"error":{"code":%d,"message":%q,"errors":[{"domain":"global","reason":%q,"message":%q}]}}`,
			status, message, code, message), "application/json; charset=UTF-8"
	}
	return fmt.Sprintf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message><RequestId>cloudtest</RequestId></Error>",
		code, message), "application/xml"
}

// late breaks the connection off and passes the request on later.
func (x *exchange) late() {
	body, err := io.ReadAll(x.body())
	if err != nil {
		x.abort()
	}
	x.reset()
	_ = pause(x.p.ctx, x.t.fault.Delay)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.p.ctx), startTimeout)
	defer cancel()
	res, err := x.roundTrip(ctx, strings.NewReader(string(body)))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}

// roundTrip passes the request on.
func (x *exchange) roundTrip(ctx context.Context, body io.Reader) (*http.Response, error) {
	out := x.r.Clone(ctx)
	out.RequestURI = ""
	// Opaque is sent as it is, so the path arrives in the encoding that was signed.
	path, _, _ := strings.Cut(x.r.RequestURI, "?")
	out.URL = &url.URL{Scheme: x.p.upstream.Scheme, Host: x.p.upstream.Host, Opaque: path, RawQuery: x.r.URL.RawQuery}
	if strings.HasPrefix(path, "//") || !strings.HasPrefix(path, "/") {
		out.URL.Opaque, out.URL.Path, out.URL.RawPath = "", x.r.URL.Path, x.r.URL.RawPath
	}
	out.Body = io.NopCloser(body)
	if out.ContentLength == 0 {
		out.Body = http.NoBody
	}
	removeHopByHop(out.Header)
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // else net/http sends its own
	}
	x.p.counter.add(x.op, Count{Passed: 1})
	if x.p.uploads == nil {
		return x.p.transport.RoundTrip(out)
	}
	end := x.p.uploads.begin(x.q)
	res, err := x.p.transport.RoundTrip(out)
	end(res, err)
	return res, err
}

func removeHopByHop(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		h.Del(name)
	}
}

// pass lets the server answer and passes that on.
func (x *exchange) pass() {
	ctx := x.r.Context()
	res, err := x.roundTrip(ctx, x.body())
	if err != nil {
		if ctx.Err() != nil {
			x.abort()
		}
		x.p.counter.add(x.op, Count{Errors: 1})
		http.Error(x.w, "proxy: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = res.Body.Close() }()
	switch x.fault() {
	case ResetAfter:
		_, _ = io.Copy(io.Discard, res.Body)
		x.reset()
		return
	case HangAfter:
		_, _ = io.Copy(io.Discard, res.Body)
		<-ctx.Done()
		x.abort()
	default:
	}
	if res.StatusCode >= http.StatusBadRequest {
		x.p.counter.add(x.op, Count{Errors: 1})
	}
	x.sendHeader(res)
	x.sendBody(res)
}

func (x *exchange) sendHeader(res *http.Response) {
	h := x.w.Header()
	maps.Copy(h, res.Header)
	removeHopByHop(h)
	if res.ContentLength >= 0 {
		n := res.ContentLength
		if x.fault() == Shorten && x.r.Method != http.MethodHead {
			n = min(n, x.t.fault.At)
		}
		h.Set("Content-Length", strconv.FormatInt(n, 10))
	}
	x.setHeaders(h)
	x.w.WriteHeader(res.StatusCode)
}

// sendBody passes the answer's body on, up to where a fault breaks it.
func (x *exchange) sendBody(res *http.Response) {
	var src io.Reader = res.Body
	fault, at := x.fault(), int64(0)
	if fault >= Truncate {
		at = x.t.fault.At
	}
	switch fault {
	case Truncate, ResetBody, Stall, Shorten:
		src = io.LimitReader(res.Body, at)
	case Flip:
		src = &flipper{r: res.Body, at: at}
	default:
	}
	if n, err := strconv.ParseInt(x.w.Header().Get("Content-Length"), 10, 64); err == nil {
		src = io.LimitReader(src, n) // a lie may be shorter than the truth
	}
	pace, out := x.pace(), http.NewResponseController(x.w)
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if e := pace.after(x.r.Context(), n); e != nil {
				x.abort()
			}
			if _, e := x.w.Write(buf[:n]); e != nil {
				x.abort() // the client went away
			}
			_ = out.Flush()
			x.p.counter.add(x.op, Count{Out: int64(n)})
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			x.abort()
		}
	}
	switch fault {
	case Truncate, ResetBody, Stall:
		x.breakBody(fault)
	default:
	}
}

func (x *exchange) breakBody(f Fault) {
	switch f {
	case ResetBody:
		x.reset()
	case Stall:
		<-x.r.Context().Done()
		x.abort()
	default:
		x.abort()
	}
}

// pace of one body in one direction.
func (x *exchange) pace() *pacer { return &pacer{perSecond: x.t.bandwidth} }

// pacer lets bytes pass no faster than a bandwidth.
type pacer struct {
	perSecond int64
	start     time.Time
	passed    int64
}

// after waits until n more bytes may have passed.
func (p *pacer) after(ctx context.Context, n int) error {
	if p.perSecond == 0 {
		return nil
	}
	now := time.Now() //nolint:forbidigo // a proxy of real connections paces by real time
	if p.start.IsZero() {
		p.start = now
	}
	p.passed += int64(n)
	due := p.start.Add(time.Duration(float64(p.passed) / float64(p.perSecond) * float64(time.Second)))
	// Not each chunk by itself: timers are late by up to a millisecond.
	if d := due.Sub(now); d > time.Millisecond {
		return pause(ctx, d)
	}
	return nil
}

// countedReader is a request's body, paced and counted.
type countedReader struct {
	r    io.Reader
	x    *exchange
	pace *pacer
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if n > 0 {
		c.x.p.counter.add(c.x.op, Count{In: int64(n)})
		if e := c.pace.after(c.x.r.Context(), n); e != nil && err == nil {
			err = e
		}
	}
	return n, err
}

// flipper changes a bit of one byte.
type flipper struct {
	r      io.Reader
	at     int64
	passed int64
}

func (f *flipper) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if i := f.at - f.passed; i >= 0 && i < int64(n) {
		b[i] ^= 1
	}
	f.passed += int64(n)
	return n, err
}
