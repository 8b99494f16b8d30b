package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// The service protocol is that of NATS's micro services, so that `nats micro`
// lists, inspects and measures them. Its library is used for the forms only:
// it answers one request of an endpoint at a time and counts errors only of
// those, and our requests may wait for a job to end.

// Between request and answer, a node that works on a request for longer tells
// the client so, if the client asked for it; a client that hears nothing for
// silence gives the node up.
const (
	headerHeartbeat = "Shoal-Heartbeat"
	headerWorking   = "Shoal-Working"
	// headerLeaving says that the node ends without having done the work.
	headerLeaving = "Shoal-Leaving"
	heartbeat     = time.Second
	silence       = 3 * time.Second
)

// defaultLimit is the number of requests of one endpoint worked on at a time.
const defaultLimit = 64

type service struct {
	client *Client
	info   micro.Info
	start  time.Time

	mu    sync.Mutex
	stats []*micro.EndpointStats
	ended bool
	calls sync.WaitGroup // not added to once ended
}

// end waits for the handlers; requests that come later are ignored.
func (svc *service) end() {
	svc.mu.Lock()
	svc.ended = true
	svc.mu.Unlock()
	svc.calls.Wait()
}

// begin starts a handler unless the service has ended.
func (svc *service) begin(f func()) {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	if !svc.ended {
		svc.calls.Go(f)
	}
}

// Serve implements [bus.Services].
func (c *Client) Serve(ctx context.Context, s bus.Service) error {
	svc, err := c.newService(s)
	if err != nil {
		return err
	}
	var subs []*nats.Subscription
	defer svc.end()
	defer func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe()
		}
	}()
	add := func(sub *nats.Subscription, err error) error {
		if err != nil {
			return fmt.Errorf("bus service %s: %w", s.Name, c.translate(err))
		}
		subs = append(subs, sub)
		return nil
	}
	for _, verb := range []micro.Verb{micro.PingVerb, micro.InfoVerb, micro.StatsVerb} {
		for _, of := range [][2]string{{"", ""}, {s.Name, ""}, {s.Name, svc.info.ID}} {
			subject, err := micro.ControlSubject(verb, of[0], of[1])
			if err != nil {
				return fmt.Errorf("bus service %s: %w", s.Name, err)
			}
			if err := add(c.nc.Subscribe(subject, func(m *nats.Msg) { svc.control(verb, m) })); err != nil {
				return err
			}
		}
	}
	limit := s.Limit
	if limit == 0 {
		limit = defaultLimit
	}
	for i, e := range s.Endpoints {
		places := make(chan struct{}, limit)
		sub, err := c.nc.QueueSubscribe(e.Subject, micro.DefaultQueueGroup, func(m *nats.Msg) {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			svc.begin(func() {
				defer func() { <-places }()
				svc.serve(ctx, svc.stats[i], e, m)
			})
		})
		if err := add(sub, err); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case <-c.closed:
		return fmt.Errorf("bus service %s: the client was closed: %w", s.Name, core.ErrUnavailable)
	}
}

func (c *Client) newService(s bus.Service) (*service, error) {
	if s.Name == "" || s.Version == "" || len(s.Endpoints) == 0 {
		return nil, fmt.Errorf("bus service %q: name, version and endpoints are required: %w", s.Name, core.ErrInvalid)
	}
	metadata := s.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	svc := &service{client: c, start: time.Now().UTC(), info: micro.Info{ //nolint:forbidigo // shown to people only
		ServiceIdentity: micro.ServiceIdentity{Name: s.Name, ID: nuid.Next(), Version: s.Version, Metadata: metadata},
		Type:            micro.InfoResponseType, Description: s.Description,
	}}
	for _, e := range s.Endpoints {
		if e.Name == "" || e.Subject == "" || e.Handler == nil {
			return nil, fmt.Errorf("bus service %s: endpoint %q: name, subject and handler are required: %w", s.Name, e.Name, core.ErrInvalid)
		}
		svc.info.Endpoints = append(svc.info.Endpoints, micro.EndpointInfo{
			Name: e.Name, Subject: e.Subject, QueueGroup: micro.DefaultQueueGroup, Metadata: e.Metadata,
		})
		svc.stats = append(svc.stats, &micro.EndpointStats{Name: e.Name, Subject: e.Subject, QueueGroup: micro.DefaultQueueGroup})
	}
	return svc, nil
}

// control answers `nats micro ping`, `info` and `stats`.
func (svc *service) control(verb micro.Verb, m *nats.Msg) {
	var v any
	switch verb {
	case micro.PingVerb:
		v = micro.Ping{ServiceIdentity: svc.info.ServiceIdentity, Type: micro.PingResponseType}
	case micro.InfoVerb:
		v = svc.info
	case micro.StatsVerb:
		st := micro.Stats{ServiceIdentity: svc.info.ServiceIdentity, Type: micro.StatsResponseType, Started: svc.start}
		svc.mu.Lock()
		for _, e := range svc.stats {
			c := *e
			st.Endpoints = append(st.Endpoints, &c)
		}
		svc.mu.Unlock()
		v = st
	}
	b, err := json.Marshal(v)
	if err == nil {
		err = m.Respond(b)
	}
	if err != nil {
		svc.client.log.Debug("bus service not described", "err", err)
	}
}

