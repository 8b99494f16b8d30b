package sigv4

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options configure a Verifier. Lookup and Now must be set.
type Options struct {
	// Region is the one region that a scope may name, by default us-east-1.
	Region string
	// Service is the service of the scope, by default s3.
	Service string
	// Lookup returns the secret of an access key. It is called once for each
	// request, from many goroutines.
	Lookup func(accessKey string) (secret string, ok bool)
	// Now is the server's time.
	Now func() time.Time
	// MaxSkew bounds how far a request's time may be from Now, by default
	// [DefaultMaxSkew].
	MaxSkew time.Duration
}

// Verifier verifies requests. It is safe for concurrent use.
type Verifier struct {
	o     Options
	keys  keyCache
	pool  sync.Pool // of *scratch
	bytes bodyPools
}

// NewVerifier returns a verifier.
func NewVerifier(o Options) *Verifier {
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Service == "" {
		o.Service = "s3"
	}
	if o.MaxSkew <= 0 {
		o.MaxSkew = DefaultMaxSkew
	}
	return &Verifier{o: o}
}

// Auth is what a verified request may claim.
type Auth struct {
	// AccessKey is who signed.
	AccessKey string
	// Presigned says that the signature came in the query.
	Presigned bool
	// Payload is the signed claim about the body: one of the special values
	// of x-amz-content-sha256, or a SHA-256 in hex.
	Payload string

	v       *Verifier
	key     *signingKey
	amzDate string
	scope   string
	seed    signature
}

// Verify checks the signature of a request, which must be as the server got
// it: before anything changed its path, query or headers. It does not touch
// the body; see [Auth.Body]. Errors are of type *Error.
func (v *Verifier) Verify(r *http.Request) (Auth, error) {
	header, inHeader := r.Header["Authorization"]
	raw := r.URL.RawQuery
	inQuery := strings.Contains(raw, "X-Amz-") &&
		(strings.Contains(raw, "X-Amz-Algorithm=") || strings.Contains(raw, "X-Amz-Signature=") || strings.Contains(raw, "X-Amz-Credential="))
	switch {
	case inHeader && (inQuery || len(header) > 1):
		return Auth{}, malformed("InvalidArgument", "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "+
			"Signature query string parameter or the Authorization header should be specified")
	case inHeader:
		return v.verifyHeader(r, header[0])
	case inQuery:
		return v.verifyQuery(r)
	case strings.Contains(raw, "AWSAccessKeyId="):
		return Auth{}, malformed("InvalidRequest", "The authorization mechanism you have provided is not supported. Please use "+Algorithm+".")
	}
	return Auth{}, refuse("AccessDenied", "Access Denied: the request is not signed.")
}

