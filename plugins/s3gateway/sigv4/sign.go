package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Credentials sign requests.
type Credentials struct{ AccessKey, Secret string }

// PayloadHash is what [Sign] takes for a body that is at hand.
func PayloadHash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// Sign signs a client's request as of now for a region and service, with its
// headers as they are: it sets X-Amz-Date, X-Amz-Content-Sha256 and
// Authorization, and signs the host, the content and range headers and all
// x-amz- headers. payload is the body's hash ([PayloadHash], [EmptyPayload]) or
// [UnsignedPayload]. Sign again before every attempt.
func Sign(r *http.Request, c Credentials, region, service, payload string, now time.Time) error {
	amzDate := now.UTC().Format(amzDateFormat)
	r.Header.Set("X-Amz-Date", amzDate)
	r.Header.Set("X-Amz-Content-Sha256", payload)
	names := []string{"host"}
	for name := range r.Header {
		switch lower := strings.ToLower(name); {
		case strings.HasPrefix(lower, "x-amz-"), lower == "content-type", lower == "content-md5", lower == "range":
			names = append(names, lower)
		}
	}
	slices.Sort(names)
	signedHeaders := strings.Join(names, ";")
	scope := amzDate[:8] + "/" + region + "/" + service + "/" + scopeEnd
	var s scratch
	if err := s.canonicalRequest(r, signedHeaders, payload); err != nil {
		return err
	}
	s.stringToSign(amzDate, scope)
	sig := deriveKey(c.Secret, amzDate[:8], region, service).sign(s.buf)
	r.Header.Set("Authorization", Algorithm+" Credential="+c.AccessKey+"/"+scope+",SignedHeaders="+signedHeaders+",Signature="+string(sig[:]))
	return nil
}
