package engine

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
)

// What follows copies objects of which the cluster keeps nothing: their bytes pass
// through memory, or stay at the remote altogether.

const (
	// pastMemory bounds the bytes that are on their way past the disks of a node.
	pastMemory = 192 << 20
	// pastUsual is the piece whose memory is used again and again.
	pastUsual = 16 << 20
	// pastPiece is the most of an object that is in memory as one. What is written in
	// larger ones is copied the usual way.
	pastPiece = 32 << 20
)

// pastSource is what is copied, from wherever it is.
type pastSource struct {
	rec   core.Record // without data
	sum   []byte      // MD5 of the whole, if the remote said so
	there bool        // at its remote
	// open opens a run of the bytes of the version that rec is of.
	open func(ctx context.Context, off, length int64) (io.ReadCloser, error)
}

// sendPast is copyOnceToRemote that keeps nothing, with the object that the remote
// has then. ok says that it could do that.
func (n *Node) sendPast(ctx context.Context, t *CopyTask, to *remoteBucket, c core.RemoteCondition) (out core.RemoteObject, why string, ok bool, err error) {
	if out, why, ok, err = n.copyThere(ctx, t, to, c); ok || err != nil || why != "" {
		return out, why, true, err
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	src, first, why, err := n.openPast(ctx, t)
	if err != nil || why != "" {
		return out, why, true, err
	}
	defer func() { _ = first.Close() }()
	rec := marked(t, &src.rec)
	p := &passing{node: n, to: to, key: t.ToKey, src: src, rec: &rec, cond: c, giveUp: giveUp}
	up, parts := to.client.(core.RemoteUploader)
	if parts {
		p.plan = remote.PlanParts(&rec, to.client.Abilities())
	}
	for _, k := range p.plan {
		if k > pastPiece {
			return out, "", false, nil
		}
	}
	switch {
	case p.plan != nil:
		out, err = p.upload(ctx, up, first)
	case rec.Size <= pastPiece:
		out, err = p.put(ctx, first)
	default:
		_ = first.Close()
		out, err = p.stream(ctx)
	}
	out.Size = rec.Size
	return out, "", true, remoteError(ctx, err)
}

// marked is what is said of a task's copy.
func marked(t *CopyTask, src *core.Record) core.Record {
	rec := core.Record{Size: src.Size}
	describeCopy(&rec, src, &core.CopyOptions{Put: core.PutOptions{Origin: t.origin()}})
	if rec.Meta == nil {
		rec.Meta = map[string]string{}
	}
	rec.Meta[originMeta] = originMark(t.origin())
	return rec
}

// copyThere has a remote copy an object itself, where both ends are reached by the same
// client. ok says that it has.
func (n *Node) copyThere(ctx context.Context, t *CopyTask, to *remoteBucket, c core.RemoteCondition) (out core.RemoteObject, why string, ok bool, err error) {
	copies, can := to.client.(core.RemoteCopier)
	if !can || !t.From.Name.Remote() {
		return out, "", false, nil
	}
	from, err := n.remote(&t.From)
	if err != nil || from.client != to.client {
		return out, "", false, err
	}
	o, err := from.head(ctx, t.Key)
	switch {
	case errors.Is(err, core.ErrNotFound):
		return out, sourceRemoved, false, nil
	case err != nil:
		return out, "", false, err
	case t.Source != "" && string(o.Version) != t.Source:
		return out, sourceReplaced, false, nil
	}
	src := recordOfRemote(&o, t.To.Policy.Scheme)
	rec := marked(t, &src)
	ctx, cancel := sending(ctx, o.Size)
	defer cancel()
	out, err = copies.Copy(ctx, from.name, t.Key, o.Version, to.name, t.ToKey, core.RemotePut{
		Size: o.Size, Headers: rec.Headers, Meta: rec.Meta, Tags: rec.Tags, If: c,
	})
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, core.ErrInvalid) || errors.Is(err, core.ErrPermission) {
		return out, "", false, nil // its bytes can still be read and written
	}
	out.Size = o.Size
	return out, "", err == nil, remoteError(ctx, err)
}

// openPast opens the source of a task: the version that was listed, here if it is
// present, or at the remote. first are its bytes from the beginning, up to pastPiece.
// why says why there is none such.
func (n *Node) openPast(ctx context.Context, t *CopyTask) (src *pastSource, first io.ReadCloser, why string, err error) {
	here := !t.From.Name.Remote()
	if !here {
		f, err := n.remoteRow(ctx, n.SlotOf(t.From.ID, t.Key), objectName{t.From.ID, t.Key}, false)
		if err != nil {
			return nil, nil, "", err
		}
		here = t.Source != "" && holdsVersion(f, t.Source)
	}
	if !here {
		return n.openThere(ctx, t)
	}
	obj, why, err := n.openListed(ctx, &t.From, t.Key, t.Source)
	if err != nil || why != "" {
		return nil, nil, why, err
	}
	src = &pastSource{rec: obj.Record}
	src.rec.Inline, src.rec.Extents = nil, nil
	is := ContentOf(&obj.Record)
	src.open = func(ctx context.Context, off, length int64) (io.ReadCloser, error) {
		o, err := n.open(ctx, &t.From, t.Key, core.GetOptions{Range: &core.ByteRange{Start: off, End: off + length - 1}}, (*core.Conditions).CheckRead)
		if err != nil {
			return nil, err
		}
		if ContentOf(&o.Record) != is {
			return nil, errors.Join(fmt.Errorf("%s/%s was replaced while it was copied: %w", t.From.Name, t.Key, core.ErrUnavailable), o.Body.Close())
		}
		return o.Body, nil
	}
	return src, obj.Body, "", nil
}