// first returns the first value of a header under its canonical name.
func first(h http.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (v *Verifier) verifyHeader(r *http.Request, header string) (Auth, error) {
	c, err := parseHeader(header)
	if err != nil {
		return Auth{}, err
	}
	if first(r.Header, "X-Amz-Security-Token") != "" {
		return Auth{}, errToken()
	}
	payload := first(r.Header, "X-Amz-Content-Sha256")
	if payload == "" {
		return Auth{}, malformed("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
	}
	at, amzDate, err := requestTime(r.Header)
	if err != nil {
		return Auth{}, err
	}
	if err := v.checkScope(&c, amzDate, malformedHeader); err != nil {
		return Auth{}, err
	}
	now := v.o.Now()
	if skew := now.Sub(at).Abs(); skew > v.o.MaxSkew {
		return Auth{}, refuse("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
			Detail{"RequestTime", amzDate},
			Detail{"ServerTime", now.UTC().Format(time.RFC3339)},
			Detail{"MaxAllowedSkewMilliseconds", strconv.FormatInt(v.o.MaxSkew.Milliseconds(), 10)})
	}
	return v.checkSignature(r, &c, amzDate, payload, false)
}

func errToken() error {
	return malformed("InvalidToken", "The provided token is malformed or otherwise invalid: temporary credentials are not supported; unset the session token.")
}

// requestTime reads x-amz-date or, without it, Date. Besides the time it
// returns its form in the string to sign.
func requestTime(h http.Header) (time.Time, string, error) {
	if s := first(h, "X-Amz-Date"); s != "" {
		at, err := time.Parse(amzDateFormat, s)
		if err != nil {
			return at, "", refuse("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
		}
		return at, s, nil
	}
	s := first(h, "Date")
	at, err := time.Parse(amzDateFormat, s)
	if err != nil {
		at, err = http.ParseTime(s)
	}
	if err != nil {
		return at, "", refuse("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
	}
	return at, at.UTC().Format(amzDateFormat), nil
}

// checkScope compares the scope with the request's date and this server.
func (v *Verifier) checkScope(c *claim, amzDate string, fail func(string, ...Detail) *Error) error {
	switch {
	case c.service != v.o.Service:
		return fail("incorrect service \"" + c.service + "\". This endpoint belongs to \"" + v.o.Service + "\".")
	case c.region != v.o.Region:
		return fail("the region '"+c.region+"' is wrong; expecting '"+v.o.Region+"'", Detail{"Region", v.o.Region})
	case !strings.HasPrefix(amzDate, c.date):
		return fail("Invalid credential date \"" + c.date + "\". This date is not the same as X-Amz-Date: \"" + amzDate[:min(8, len(amzDate))] + "\".")
	}
	return nil
}

// verifyQuery verifies a presigned URL (page sigv4-query-string-auth).
func (v *Verifier) verifyQuery(r *http.Request) (Auth, error) {
	q, err := ParseQuery(nil, r.URL.RawQuery)
	if err != nil {
		return Auth{}, err
	}
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires"} {
		if q.Get(name) == "" {
			return Auth{}, malformedQuery("Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, " +
				"X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
		}
	}
	if q.Get("X-Amz-Algorithm") != Algorithm {
		return Auth{}, malformedQuery("X-Amz-Algorithm only supports \"" + Algorithm + "\"")
	}
	c := claim{signedHeaders: q.Get("X-Amz-SignedHeaders"), signature: q.Get("X-Amz-Signature")}
	if why := c.setCredential(q.Get("X-Amz-Credential")); why != "" {
		return Auth{}, malformedQuery("Error parsing the X-Amz-Credential parameter; " + why)
	}
	if why := c.check(); why != "" {
		return Auth{}, malformedQuery(why)
	}
	if q.Has("X-Amz-Security-Token") || first(r.Header, "X-Amz-Security-Token") != "" {
		return Auth{}, errToken()
	}
	amzDate := q.Get("X-Amz-Date")
	at, err := time.Parse(amzDateFormat, amzDate)
	if err != nil {
		return Auth{}, malformedQuery("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
	}
	if err := v.checkScope(&c, amzDate, malformedQuery); err != nil {
		return Auth{}, err
	}
	if err := v.checkExpiry(at, q.Get("X-Amz-Expires")); err != nil {
		return Auth{}, err
	}
	// The body of a presigned request is unsigned unless the URL says more.
	payload := q.Get("X-Amz-Content-Sha256")
	if payload == "" {
		payload = first(r.Header, "X-Amz-Content-Sha256")
	}
	if payload == "" {
		payload = UnsignedPayload
	}
	return v.checkSignature(r, &c, amzDate, payload, true)
}

// checkExpiry checks the life of a presigned URL.
func (v *Verifier) checkExpiry(at time.Time, expires string) error {
	seconds, err := strconv.ParseInt(expires, 10, 64)
	switch {
	case err != nil:
		return malformedQuery("X-Amz-Expires should be a number")
	case seconds < 0:
		return malformedQuery("X-Amz-Expires must be non-negative")
	case seconds > int64(maxExpires/time.Second):
		return malformedQuery("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
	}
	now := v.o.Now()
	if at.Sub(now) > v.o.MaxSkew {
		return refuse("AccessDenied", "Request is not valid yet", Detail{"ServerTime", now.UTC().Format(time.RFC3339)})
	}
	if end := at.Add(time.Duration(seconds) * time.Second); now.After(end) {
		return refuse("AccessDenied", "Request has expired",
			Detail{"X-Amz-Expires", expires},
			Detail{"Expires", end.UTC().Format(time.RFC3339)},
			Detail{"ServerTime", now.UTC().Format(time.RFC3339)})
	}
	return nil
}

// checkSignature compares the claimed signature with the right one.
func (v *Verifier) checkSignature(r *http.Request, c *claim, amzDate, payload string, presigned bool) (Auth, error) {
	if !validPayload(payload) {
		return Auth{}, malformed("InvalidArgument", "x-amz-content-sha256 must be "+UnsignedPayload+", "+StreamingUnsignedTrailer+", "+
			StreamingSigned+", "+StreamingSignedTrailer+" or a valid sha256 value.",
			Detail{"ArgumentName", "x-amz-content-sha256"}, Detail{"ArgumentValue", payload})
	}
	secret, ok := v.o.Lookup(c.accessKey)
	if !ok {
		return Auth{}, refuse("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.",
			Detail{"AWSAccessKeyId", c.accessKey})
	}
	a := Auth{
		AccessKey: c.accessKey, Presigned: presigned, Payload: payload,
		v: v, key: v.keys.get(c.accessKey, secret, c.date, v.o.Region, v.o.Service), amzDate: amzDate, scope: c.scope,
	}
	s := v.scratch()
	defer v.release(s)
	if err := s.canonicalRequest(r, c.signedHeaders, payload); err != nil {
		return Auth{}, err
	}
	s.stringToSign(amzDate, c.scope)
	a.seed = a.key.sign(s.buf)
	if !a.seed.equals(c.signature) {
		return Auth{}, mismatch(s, r, c, payload)
	}
	if !c.signs("host") {
		return Auth{}, unsigned("host")
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") && name != "X-Amz-Content-Sha256" && !c.signs(name) {
			return Auth{}, unsigned(strings.ToLower(name))
		}
	}
	return a, nil
}

func unsigned(name string) error {
	return refuse("AccessDenied", "There were headers present in the request which were not signed", Detail{"HeadersNotSigned", name})
}

// mismatch says what the server signed, so that the client can compare. s
// holds the string to sign; the canonical request is built again.
func mismatch(s *scratch, r *http.Request, c *claim, payload string) error {
	toSign := string(s.buf)
	var canonical string
	if err := s.canonicalRequest(r, c.signedHeaders, payload); err == nil {
		canonical = string(s.buf)
	}
	return refuse("SignatureDoesNotMatch",
		"The request signature we calculated does not match the signature you provided. Check your key and signing method.",
		Detail{"AWSAccessKeyId", c.accessKey}, Detail{"StringToSign", toSign},
		Detail{"SignatureProvided", c.signature}, Detail{"CanonicalRequest", canonical})
}

func (v *Verifier) scratch() *scratch {
	if s, ok := v.pool.Get().(*scratch); ok {
		return s
	}
	return new(scratch)
}

// validPayload says whether a claim about the body is one that S3 knows.
func validPayload(p string) bool {
	switch p {
	case UnsignedPayload, StreamingSigned, StreamingSignedTrailer, StreamingUnsignedTrailer:
		return true
	}
	return isHash(p)
}

// isHash says whether s is a SHA-256 in hex.
func isHash(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if unhex(s[i]) > 15 {
			return false
		}
	}
	return true
}

// release keeps scratch memory of a usual size for the next request.
func (v *Verifier) release(s *scratch) {
	if cap(s.buf)+cap(s.encoded) <= 64<<10 {
		v.pool.Put(s)
	}
}
