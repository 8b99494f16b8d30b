package engine

import (
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
)

const (
	// remoteParts is how many parts of an object are sent at a time.
	remoteParts = 4
	// abortWithin bounds the tidying up at a remote.
	abortWithin = 10 * time.Second
)

// remoteWrite carries out what the machine of one write asks for.
type remoteWrite struct {
	task    *writeTask
	node    *Node
	bucket  *remoteBucket
	intent  *remote.Intent
	machine *remote.Machine
	version core.Version // of the intent's row, zero for none
	first   *mutation    // the write as it was asked for, until it is committed
	plan    []int64      // of the parts, nil for one request
	parts   []core.RemotePart
	result  writeResult
	over    bool // it was refused before it began
}

// options are what the machine of an intent can count on.
func (x *remoteWrite) options(in *remote.Intent) remote.Options {
	name := x.task.name
	// What was used here and is not present has been evicted, as a rule.
	o := remote.Options{Abilities: x.bucket.client.Abilities(), HeadFirst: x.node.accesses.knows(name.bucket, name.key)}
	if in.Operation == remote.Write {
		if _, ok := x.bucket.client.(core.RemoteUploader); ok {
			x.plan = remote.PlanParts(in.Record, o.Abilities)
		}
		o.Parts, o.Window = x.plan != nil, remote.Window(in.Record.Size)
	}
	return o
}

