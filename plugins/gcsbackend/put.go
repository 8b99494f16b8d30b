package gcsbackend

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/remotehttp"
)

// resource is an object as the JSON interface has it ("Objects").
type resource struct {
	Name               string            `json:"name,omitempty"`
	Size               int64             `json:"size,string,omitempty"`
	Generation         int64             `json:"generation,string,omitempty"`
	Metageneration     int64             `json:"metageneration,string,omitempty"`
	Updated            time.Time         `json:"updated,omitzero"`
	MD5                []byte            `json:"md5Hash,omitempty"`
	CRC32C             []byte            `json:"crc32c,omitempty"`
	ContentType        string            `json:"contentType,omitempty"`
	ContentEncoding    string            `json:"contentEncoding,omitempty"`
	ContentLanguage    string            `json:"contentLanguage,omitempty"`
	ContentDisposition string            `json:"contentDisposition,omitempty"`
	CacheControl       string            `json:"cacheControl,omitempty"`
	StorageClass       string            `json:"storageClass,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
}

// attrs is the same in the library's form.
func (r *resource) attrs() *storage.ObjectAttrs {
	a := &storage.ObjectAttrs{
		Name: r.Name, Size: r.Size, Generation: r.Generation, Metageneration: r.Metageneration, Updated: r.Updated, MD5: r.MD5,
		ContentType: r.ContentType, ContentEncoding: r.ContentEncoding, ContentLanguage: r.ContentLanguage,
		ContentDisposition: r.ContentDisposition, CacheControl: r.CacheControl, StorageClass: r.StorageClass, Metadata: r.Metadata,
	}
	if len(r.CRC32C) == 4 {
		a.CRC32C = binary.BigEndian.Uint32(r.CRC32C)
	}
	return a
}

// put writes an object with the attributes a, in one request whose length is said
// before, so that no body that breaks off is taken for whole.
func (b *Backend) put(ctx context.Context, q request, bucket, key string, a storage.ObjectAttrs, o core.RemotePut) (*storage.ObjectAttrs, error) {
	if err := b.mayIf(bucket, key, o.If, b.Abilities().PutIf); err != nil {
		return nil, err
	}
	conds, ok := conditions(o.If)
	if !ok {
		return nil, fmt.Errorf("gs: %s: there is no version %q: %w", q.what, o.If.Version, core.ErrPrecondition)
	}
	body := &remotehttp.SendBody{Size: o.Size, Open: o.Open, Sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	boundary := strings.ToLower(rand.Text())
	body.Head, body.Tail = frame(boundary, resource{
		Name: key, ContentType: a.ContentType, ContentEncoding: a.ContentEncoding, ContentLanguage: a.ContentLanguage,
		ContentDisposition: a.ContentDisposition, CacheControl: a.CacheControl, StorageClass: a.StorageClass, Metadata: a.Metadata, MD5: o.MD5,
	})
	u := b.base
	u.Path, u.RawPath = "/upload/storage/v1/b/"+bucket+"/o", "/upload/storage/v1/b/"+url.PathEscape(bucket)+"/o"
	v := url.Values{"uploadType": {"multipart"}, "name": {key}, "projection": {"noAcl"}}
	switch {
	case conds.DoesNotExist:
		v.Set("ifGenerationMatch", "0")
	case conds.GenerationMatch != 0:
		v.Set("ifGenerationMatch", strconv.FormatInt(conds.GenerationMatch, 10))
		v.Set("ifMetagenerationMatch", strconv.FormatInt(conds.MetagenerationMatch, 10))
	}
	u.RawQuery = v.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("gs: %s: %w: %w", q.what, core.ErrInvalid, err)
	}
	req.Header.Set("Content-Type", "multipart/related; boundary="+boundary)
	if err := body.Attach(req); err != nil {
		return nil, fmt.Errorf("gs: %s: %w", q.what, err)
	}
	res, err := b.http.Do(req)
	if bad := body.Done(); bad != nil {
		if err == nil {
			_ = res.Body.Close()
		}
		return nil, fmt.Errorf("gs: %s: %w", q.what, bad)
	}
	if err != nil {
		return nil, q.failed(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, q.failed(refused(res))
	}
	return q.written(res, o.Size, body.Sum)
}

// written reads the answer to an upload of size bytes with the checksum sum.
func (q request) written(res *http.Response, size int64, sum hash.Hash) (*storage.ObjectAttrs, error) {
	var put resource
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&put); err != nil {
		return nil, q.failed(fmt.Errorf("the answer is no object: %w", err))
	}
	if put.Size != size || !bytes.Equal(put.CRC32C, sum.Sum(nil)) {
		return nil, q.failed(fmt.Errorf("%d bytes with CRC32C %x were sent, the answer says %d with %x", size, sum.Sum(nil), put.Size, put.CRC32C))
	}
	return put.attrs(), nil
}

// frame is what stands before and after an object in the body of an upload.
func frame(boundary string, r resource) (head, tail []byte) {
	kind := r.ContentType
	if kind == "" {
		kind = "application/octet-stream"
	}
	attrs, _ := json.Marshal(r) // strings and bytes always have JSON
	head = fmt.Appendf(nil, "--%s\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n%s\r\n--%s\r\nContent-Type: %s\r\n\r\n", boundary, attrs, boundary, kind)
	return head, []byte("\r\n--" + boundary + "--\r\n")
}

// crc32cChecksum is a checksum as S3 has it.
func crc32cChecksum(c uint32) core.Checksum {
	return core.Checksum{Algorithm: "CRC32C", Value: base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, c))}
}
