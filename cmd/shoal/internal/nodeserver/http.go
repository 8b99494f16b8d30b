package nodeserver

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/shoalstore/shoal/plugins/api"
	apiserver "github.com/shoalstore/shoal/plugins/api/server"
	"github.com/shoalstore/shoal/plugins/s3gateway"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// handler serves the client port: S3 at /, Shoal's own under /-/.
func (s *server) handler() (http.Handler, error) {
	secrets := map[string]string{}
	for _, c := range s.cfg.Credentials {
		secrets[c.AccessKey] = string(c.SecretKey)
	}
	lookup := func(key string) (string, bool) {
		v, ok := secrets[key]
		return v, ok
	}
	gateway, err := s3gateway.New(s3gateway.Options{
		Objects: visible{s.meter.objects(s.node.Objects())}, Lookup: lookup, Region: s.cfg.Region, Clock: s.clock, Log: s.log,
		Transforms: s.transforms,
	})
	if err != nil {
		return nil, err
	}
	own := s.ownHandler(sigv4.NewVerifier(sigv4.Options{Region: s.cfg.Region, Lookup: lookup, Now: s.clock.Now}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/-/") {
			own.ServeHTTP(w, r)
			return
		}
		gateway.ServeHTTP(w, r)
	}), nil
}

// ownHandler serves what is below /-/.
func (s *server) ownHandler(v *sigv4.Verifier) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/live", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	})
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.node.Ready(); err != nil {
			writeJSON(w, http.StatusServiceUnavailable, api.ErrorBody{Error: api.FromError(err)})
			return
		}
		writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
	})
	mux.Handle("GET /-/metrics", promhttp.HandlerFor(s.registry(), promhttp.HandlerOpts{}))
	mux.Handle(api.Prefix+"/", authenticated(v, apiserver.New(apiserver.Services{
		Cluster: clusterService{s}, Buckets: bucketService{s}, Jobs: jobService{s}, Performance: performanceService{s},
		Transforms: transformService{s},
	}, s.log)))
	mux.HandleFunc("/-/", func(w http.ResponseWriter, r *http.Request) {
		e := &api.Error{Code: api.CodeNotFound, Message: r.URL.Path + ": no such page"}
		if strings.HasPrefix(r.URL.Path, "/-/ui") {
			e = api.NotBuilt("the web console")
		}
		writeJSON(w, e.Status(), api.ErrorBody{Error: e})
	})
	return mux
}

// authenticated lets requests through that are signed with a known key.
func authenticated(v *sigv4.Verifier, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth, err := v.Verify(r)
		if err == nil {
			var body *sigv4.Body
			if body, _, err = auth.Body(r); err == nil {
				defer body.Release()
				r.Body = io.NopCloser(body)
				next.ServeHTTP(w, r)
				return
			}
		}
		e := &api.Error{Code: api.CodeForbidden, Message: err.Error(), Hint: "sign the request with SigV4 for service s3, e.g. with the keys that `shoal dev env` prints"}
		var bad *sigv4.Error
		if errors.As(err, &bad) && bad.Status != 0 {
			writeJSON(w, bad.Status, api.ErrorBody{Error: e})
			return
		}
		writeJSON(w, e.Status(), api.ErrorBody{Error: e})
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}
