package client

import (
	"encoding/xml"
	"fmt"
	"net/http"

	"github.com/shoalstore/shoal/plugins/api"
)

// s3Error makes an error of an S3 answer.
func s3Error(status int, body []byte) *statusError {
	var x struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}
	if xml.Unmarshal(body, &x) != nil || x.Code == "" {
		return newStatusError(status, &api.Error{
			Code: codeOf(status), Message: statusText(status),
		})
	}
	code, ok := map[string]api.Code{
		"NoSuchKey":               api.CodeNotFound,
		"NoSuchUpload":            api.CodeNotFound,
		"NoSuchTransform":         api.CodeNotFound,
		"TransformFailed":         api.CodeRefused,
		"NoSuchBucket":            api.CodeNoSuchBucket,
		"BucketAlreadyOwnedByYou": api.CodeExists,
		"BucketAlreadyExists":     api.CodeExists,
		"BucketNotEmpty":          api.CodeNotEmpty,
		"PreconditionFailed":      api.CodePrecondition,
		"AccessDenied":            api.CodeForbidden,
		"SignatureDoesNotMatch":   api.CodeForbidden,
		"InvalidAccessKeyId":      api.CodeForbidden,
		"EntityTooLarge":          api.CodeTooLarge,
		"NotImplemented":          api.CodeNotBuilt,
		"SlowDown":                api.CodeThrottled,
	}[x.Code]
	if !ok {
		code = codeOf(status)
	}
	e := newStatusError(status, &api.Error{Code: code, Message: fmt.Sprintf("%s (%s)", x.Message, x.Code)})
	if x.Code == "SlowDown" {
		e.retry = true
	}
	if x.Code == "BadDigest" {
		// The checksum is that of what was sent: the bytes changed on the way.
		e.retry, e.fault = true, true
	}
	return e
}

func statusText(status int) string {
	switch status {
	case http.StatusNotFound:
		return "not found"
	case http.StatusPreconditionFailed:
		return "precondition failed"
	}
	return fmt.Sprintf("the server answered %d %s", status, http.StatusText(status))
}
