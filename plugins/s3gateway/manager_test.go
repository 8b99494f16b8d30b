package s3gateway

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	tm "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
)

// The SDK's transfer manager uploads in parts, also what it cannot seek, and
// downloads by parts and by ranges.
func TestTransferManager(t *testing.T) {
	for _, tls := range []bool{false, true} {
		e := serve(t, nil, tls)
		b := e.bucket(t, "data")
		data := random(22<<20 + 1)
		m := tm.New(e.client(), func(o *tm.Options) { o.PartSizeBytes, o.MultipartUploadThreshold = 5<<20, 6<<20 })
		for name, body := range map[string]io.Reader{"seekable": bytes.NewReader(data), "stream": io.MultiReader(bytes.NewReader(data))} {
			up, err := m.UploadObject(t.Context(), &tm.UploadObjectInput{Bucket: &b, Key: aws.String(name), Body: body, ContentType: aws.String("text/x")})
			if err != nil {
				t.Fatalf("tls %v, upload %s: %v", tls, name, err)
			}
			info := e.wantStored(t, b, name, data)
			if len(info.Parts) != 5 || info.Headers["Content-Type"] != "text/x" || aws.ToString(up.ETag) != `"`+info.ETag+`"` {
				t.Errorf("tls %v, upload %s: got %d parts, headers %v, ETag %s", tls, name, len(info.Parts), info.Headers, aws.ToString(up.ETag))
			}
			for _, how := range []tmtypes.GetObjectType{tmtypes.GetObjectParts, tmtypes.GetObjectRanges} {
				w := tmtypes.NewWriteAtBuffer(make([]byte, 0, len(data))) // else it grows, and copies, with each write
				_, err := m.DownloadObject(t.Context(), &tm.DownloadObjectInput{Bucket: &b, Key: aws.String(name), WriterAt: w},
					func(o *tm.Options) { o.GetObjectType = how })
				if err != nil || !bytes.Equal(w.Bytes(), data) {
					t.Errorf("tls %v, download %s by %v: got %d bytes, %v", tls, name, fmt.Sprint(how), len(w.Bytes()), err)
				}
			}
		}
	}
}