// drive does what the machine asks for until the write has ended.
func (x *remoteWrite) drive(ctx context.Context) error {
	ctx = x.node.countFor(ctx, jobOf(x.intent.Record))
	var last remote.Answer
	for {
		do := x.machine.Next(x.node.clock.Now(), last)
		last = remote.Answer{}
		switch {
		case do.Kind == remote.Announce:
			if err := x.announce(ctx, &do); err != nil || x.over {
				return err
			}
		case do.Kind == remote.Wait:
			if err := x.node.clock.Wait(ctx, do.At.Sub(x.node.clock.Now())); err != nil {
				return err
			}
		case do.Kind.Ends():
			err := x.end(ctx, &do)
			x.abort(ctx, do.Abort)
			return err
		default:
			last = x.request(ctx, &do)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
}

// request makes a request to the remote.
func (x *remoteWrite) request(ctx context.Context, do *remote.Action) (a remote.Answer) {
	key, name, client := x.task.name.key, x.bucket.name, x.bucket.client
	if !do.Until.IsZero() {
		left := do.Until.Sub(x.node.clock.Now())
		if left <= 0 {
			return remote.Answer{Err: remote.ErrLate}
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	up, _ := client.(core.RemoteUploader)
	switch do.Kind {
	case remote.Head:
		ctx, cancel := context.WithTimeout(ctx, remotePatience)
		defer cancel()
		a.Object, a.Err = client.Head(ctx, name, key)
		if a.Err != nil && ctx.Err() != nil && !errors.Is(a.Err, core.ErrNotFound) {
			a.Err = fmt.Errorf("%w (%w)", errSilentRemote, a.Err)
		}
	case remote.Put:
		p := x.body(0, x.intent.Record.Size)
		p.If = do.If
		if sum, err := hex.DecodeString(x.intent.Record.ETag); err == nil && len(sum) == md5.Size {
			p.MD5 = sum
		}
		a.Object, a.Err = client.Put(ctx, name, key, p)
	case remote.Delete:
		a.Err = client.Delete(ctx, name, key, do.If)
	case remote.CreateUpload:
		a.Upload, a.Err = up.CreateUpload(ctx, name, key, x.body(0, x.intent.Record.Size))
	case remote.PutParts:
		a.ETag, a.Err = x.putParts(ctx, up, do.Upload)
	case remote.Complete:
		a.Object, a.Err = up.CompleteUpload(ctx, name, key, do.Upload, x.parts, do.If)
	}
	if a.Err != nil {
		x.node.log.Debug("request to a remote", "bucket", x.bucket.Name.String(), "key", key, "request", do.Kind.String(), "err", a.Err)
	}
	return a
}

// body is a run of the bytes that are written, with what is said of the object.
func (x *remoteWrite) body(off, length int64) core.RemotePut {
	rec := x.intent.Record
	return core.RemotePut{
		Size: length, Headers: rec.Headers, Meta: rec.Meta, Tags: rec.Tags,
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			f := &found{rec: rec}
			if length == 0 {
				f.rec = &core.Record{Inline: []byte{}}
			}
			return x.node.body(ctx, &x.bucket.Bucket, x.task.name.key, f, off, length, false)
		},
	}
}

// putParts sends all parts, some at a time, and returns the ETag that the whole
// will have.
func (x *remoteWrite) putParts(ctx context.Context, up core.RemoteUploader, upload string) (string, error) {
	parts := make([]core.RemotePart, len(x.plan))
	sums := make([][]byte, len(x.plan))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(remoteParts)
	var off int64
	for i, length := range x.plan {
		at := off
		off += length
		group.Go(func() error {
			p := x.body(at, length)
			open := p.Open
			var sum hash.Hash
			p.Open = func(ctx context.Context) (io.ReadCloser, error) {
				src, err := open(ctx)
				if err != nil {
					return nil, err
				}
				sum = md5.New() //nolint:gosec // S3's ETag
				return &summedBody{ReadCloser: src, sum: sum}, nil
			}
			part, err := up.PutPart(ctx, x.bucket.name, x.task.name.key, upload, i+1, p)
			if err != nil {
				return fmt.Errorf("part %d: %w", i+1, err)
			}
			parts[i], sums[i] = part, sum.Sum(nil)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	x.parts = parts
	return remote.ETagOfParts(sums), nil
}

// summedBody computes the MD5 of what is read.
type summedBody struct {
	io.ReadCloser
	sum hash.Hash
}

// Read is part of io.Reader.
func (b *summedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	_, _ = b.sum.Write(p[:n])
	return n, err
}

// abort removes uploads that came to nothing, if that is easy.
func (x *remoteWrite) abort(ctx context.Context, uploads []string) {
	up, ok := x.bucket.client.(core.RemoteUploader)
	if !ok || len(uploads) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, abortWithin)
	defer cancel()
	for _, id := range uploads {
		if err := up.AbortUpload(ctx, x.bucket.name, x.task.name.key, id); err != nil {
			x.node.log.Info("an upload is left behind at a remote", "bucket", x.bucket.Name.String(), "key", x.task.name.key, "upload", id, "err", err)
		}
	}
}

// announce commits the intent.
func (x *remoteWrite) announce(ctx context.Context, do *remote.Action) error {
	rec := do.Intent.Record
	if rec == nil {
		rec = &core.Record{}
	}
	n := x.node
	err := n.writePlaced(ctx, &x.bucket.Bucket, x.task.name.key, rec, func() error {
		return x.write(ctx, core.Entry{}, do.Intent, false)
	})
	if err == nil {
		x.first, x.intent = nil, do.Intent
		return nil
	}
	if x.first != nil && !errors.Is(err, errReplaced) && !retryable(err) && !isPlaceAgain(err) {
		x.result, x.over = writeResult{refused: err}, true // before it began
		return nil
	}
	return err
}

// end commits how the write ended, with the answer.
func (x *remoteWrite) end(ctx context.Context, do *remote.Action) error {
	n, k := x.node, objectKey(x.task.name.bucket, x.task.name.key)
	e := core.Entry{Request: x.intent.Request}
	staged, err := x.upload(ctx)
	if err != nil {
		return err
	}
	spare := false
	st := &stored{}
	if do.Kind == remote.Commit {
		var brief core.Record
		if do.Record != nil {
			st.rec = *do.Record
			if len(st.rec.Inline) > inlineInRecord {
				st.data, st.rec.Inline = st.rec.Inline, nil
			}
			brief = st.rec
			brief.Inline, brief.Extents = nil, nil
		} else if x.intent.Record != nil {
			brief = *x.intent.Result(do.Object)
			brief.Inline, brief.Extents = nil, nil
		}
		e.Answer = core.AppendRecord([]byte{answerDone}, &brief)
		e.Rows = staged
	} else {
		e.Answer = appendRefusal([]byte{answerRemote}, do.Err)
		spare = len(staged) > 0 // the parts still have them
	}
	_, _, rec, err := x.task.intentRow(ctx)
	if err != nil {
		return err
	}
	if rec != nil && do.Record == nil && (do.Kind != remote.Cancel || do.Outdated(rec)) {
		e.Rows = append(e.Rows, core.Row{RowKey: k, Deleted: true})
	}
	more := e.Rows
	return n.writePlaced(ctx, &x.bucket.Bucket, k.Key, &st.rec, func() error {
		e.Rows = more
		if do.Record != nil {
			e.Rows = append(objectRows(k.Bucket, k.Key, st), more...)
			n.accesses.note(k.Bucket, k.Key)
		} else if do.Kind == remote.Commit {
			n.accesses.forget(k.Bucket, k.Key)
		}
		return x.write(ctx, e, do.Left, spare)
	})
}

// upload are the tombstones of the client's multipart upload whose parts the write
// is made of, if it is.
func (x *remoteWrite) upload(ctx context.Context) ([]core.Row, error) {
	b, key := x.task.name.bucket, x.task.name.key
	if x.intent.Record == nil || len(x.intent.Record.Extents) == 0 {
		return nil, nil
	}
	staged := map[location]bool{}
	locations(x.intent.Record, staged)
	rep, err := x.node.scanOwned(ctx, &scanRequest{
		scan:  core.Scan{Bucket: b, Space: core.SpacePart, Prefix: key, Before: key + "\x00"},
		limit: maxPartsScanned, only: []core.SlotID{x.task.slot},
	})
	if err == nil && (len(rep.held) != 1 || rep.more) {
		err = fmt.Errorf("slot %d changed hands: %w", x.task.slot, core.ErrUnavailable)
	}
	if err != nil {
		return nil, err
	}
	for i := range rep.found {
		named := map[location]bool{}
		if part := recordOf(&rep.found[i].Row); part != nil {
			locations(part, named)
		}
		for l := range named {
			if !staged[l] {
				continue
			}
			id, _, _ := strings.Cut(rep.found[i].Sub, "/")
			all, err := x.node.allParts(ctx, b, key, id)
			return x.node.endOfUpload(b, key, id, all), err
		}
	}
	return nil, nil
}

// write commits an entry that leaves the intent as it is given, nil for none, if
// its row is still the one that is known. An entry with an answer is the last.
func (x *remoteWrite) write(ctx context.Context, e core.Entry, in *remote.Intent, spare bool) error {
	n, k := x.node, intentKey(x.task.name)
	m := &mutation{slot: x.task.slot, need: needOf(&x.bucket.Bucket), task: true, spare: spare}
	m.checks = []check{{kind: checkVersion, row: k, version: x.version}}
	if x.first != nil {
		m.checks = append(m.checks, x.first.checks...)
	}
	row := core.Row{RowKey: k, Deleted: in == nil}
	if in != nil {
		row.Value = remote.AppendIntent(nil, in)
	}
	m.entry = e
	m.entry.Rows = append([]core.Row{row}, e.Rows...)
	out, err := n.mutate(ctx, m)
	if err != nil {
		if e.Answer != nil && !isPlaceAgain(err) {
			if out, known, why := n.answerTo(ctx, x.task.slot, e.Request); known {
				x.result = writeResult{out, why}
				return nil
			}
		}
		return err
	}
	x.version = out.version
	if in == nil {
		x.version = core.Version{}
	}
	if e.Answer != nil {
		x.result.out = out
		if e.Answer[0] == answerRemote {
			x.result = writeResult{refused: parseRefusal(e.Answer[1:])}
		}
	}
	return nil
}