// openSource opens a task's source, of which nothing is kept that is not here yet, if
// the task says so.
func (n *Node) openSource(ctx context.Context, t *CopyTask) (*core.Object, string, error) {
	if !t.NoCache || !t.From.Name.Remote() {
		return n.openListed(ctx, &t.From, t.Key, t.Source)
	}
	src, first, why, err := n.openPast(ctx, t)
	if err != nil || why != "" {
		return nil, why, err
	}
	obj := &core.Object{ObjectInfo: info(&t.From, t.Key, &src.rec, core.Version{}), Length: src.rec.Size, Body: first}
	if src.rec.Size > pastPiece && src.there {
		_ = first.Close()
		obj.Body, err = src.open(ctx, 0, src.rec.Size)
	}
	return obj, "", err
}

// openThere opens a task's source at its remote.
func (n *Node) openThere(ctx context.Context, t *CopyTask) (*pastSource, io.ReadCloser, string, error) {
	b, err := n.remote(&t.From)
	if err != nil {
		return nil, nil, "", err
	}
	get := func(ctx context.Context, off, length int64, v core.RemoteVersion) (core.RemoteObject, io.ReadCloser, error) {
		o, body, err := b.client.Get(ctx, b.name, t.Key, core.RemoteGet{Offset: off, Length: length, Version: v})
		return o, body, remoteError(ctx, err)
	}
	o, body, err := get(ctx, 0, pastPiece, core.RemoteVersion(t.Source))
	if errors.Is(err, core.ErrRange) {
		o, err = b.client.Head(ctx, b.name, t.Key)
		if body = io.NopCloser(bytes.NewReader(nil)); err == nil && o.Size > 0 {
			err = fmt.Errorf("the remote refuses a range of an object of %d bytes: %w", o.Size, core.ErrUnavailable)
		}
	}
	if err == nil {
		if err = b.tags(ctx, t.Key, &o); err != nil {
			_ = body.Close()
		}
	}
	switch {
	case errors.Is(err, core.ErrNotFound):
		return nil, nil, sourceRemoved, nil
	case errors.Is(err, core.ErrPrecondition):
		return nil, nil, sourceReplaced, nil
	case err != nil:
		return nil, nil, "", err
	}
	if t.Source != "" && string(o.Version) != t.Source {
		_ = body.Close()
		return nil, nil, sourceReplaced, nil
	}
	src := &pastSource{rec: recordOfRemote(&o, t.From.Policy.Scheme), sum: o.MD5, there: true}
	src.open = func(ctx context.Context, off, length int64) (io.ReadCloser, error) {
		_, body, err := get(ctx, off, length, o.Version)
		return body, err
	}
	return src, body, "", nil
}

// passing is one object on its way.
type passing struct {
	node *Node
	to   *remoteBucket
	key  string
	src  *pastSource
	rec  *core.Record
	cond core.RemoteCondition
	plan []int64
	// giveUp ends all that is under way for the object.
	giveUp context.CancelCauseFunc
}

// piece brings a run of the object into memory and hands it to send: from first, if
// that is not nil, which begins there.
func (p *passing) piece(ctx context.Context, first io.Reader, off, length int64, send func(o core.RemotePut) error) error {
	room := p.node.remotes.past
	data, err := room.acquire(ctx, int(length))
	if err != nil {
		return fmt.Errorf("waiting for memory: %w", err)
	}
	defer room.release(data)
	if first == nil {
		body, err := p.src.open(ctx, off, length)
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		first = body
	}
	if err := p.read(ctx, first, data); err != nil {
		return fmt.Errorf("bytes %d to %d of the source: %w: %w", off, off+length, core.ErrUnavailable, err)
	}
	sum := md5.Sum(data) //nolint:gosec // S3's ETag
	if length == p.src.rec.Size && p.src.sum != nil && !bytes.Equal(sum[:], p.src.sum) {
		return fmt.Errorf("the source's MD5 is not what its remote says: %w", core.ErrCorrupt)
	}
	l := &lent{data: data}
	defer l.end()
	return send(core.RemotePut{
		Size: length, MD5: sum[:], Headers: p.rec.Headers, Meta: p.rec.Meta, Tags: p.rec.Tags,
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(&lentReader{l: l}), nil },
	})
}

// lent are bytes whose memory is used for others after end. Who sends a request may
// still read its body when it has been called off: then it gets an error.
type lent struct {
	mu   sync.RWMutex
	data []byte // nil at the end
	over bool
}