// serve runs a handler and answers. ctx ends with the service.
func (svc *service) serve(ctx context.Context, st *micro.EndpointStats, e bus.Endpoint, m *nats.Msg) {
	began := time.Now() //nolint:forbidigo // statistics
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	patient := m.Header.Get(headerHeartbeat) != ""
	var beats sync.WaitGroup
	if patient {
		beats.Go(func() { svc.client.beat(call, m.Reply) })
	}
	v, err := e.Handler(call, m.Data)
	var body []byte
	if err == nil {
		body, err = json.Marshal(v)
	}
	cancel()
	beats.Wait() // the answer is the last word
	out := nats.NewMsg(m.Reply)
	out.Data = body
	switch {
	case err != nil && ctx.Err() != nil && patient:
		out.Header.Set(headerLeaving, "1")
	case err != nil:
		f := bus.FaultOf(err)
		out.Header.Set(micro.ErrorHeader, f.Message)
		out.Header.Set(micro.ErrorCodeHeader, strconv.Itoa(f.Status))
		out.Data = f.Encode()
	}
	if m.Reply != "" {
		if sent := svc.client.nc.PublishMsg(out); sent != nil {
			svc.client.log.Debug("bus request not answered", "subject", m.Subject, "err", sent)
		}
	}
	svc.mu.Lock()
	defer svc.mu.Unlock()
	st.NumRequests++
	st.ProcessingTime += time.Since(began) //nolint:forbidigo // statistics
	st.AverageProcessingTime = st.ProcessingTime / time.Duration(st.NumRequests)
	if err != nil {
		st.NumErrors++
		st.LastError = err.Error()
	}
}

// beat tells a client now and then that its request is being worked on.
func (c *Client) beat(ctx context.Context, reply string) {
	for {
		wait, cancel := context.WithTimeout(ctx, heartbeat)
		<-wait.Done()
		cancel()
		if ctx.Err() != nil {
			return
		}
		m := nats.NewMsg(reply)
		m.Header.Set(headerWorking, "1")
		_ = c.nc.PublishMsg(m)
	}
}

// Request implements [bus.Services].
func (c *Client) Request(ctx context.Context, subject string, request []byte) ([]byte, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	wait := backoff{20 * time.Millisecond, time.Second}
	for {
		m, err := c.ask(ctx, subject, request)
		if err == nil {
			return answer(m)
		}
		if errors.Is(err, nats.ErrMaxPayload) {
			return nil, fmt.Errorf("bus request %s: %d bytes: %w: %w", subject, len(request), core.ErrTooLarge, err)
		}
		if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubject) || !c.pause(ctx, wait.next()) {
			return nil, fmt.Errorf("bus request %s: %w", subject, c.unavailable(err))
		}
	}
}

// answer tells an answer from an error answer.
func answer(m *nats.Msg) ([]byte, error) {
	if m.Header.Get(micro.ErrorCodeHeader) == "" {
		return m.Data, nil
	}
	return nil, bus.DecodeFault(m.Data)
}

// ask sends the request once and waits for the answer as long as the node that
// has it gives signs of life.
func (c *Client) ask(ctx context.Context, subject string, request []byte) (*nats.Msg, error) {
	if err := c.usable(c.nc); err != nil {
		return nil, err
	}
	changed := c.change()
	inbox := c.nc.NewInbox()
	answers := make(chan *nats.Msg, 16)
	sub, err := c.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	m := nats.NewMsg(subject)
	m.Reply, m.Data = inbox, request
	m.Header.Set(headerHeartbeat, "1")
	if err := c.nc.PublishMsg(m); err != nil {
		return nil, err
	}
	for {
		quiet, cancel := context.WithTimeout(ctx, silence)
		var got *nats.Msg
		select {
		case got = <-answers:
		case <-changed:
			changed = c.change()
		case <-quiet.Done():
		}
		silent := quiet.Err() != nil
		cancel()
		switch {
		case got == nil && ctx.Err() != nil:
			return nil, ctx.Err()
		case got == nil && (silent || c.usable(c.nc) != nil):
			return nil, errSilent
		case got == nil:
		case got.Header.Get("Status") == "503":
			return nil, nats.ErrNoResponders
		case got.Header.Get(headerLeaving) != "":
			return nil, errSilent
		case got.Header.Get(headerWorking) == "":
			return got, nil
		}
	}
}

// errSilent says that the node that took a request, if one did, is gone.
var errSilent = errors.New("no sign of life from the node that was asked")