var errLentNoMore = errors.New("the request has ended")

func (l *lent) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data, l.over = nil, true
}

// lentReader reads lent bytes from their beginning.
type lentReader struct {
	l   *lent
	off int
}

// Read is part of io.Reader.
func (r *lentReader) Read(p []byte) (int, error) {
	r.l.mu.RLock()
	defer r.l.mu.RUnlock()
	switch {
	case r.l.over:
		return 0, errLentNoMore
	case r.off == len(r.l.data):
		return 0, io.EOF
	}
	n := copy(p, r.l.data[r.off:])
	r.off += n
	return n, nil
}

// read fills data, unless nothing comes for too long.
func (p *passing) read(ctx context.Context, r io.Reader, data []byte) error {
	clock := p.node.clock
	var last atomic.Int64 // core.Instant of the last progress
	last.Store(int64(clock.Boot()))
	ctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() {
		for clock.Wait(ctx, remotePatience/4) == nil {
			if clock.Boot().Sub(core.Instant(last.Load())) > remotePatience {
				p.giveUp(errSilentRemote)
				return
			}
		}
	})
	for len(data) > 0 {
		k, err := r.Read(data)
		if data = data[k:]; len(data) == 0 {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		last.Store(int64(clock.Boot()))
	}
	return nil
}

// sending bounds a request that sends so many bytes.
func sending(ctx context.Context, bytes int64) (context.Context, context.CancelFunc) {
	const slowest = 128 << 10 // bytes a second
	return context.WithTimeoutCause(ctx, remotePatience+time.Duration(bytes/slowest)*time.Second, errSilentRemote)
}

// put writes the object in one request.
func (p *passing) put(ctx context.Context, first io.Reader) (out core.RemoteObject, err error) {
	err = p.piece(ctx, first, 0, p.rec.Size, func(o core.RemotePut) (err error) {
		ctx, cancel := sending(ctx, o.Size)
		defer cancel()
		o.If = p.cond
		out, err = p.to.client.Put(ctx, p.to.name, p.key, o)
		return err
	})
	return out, err
}

// stream writes a large object in one request, to a remote that takes no parts, as its
// bytes come.
func (p *passing) stream(ctx context.Context) (core.RemoteObject, error) {
	ctx, cancel := sending(ctx, p.rec.Size)
	defer cancel()
	var sum hash.Hash
	out, err := p.to.client.Put(ctx, p.to.name, p.key, core.RemotePut{
		Size: p.rec.Size, MD5: p.src.sum, Headers: p.rec.Headers, Meta: p.rec.Meta, Tags: p.rec.Tags, If: p.cond,
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			body, err := p.src.open(ctx, 0, p.rec.Size)
			if err != nil {
				return nil, err
			}
			sum = md5.New() //nolint:gosec // S3's ETag
			return &summedBody{ReadCloser: body, sum: sum}, nil
		},
	})
	if err != nil || len(out.MD5) == 0 || bytes.Equal(out.MD5, sum.Sum(nil)) {
		return out, err
	}
	c := core.RemoteCondition{}
	if p.to.client.Abilities().DeleteIf {
		c.Version = out.Version
	}
	err = fmt.Errorf("%s/%s: the remote has other bytes than were sent: %w", p.to.Name, p.key, core.ErrCorrupt)
	return out, errors.Join(err, p.to.client.Delete(ctx, p.to.name, p.key, c))
}

// upload writes the object in parts, some at a time.
func (p *passing) upload(ctx context.Context, up core.RemoteUploader, first io.Reader) (core.RemoteObject, error) {
	none := core.RemoteObject{}
	id, err := up.CreateUpload(ctx, p.to.name, p.key, core.RemotePut{Size: p.rec.Size, Headers: p.rec.Headers, Meta: p.rec.Meta, Tags: p.rec.Tags})
	if err != nil {
		return none, fmt.Errorf("%w: %w", core.ErrUnavailable, err) // nothing is there under the key
	}
	parts := make([]core.RemotePart, len(p.plan))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(remoteParts)
	var off int64
	for i, length := range p.plan {
		at, from := off, first
		off, first = off+length, nil
		group.Go(func() error {
			return p.piece(gctx, from, at, length, func(o core.RemotePut) (err error) {
				ctx, cancel := sending(gctx, o.Size)
				defer cancel()
				o.Headers, o.Meta, o.Tags = nil, nil, nil
				parts[i], err = up.PutPart(ctx, p.to.name, p.key, id, i+1, o)
				return err
			})
		})
	}
	if err = group.Wait(); err == nil {
		out, done := up.CompleteUpload(ctx, p.to.name, p.key, id, parts, p.cond)
		if done == nil || errors.Is(done, core.ErrUnknownOutcome) {
			return out, done
		}
		err = done
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortWithin)
	defer cancel()
	if gone := up.AbortUpload(ctx, p.to.name, p.key, id); gone != nil {
		p.node.log.Info("an upload is left behind at a remote", "bucket", p.to.Name.String(), "key", p.key, "upload", id, "err", gone)
	}
	return none, err
}
